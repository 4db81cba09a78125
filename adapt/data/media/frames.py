"""Clips as frames: decoded by PyAV (GIF and pictures by Pillow), chosen by time, shown as a contact sheet."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from adapt.data.decode import decode
from adapt.errors import DataError

Frames = NDArray[np.uint8]
"""(frames, height, width, 3) in [0, 255]."""
STILL = (b"\x89PNG", b"\xff\xd8\xff", b"BM")
MOST_FRAMES = 3000
"""Of one file: more is a film, not a clip, and would not fit into memory."""
SHEET = 4
"""Frames in a row of a contact sheet."""


def av() -> Any:
    """The package that reads and writes video files.

    Raises:
        DataError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise DataError("Video files need a package that is not installed", given="av",
                        next="pip install 'adapt-diffusion[data]'") from error  # fmt: skip
    return av


def read(data: bytes, background: str) -> tuple[list[Image.Image], list[float]]:
    """All frames of a clip as RGB, upright, and the second at which each is shown; last the second at which it ends.

    Raises:
        DataError: it is no clip, is cut off or damaged, or has too many frames.
    """
    if not data:
        raise DataError("is an empty file", next="replace it")
    if data.startswith(STILL):
        return [decode(data, background)], [0.0, 0.0]
    reader = _gif if data.startswith(b"GIF8") else _film
    try:
        frames, times = reader(data, background)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's and FFmpeg's decoders raise nearly anything for damaged files
        raise DataError(f"is no clip that can be read: {(str(error).splitlines() or ['damaged'])[0]}",
                        allowed="MP4, MOV, MKV, WebM, GIF", next="convert or replace it") from error  # fmt: skip
    if not frames:
        raise DataError("holds no frame", next="replace it")
    return frames, times


def at_rate(times: Sequence[float], fps: float) -> list[int]:
    """Numbers of the frames that are seen at seconds 0, 1/fps … before the clip ends; `times` as `read` gives them."""
    starts, end = np.asarray(times[:-1]), times[-1]
    count = max(1, int(np.floor(end * fps + 1e-6)))
    moments = np.arange(count) / fps + starts[0]
    chosen: list[int] = np.clip(np.searchsorted(starts, moments + 1e-6, side="right") - 1, 0, len(starts) - 1).tolist()
    return chosen


def _film(data: bytes, background: str) -> tuple[list[Image.Image], list[float]]:
    frames, times, length = list[Image.Image](), list[float](), 0.0
    with av().open(io.BytesIO(data)) as container:
        if not container.streams.video:
            raise DataError("holds no picture, only sound", next="give it to a base that makes sounds")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        step = float(1 / (stream.average_rate or Fraction(24)))
        for frame in container.decode(stream):
            _require_few(len(frames))
            picture = frame.to_image()
            frames.append(picture.rotate(frame.rotation, expand=True) if getattr(frame, "rotation", 0) else picture)
            times.append(float(frame.time) if frame.time is not None else len(times) * step)
            length = times[-1] + step
    return frames, [time - times[0] for time in times] + [length - times[0]] if times else []


def _gif(data: bytes, background: str) -> tuple[list[Image.Image], list[float]]:
    frames, times = list[Image.Image](), [0.0]
    with Image.open(io.BytesIO(data), formats=("GIF",)) as image:
        for frame in ImageSequence.Iterator(image):
            _require_few(len(frames))
            frames.append(_on(frame.convert("RGBA"), background))
            times.append(times[-1] + max(frame.info.get("duration", 0), 10) / 1000)
    return frames, times


def _on(frame: Image.Image, background: str) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", frame.size, background), frame).convert("RGB")


def _require_few(count: int) -> None:
    if count >= MOST_FRAMES:
        raise DataError(f"has more than {MOST_FRAMES} frames", next="cut it into clips")


def contact_sheet(frames: Frames, most: int = 2 * SHEET) -> Image.Image:
    """Up to `most` frames, evenly chosen, in rows of four."""
    chosen = [frames[k * len(frames) // most] for k in range(most)] if len(frames) > most else list(frames)
    height, width = chosen[0].shape[:2]
    columns = min(SHEET, len(chosen))
    sheet = Image.new("RGB", (columns * width, -(-len(chosen) // columns) * height), "black")
    for place, frame in enumerate(chosen):
        sheet.paste(Image.fromarray(frame), (place % columns * width, place // columns * height))
    return sheet


def pieces(frames: Sequence[Image.Image]) -> Iterator[bytes]:
    """The pixels, for a digest."""
    return (frame.tobytes() for frame in frames)
