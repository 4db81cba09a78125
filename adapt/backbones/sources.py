"""Pictures that a base is given beside the noise: what editing and inpainting are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL.Image import Image, fromarray
from torch import Tensor

from conditioning import Condition

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone

PART = "source"
"""The part of a condition: `{"latents": (B, C, h, w)}` and what else a family takes."""
HOLE = "hole"
"""Of the part `source`, where a base fills holes: (B, M, h, w), 1 where it fills."""


def latents_of(condition: Condition, x_t: Tensor) -> Tensor | None:
    """The source's latents on x_t's device and in its dtype; None: there is none."""
    part = condition.parts.get(PART)
    return None if part is None else part["latents"].to(x_t)


def beside(backbone: Backbone, x_t: Tensor, condition: Condition) -> Tensor:
    """x_t (B, C, h, w) with the source's channels behind its own, the hole's before its latents; blank, where there is none."""
    if not backbone.takes_source:
        return x_t
    part = condition.parts.get(PART) or backbone.blank_source(len(x_t), *x_t.shape[-2:])
    return torch.cat([x_t, *(part[name].to(x_t) for name in (HOLE, "latents") if name in part)], 1)


def to_pil(pixels: Tensor) -> list[Image]:
    """(B, 3, H, W) in [-1, 1] → pictures of 8 bit."""
    values = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return [fromarray(row) for row in values.permute(0, 2, 3, 1).cpu().numpy()]


def with_blank(backbone: Backbone, condition: Condition, *dims: int) -> Condition:
    """The condition with a source of zeros beside latents of these dims, where the base takes one: a step costs more with it."""
    if not backbone.takes_source:
        return condition
    return condition.replaced({PART: backbone.blank_source(len(condition), *dims)})
