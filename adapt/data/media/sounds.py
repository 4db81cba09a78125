"""Sounds: at the base's rate and channels, cut or filled with silence to its length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from adapt.data.buckets import Size
from adapt.data.likeness import SIDE, difference_hash
from adapt.data.look import Look
from adapt.data.media.pictures import TooSmall
from adapt.data.media.waves import HOP, Wave, read, resampled, soundfile, spectrogram, with_channels
from adapt.data.picture import SOUNDS
from adapt.errors import DataError
from adapt.medium import Medium

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.data.view import View

VERSION = 1
SHORTEST = 0.05
"""Seconds."""
SILENT = 1e-4
"""Peak, -80 dB: nothing is heard."""
CLIPPED = 1e-3
"""Share of samples at full scale from which a sound is heard to be clipped."""


class Sounds:
    """See `Reader`.

    Raises:
        DataError: soundfile is not installed.
    """

    noun, same, timed = "sounds", "sounds the same", False
    extensions: tuple[str, ...] = SOUNDS

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self.facts: list[object] = ["sound", VERSION, soundfile().__libsndfile_version__, medium.rate, medium.channels]

    def look(self, data: bytes, file: str) -> Look:
        """See `Reader.look`."""
        wave, rate = read(data)
        seconds = wave.shape[1] / rate
        if seconds < SHORTEST:
            raise TooSmall(f"is {seconds:.3f} s long: {SHORTEST} s or more are needed")
        if np.abs(wave).max() < SILENT:
            raise DataError("is silent", next="remove it")
        if len(wave) > 2 and self.medium.channels > 1:
            raise DataError(f"has {len(wave)} channels", allowed="1 or 2", next="mix it down")
        heard = self._fitted(wave, rate)
        digest = hashlib.sha256(f"{heard.shape}".encode() + heard.tobytes()).hexdigest()
        remarks = tuple(self._remarks(wave, rate))
        return Look(digest, (heard.shape[1], 1), remarks, False, _likeness(heard, digest), None, seconds, file)

    def about(self, look: Look) -> Iterator[tuple[str, str]]:
        """See `Reader.about`."""
        wanted = self.medium.seconds
        if look.size[0] > self.medium.side > 0:
            yield "long", f"is {look.seconds:.1f} s: {wanted:.1f} s of it are used, others with crop=random"
        if look.size[0] < self.medium.side:
            yield "short", f"is {look.seconds:.1f} s: it is filled up with silence to {wanted:.1f} s"

    def size_of(self, data: bytes) -> Size:
        """See `Reader.size_of`."""
        wave, rate = read(data)
        return round(wave.shape[1] * self.medium.rate / rate), 1

    def row(self, data: bytes, view: View) -> Tensor:
        """See `Reader.row`: (channels, samples)."""
        import torch

        wave, length = self._fitted(*read(data)), view.size[0]
        start = round(view.box[0]) if wave.shape[1] > length else 0
        part = wave[:, start : start + length]
        return torch.from_numpy(np.pad(part, ((0, 0), (0, length - part.shape[1]))).clip(-1, 1))

    def _fitted(self, wave: Wave, rate: int) -> Wave:
        return with_channels(resampled(wave, rate, self.medium.rate), self.medium.channels)

    def _remarks(self, wave: Wave, rate: int) -> Iterator[tuple[str, str]]:
        if rate != self.medium.rate:
            lost = f", and nothing above {rate / 2000:g} kHz is in it" if rate < self.medium.rate else ""
            yield "rate", f"has {rate} samples a second: it is brought to {self.medium.rate}{lost}"
        if len(wave) != self.medium.channels:
            done = "its channels are mixed" if self.medium.channels == 1 else "both channels get the same"
            yield "channels", f"has {len(wave)} channels where the base has {self.medium.channels}: {done}"
        if (np.abs(wave) >= 0.9999).mean() > CLIPPED:
            yield "clipped", "is clipped: its peaks are cut off, and that is learned"


def _likeness(wave: Wave, digest: str) -> int:
    """Of its spectrogram; of a sound that is too short for one, its digest, which is like no other."""
    if wave.shape[1] < 2 * SIDE * HOP:
        return int(digest, 16)
    return difference_hash(spectrogram(wave))
