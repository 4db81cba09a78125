"""Pictures that a base is given beside the noise: what editing and inpainting are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from conditioning import Condition

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone

PART = "source"
"""The part of a condition: `{"latents": (B, C, h, w)}` and what else a family takes."""
TASKS = ("edit",)
"""Tasks of such bases."""


def latents_of(condition: Condition, x_t: Tensor) -> Tensor | None:
    """The source's latents on x_t's device and in its dtype; None: there is none."""
    part = condition.parts.get(PART)
    return None if part is None else part["latents"].to(x_t)


def beside(x_t: Tensor, condition: Condition) -> Tensor:
    """x_t (B, C, h, w) with the source's channels behind its own; zeros, the null, where there is none."""
    latents = latents_of(condition, x_t)
    return torch.cat([x_t, torch.zeros_like(x_t) if latents is None else latents], 1)


def with_blank(backbone: Backbone, condition: Condition, *dims: int) -> Condition:
    """The condition with a source of zeros beside latents of these dims, where the base takes one: a step costs more with it."""
    if not backbone.takes_source:
        return condition
    return condition.replaced({PART: backbone.blank_source(len(condition), *dims)})
