"""Controls that a picture gives of itself: its edges, its colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Extractor = Callable[[Tensor], Tensor]
"""Pixels (3, H, W) in [-1, 1] → the control, shaped and ranged alike."""
GRID = 8
"""Colours are means over so many places along each side."""


def edges(pixels: Tensor) -> Tensor:
    """White lines on black: the length of Sobel's gradient, of the channel where it is longest; a full step of brightness is
    white. At the border the picture goes on as it ends."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    both = torch.stack([kernel, kernel.T])[:, None].to(pixels)
    padded = F.pad(pixels[:, None], (1, 1, 1, 1), mode="replicate")
    length = F.conv2d(padded, both).square().sum(1).sqrt().amax(0)  # 1: from -1 to 1 between neighbours
    return (2 * (2 * length).clamp(0, 1) - 1).expand(3, -1, -1).contiguous()


def colours(pixels: Tensor) -> Tensor:
    """Means over 8 × 8 places, each as large as what it stands for."""
    return F.interpolate(F.adaptive_avg_pool2d(pixels[None], GRID), pixels.shape[1:], mode="nearest")[0]


def given(pixels: Tensor) -> Tensor:
    """The control itself: a map of the user's own (depth, a pose …)."""
    return pixels


FILES = "files"
EXTRACTORS: Mapping[str, Extractor] = {"edges": edges, "colours": colours, FILES: given}
"""By the name of the setting `control`."""
