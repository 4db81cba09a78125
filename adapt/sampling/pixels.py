"""Pictures ↔ pixels as tensors."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from adapt.errors import DataError
from adapt.sampling.clip import Clip, Sound


def to_pixels(picture: Image.Image, height: int, width: int) -> Tensor:
    """A picture resized to height × width → (1, 3, H, W) in [-1, 1]."""
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.array(resized, dtype=np.float32) / 255)  # (H, W, 3)
    return 2 * values.permute(2, 0, 1)[None] - 1


def to_hole(mask: Image.Image, height: int, width: int, dims: tuple[int, ...]) -> Tensor:
    """A mask → (1, 1, *dims): 1 where it is repainted, else 0; resized to height × width and rounded on the way.

    Raises:
        DataError: nothing is left to repaint.
    """
    resized = mask.convert("L").resize((width, height), Image.Resampling.LANCZOS)
    white = torch.from_numpy(np.array(resized) >= 128).float()[None, None]  # (1, 1, H, W)
    hole = F.interpolate(white, size=dims)
    if not bool(hole.any()):
        raise nothing_left()
    return hole


def nothing_left() -> DataError:
    """The error for a mask whose white is too thin for the base's latents."""
    return DataError("the mask leaves nothing to repaint at this size", allowed="white where it is repainted",
                     next="make the white area larger")  # fmt: skip


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [-1, 1], values outside cut off → B pictures of 8 bit."""
    values = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
    rows = values.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    return [Image.fromarray(row) for row in rows]


def to_sounds(samples: Tensor, rate: int, seconds: float) -> list[Sound]:
    """(B, channels, samples) → B sounds, each cut to so many seconds."""
    kept = samples[..., : round(seconds * rate)].float().clamp(-1, 1).cpu().numpy()
    return [Sound(row, rate) for row in kept]


def to_clips(pixels: Tensor, fps: float) -> list[Clip]:
    """(B, 3, frames, H, W) in [-1, 1], values outside cut off → B clips of 8 bit."""
    values = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
    rows = values.round().to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()  # (B, frames, H, W, 3)
    return [Clip(row, fps) for row in rows]
