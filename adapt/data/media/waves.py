"""Sounds as numbers: read, resampled, brought to some channels, shown as a spectrogram. NumPy alone; soundfile decodes."""

from __future__ import annotations

import io
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapt.errors import DataError

Wave = NDArray[np.float32]
"""(channels, samples) in [-1, 1]."""
WINDOW, HOP = 1024, 256
DYNAMIC = 80.0
"""Decibels between black and white of a spectrogram."""
PAD = 4096
"""Samples that are mirrored at both ends before resampling, so that the ends do not ring into each other."""


def soundfile() -> Any:
    """The package that reads and writes sound files.

    Raises:
        DataError: it is not installed.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise DataError("Sound files need a package that is not installed", given="soundfile",
                        next="pip install 'adapt-diffusion[data]'") from error  # fmt: skip
    return soundfile


def read(data: bytes) -> tuple[Wave, int]:
    """A sound file (WAV, FLAC, MP3, Ogg; its bytes decide) → samples and how many there are a second.

    Raises:
        DataError: it is none of these, is cut off or damaged, or holds values that are not finite.
    """
    if not data:
        raise DataError("is an empty file", next="replace it")
    try:
        with soundfile().SoundFile(io.BytesIO(data)) as file:
            promised, rate = len(file), int(file.samplerate)
            samples = file.read(dtype="float32", always_2d=True).T
    except DataError:
        raise
    except Exception as error:  # libsndfile's words: unknown format, bad header, lost sync
        raise DataError(f"is no sound that can be read: {_first(error)}", allowed="WAV, FLAC, MP3, Ogg",
                        next="convert or replace it") from error  # fmt: skip
    if samples.shape[1] == 0 or samples.shape[1] < promised:
        raise DataError(f"is cut off: {samples.shape[1]} of {promised} samples are there", next="replace it")
    if not np.isfinite(samples).all():
        raise DataError("holds samples that are not finite", next="export it again")
    return np.ascontiguousarray(samples), rate


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rpartition(": ")[2]


def resampled(wave: Wave, rate: int, wanted: int) -> Wave:
    """The same sound at another number of samples a second: what both rates can hold, exactly (by Fourier transform)."""
    if rate == wanted or wave.shape[1] < 2:
        return wave
    unit = rate // gcd(rate, wanted)  # so many samples are a whole number of samples at both rates
    pad = -(-PAD // unit) * unit
    rest = -wave.shape[1] % unit
    x = np.pad(wave.astype(np.float64), ((0, 0), (pad, pad + rest)), mode="reflect")
    before, after = x.shape[1], x.shape[1] * wanted // rate
    spectrum = np.fft.rfft(x)
    kept = np.zeros((len(wave), after // 2 + 1), complex)
    n = min(spectrum.shape[1], kept.shape[1])
    kept[:, :n] = spectrum[:, :n]
    y: Wave = (np.fft.irfft(kept, after) * (after / before)).astype(np.float32)
    start = pad * wanted // rate
    return y[:, start : start + round(wave.shape[1] * wanted / rate)]


def with_channels(wave: Wave, wanted: int) -> Wave:
    """Mono on every channel, or the mean of all; two out of more cannot be told and is not asked for."""
    if len(wave) == wanted:
        return wave
    return np.repeat(wave.mean(0, keepdims=True), wanted, 0)


def spectrogram(wave: Wave, width: int = 256, height: int = 128) -> Image.Image:
    """Low at the bottom, louder is brighter, logarithmic in level (80 dB) and frequency; the mean of the channels.

    Silence is black.
    """
    x = wave.mean(0)
    x = np.pad(x, (WINDOW // 2, WINDOW // 2 + max(0, WINDOW - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (times, frequencies)
    rows = np.geomspace(4, WINDOW // 2, height).round().astype(int)
    level = 10 * np.log10(power[:, rows] + 1e-12) - 10 * np.log10((WINDOW / 4) ** 2)  # 0 dB: a full sine
    grey = ((level + DYNAMIC) / DYNAMIC * 255).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey.T[::-1]).resize((width, height), Image.Resampling.BILINEAR)
