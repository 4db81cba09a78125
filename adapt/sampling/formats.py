"""What is drawn as a file: PNG, JPEG, WebP, MP4, GIF, each with how it was drawn where the format has a place for it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

from PIL import ExifTags, Image

from adapt.errors import SettingsError
from adapt.sampling.clip import Clip, Drawn, Sound
from adapt.sampling.png import Parameters, png_bytes

QUALITY = 95
"""Of JPEG and WebP."""
UNICODE = b"UNICODE\0"
"""What EXIF's user comment begins with, as A1111 writes it."""


def _exif(text: str) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = UNICODE + text.encode("utf-16-be")
    return exif


def _by_pillow(kind: str, picture: Image.Image, parameters: Parameters | None) -> bytes:
    buffer = io.BytesIO()
    more = {} if parameters is None else {"exif": _exif(parameters.as_text())}
    picture.save(buffer, kind, quality=QUALITY, **more)
    return buffer.getvalue()


def gif_bytes(clip: Clip, parameters: Parameters | None = None) -> bytes:
    """256 colours a frame; durations are hundredths of a second."""
    frames, buffer = [Image.fromarray(frame) for frame in clip.frames], io.BytesIO()
    more = {} if parameters is None else {"comment": parameters.as_text().encode()}
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=round(100 / clip.fps) * 10, loop=0,
                   **more)  # fmt: skip
    return buffer.getvalue()


def mp4_bytes(clip: Clip, parameters: Parameters | None = None) -> bytes:
    """H.264, constant quality, one thread, so that equal clips give equal bytes.

    Raises:
        DataError: PyAV is not installed.
    """
    from adapt.data.media.frames import av

    lib, buffer = av(), io.BytesIO()
    height, width = clip.frames.shape[1:3]
    with lib.open(buffer, "w", format="mp4") as container:
        if parameters is not None:
            container.metadata["comment"] = parameters.as_text()
        stream = container.add_stream("libx264", rate=Fraction(clip.fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        stream.options, stream.thread_count = {"crf": "16"}, 1
        for frame in clip.frames:
            even = frame[: stream.height, : stream.width]
            container.mux(stream.encode(lib.VideoFrame.from_ndarray(even.copy(), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _by_soundfile(kind: str, sound: Sound, parameters: Parameters | None) -> bytes:
    """16 bit a sample. Raises DataError when soundfile is not installed."""
    from adapt.data.media.waves import soundfile

    buffer, (channels, _) = io.BytesIO(), sound.samples.shape
    with soundfile().SoundFile(buffer, "w", sound.rate, channels, "PCM_16", format=kind) as file:
        if parameters is not None:
            file.comment = parameters.as_text()
        file.write(sound.samples.T.clip(-1, 1))
    return buffer.getvalue()


PICTURES: Mapping[str, Callable[[Image.Image, Parameters | None], bytes]] = {
    ".png": png_bytes,
    ".jpg": lambda picture, told: _by_pillow("JPEG", picture, told),
    ".jpeg": lambda picture, told: _by_pillow("JPEG", picture, told),
    ".webp": lambda picture, told: _by_pillow("WEBP", picture, told),
}
CLIPS: Mapping[str, Callable[[Clip, Parameters | None], bytes]] = {".mp4": mp4_bytes, ".gif": gif_bytes}
SOUNDS: Mapping[str, Callable[[Sound, Parameters | None], bytes]] = {
    ".wav": lambda sound, told: _by_soundfile("WAV", sound, told),
    ".flac": lambda sound, told: _by_soundfile("FLAC", sound, told),
}
ENDINGS = (*PICTURES, *CLIPS, *SOUNDS)


def encoded(drawn: Drawn, ending: str, parameters: Parameters | None = None) -> bytes:
    """The file; equal things and parameters give equal bytes.

    Args:
        ending: `.png` …; "": the usual one (`usual`).

    Raises:
        SettingsError: a format that cannot hold it.
        DataError: MP4 without PyAV.
    """
    ending = ending.lower() or usual(drawn)
    if isinstance(drawn, Clip):
        if ending not in CLIPS:
            raise _unfit(ending, "a clip", CLIPS)
        return CLIPS[ending](drawn, parameters)
    if isinstance(drawn, Sound):
        if ending not in SOUNDS:
            raise _unfit(ending, "a sound", SOUNDS)
        return SOUNDS[ending](drawn, parameters)
    if ending not in PICTURES:
        raise _unfit(ending, "a picture", PICTURES)
    return PICTURES[ending](drawn, parameters)


def usual(drawn: Drawn) -> str:
    """PNG; of clips MP4, of sounds WAV."""
    if isinstance(drawn, Sound):
        return ".wav"
    return ".mp4" if isinstance(drawn, Clip) else ".png"


def _unfit(ending: str, what: str, allowed: Mapping[str, object]) -> SettingsError:
    return SettingsError(f"{ending} cannot hold {what}", given=ending, allowed=", ".join(allowed))


def told_in(path: str | Path) -> str | None:
    """How a JPEG or WebP was drawn; None where it does not say."""
    with Image.open(path) as picture:
        comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if not isinstance(comment, bytes) or not comment.startswith(UNICODE):
        return None
    return comment.removeprefix(UNICODE).decode("utf-16-be")
