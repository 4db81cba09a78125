"""Parts of the condition that adapters have learned to make, told to the base that they are on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adapt.backbones import Backbone
from adapt.backbones.features import features_of
from adapt.sampling.pixels import to_pixels
from adapt.sampling.request import Drawing
from conditioning import Condition


def told(backbone: Backbone, condition: Condition, drawings: Sequence[Drawing]) -> Condition:
    """The condition with class and reference picture of each drawing, as far as there are conditioners for them."""
    raw: dict[str, list[Any]] = {"class": [dict(drawing.classes) for drawing in drawings]}
    if "image" in backbone.conditioners:
        raw["image"] = references(backbone, drawings)
    return _with(backbone, condition, raw)


def nothing(backbone: Backbone, condition: Condition) -> Condition:
    """The condition with no class and no reference picture."""
    return _with(backbone, condition, {"class": [""] * len(condition), "image": [None] * len(condition)})


@torch.no_grad()
def _with(backbone: Backbone, condition: Condition, raw: dict[str, list[Any]]) -> Condition:
    return condition.replaced({part: each.encode(raw[part]) for part, each in backbone.conditioners.items()})


def references(backbone: Backbone, drawings: Sequence[Drawing]) -> list[Tensor | None]:
    """Features of each drawing's reference picture; None without one."""
    known: dict[int, Tensor | None] = {}
    for drawing in drawings:
        picture = drawing.image_prompt
        if id(picture) not in known:
            known[id(picture)] = None if picture is None else _features(backbone, drawing)
    return [known[id(drawing.image_prompt)] for drawing in drawings]


@torch.no_grad()
def _features(backbone: Backbone, drawing: Drawing) -> Tensor:
    assert drawing.image_prompt is not None
    side = backbone.resolution
    mean, _ = backbone.encode_media(to_pixels(drawing.image_prompt, side, side))
    return features_of(mean[0].cpu())
