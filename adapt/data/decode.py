"""Encoded picture → RGB pixels as a viewer shows them: turned upright, on a background, in sRGB, 8 bits a channel."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor, UnidentifiedImageError

from adapt.data.buckets import CENTRE, crop_box
from adapt.errors import DataError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
LARGEST = 64_000_000
"""Pixels of the largest picture that is decoded."""
VERSION = 1
"""Goes into cache keys: raise it when the same bytes give other pixels."""

_PNG_END = b"IEND\xae\x42\x60\x82"
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
_KNOWN = (
    (b"GIF8", "a GIF"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"version https://git-lfs", "a Git LFS pointer, whose picture `git lfs pull` fetches"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"<svg", "an SVG"),
    (b"<", "a web page or other text"),
)


@dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    Attributes:
        image: mode RGB, upright.
        animated: there are further frames, which are not used.
        transparent: some pixels were transparent and now show the background.
    """

    image: Image.Image
    animated: bool
    transparent: bool


def decode(data: bytes, background: str = "white") -> Image.Image:
    """The picture as RGB, upright; `examine` says more.

    Args:
        data: a PNG, JPEG, WebP or BMP file; its bytes decide, not its name.
        background: colour behind transparent pixels, a CSS name or `#rrggbb`.

    Raises:
        DataError: it is none of these, is cut off or damaged, or has more than 64 million pixels.
        SettingsError: the background is no colour.
    """
    return examine(data, background).image


def examine(data: bytes, background: str = "white") -> Decoded:
    """As `decode`, with what was noticed on the way. The first frame of an animation; alpha composed on the background;
    16-bit grey scaled to 8; an embedded colour profile converted to sRGB."""
    colour = colour_of(background)
    image = _opened(data)
    animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"  # MPO: a photograph's own preview
    upright = _upright(_loaded(image, data))
    flat, alpha = _split_alpha(upright)
    rgb = _to_srgb(flat, image.info.get("icc_profile"))
    if alpha is None or alpha.getextrema() == (255, 255):
        return Decoded(rgb, animated, False)
    return Decoded(Image.composite(rgb, Image.new("RGB", rgb.size, colour), alpha), animated, True)


def fit(image: Image.Image, width: int, height: int, at: tuple[float, float] = CENTRE) -> NDArray[np.uint8]:
    """The largest part of the aspect width : height, resized by Lanczos.

    Args:
        at: where that part lies, across and down; see `crop_box`.

    Returns:
        (height, width, 3) in [0, 255]; the picture's own pixels when it has that size.
    """
    box = crop_box(image.size, (width, height), at)
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS, box), dtype=np.uint8)


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a picture, upright, from its header alone. Raises DataError as `decode`."""
    image = _opened(data)
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
    except Exception:  # as in `_upright`
        turned = False
    return (image.height, image.width) if turned else image.size


def pixels(array: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) in [0, 255] → float32 (3, H, W) in [-1, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))).float() / 127.5 - 1.0


def alpha_of(data: bytes) -> Image.Image:
    """The alpha channel of a picture, upright: mode L, 255 where it is opaque, and everywhere when it has none.

    Raises:
        DataError: as `decode`.
    """
    upright = _upright(_loaded(_opened(data), data))
    alpha = _split_alpha(upright)[1]
    return alpha if alpha is not None else Image.new("L", upright.size, 255)


def brightness(data: bytes) -> Image.Image:
    """A mask's file as mode L, upright; what is transparent in it is black. Raises DataError as `decode`."""
    return examine(data, "black").image.convert("L")


def colour_of(background: str) -> tuple[int, int, int]:
    """A colour's red, green and blue in [0, 255]. Raises SettingsError when it is none."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(background)
    except ValueError as error:
        raise SettingsError("background is no colour", given=background, allowed="a CSS name or #rrggbb") from error
    return red, green, blue


# ------------------------------------------------------------------------------------------------ opening
def _opened(data: bytes) -> Image.Image:
    """The picture with its header read and checked; no pixels yet."""
    if not data:
        raise DataError("is an empty file", next="replace it")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"has too many pixels: {error}", allowed=_limit()) from error
    except UnidentifiedImageError as error:
        raise DataError(f"is {_what(data)}", allowed=", ".join(FORMATS), next="convert or replace it") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged headers
        raise _damaged(error) from error
    if image.width * image.height > LARGEST:
        raise DataError("has too many pixels", given=f"{image.width} x {image.height}", allowed=_limit())
    return image


def _loaded(image: Image.Image, data: bytes) -> Image.Image:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # as above, for damaged pixels
        raise _damaged(error) from error
    if image.format == "PNG" and _PNG_END not in data:
        raise DataError("is cut off: its end is missing", next="replace it")  # Pillow is content with all rows
    return image


def _damaged(error: Exception) -> DataError:
    return DataError(f"is cut off or damaged: {error or type(error).__name__}", next="replace it")


def _limit() -> str:
    return f"up to {LARGEST // 10**6} million pixels"


def _what(data: bytes) -> str:
    start = data[:64].lstrip()
    if data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM")):
        return "cut off or damaged: its header cannot be read"
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    return next((name for magic, name in _KNOWN if start.startswith(magic)), "no picture that can be read")


# ------------------------------------------------------------------------------------------------ pixels
def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF's orientation says; unreadable EXIF data is no reason to refuse a picture."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF blocks raise nearly anything
        turn = None
    return image if turn is None else image.transpose(turn)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The picture without alpha (L, RGB or CMYK, 8 bits), and alpha (L) where it has one."""
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode in ("LA", "La"):
        return image.convert("LA").getchannel("L"), image.convert("LA").getchannel("A")
    if image.mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _from_16_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """16-bit grey scaled to 8 bits, rounded (Pillow's own conversion clips: all above 255 turns white)."""
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(((values.clip(0, 65535) * 255 + 32767) // 65535).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey, None
    return grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, icc: Any) -> Image.Image:
    """L, RGB or CMYK → RGB in sRGB; by the embedded profile where there is a usable one that is not sRGB itself."""
    if isinstance(icc, bytes) and icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            if "srgb" not in ImageCms.getProfileDescription(profile).lower():
                converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # damaged, or made for another number of channels: viewers ignore it as well
    return image.convert("RGB")
