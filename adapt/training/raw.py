"""Raw conditions of the parts that are taught: what a row is told, before its conditioner makes tensors of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from adapt.backbones.features import features_of
from adapt.data import EncodedPictures
from conditioning import Part

View = tuple[int, bool, int]
"""Which example, whether it is mirrored, which variant."""


def labels(examples: EncodedPictures, views: Sequence[View]) -> list[str]:
    """The class of each; none of those that only keep what the base knows."""
    pictures = [examples.pictures[index] for index, _, _ in views]
    return ["" if picture.prior else picture.label or "" for picture in pictures]


def references(examples: EncodedPictures, views: Sequence[View]) -> list[Tensor | None]:
    """Features of each picture's reference, whole; without one, of the picture itself, as it is seen."""
    return [None if examples.pictures[view[0]].prior else features_of(_asked_by(examples, view)) for view in views]


def _asked_by(examples: EncodedPictures, view: View) -> Tensor:
    own = examples.pictures[view[0]].reference is None
    return examples.latents(*view)[0] if own else examples.reference(view[0])


def controls(examples: EncodedPictures, views: Sequence[View]) -> list[Tensor | None]:
    """Pixels of what each picture is controlled by, as it is seen."""
    return [None if examples.pictures[view[0]].prior else examples.control(*view) for view in views]


def sources(examples: EncodedPictures, views: Sequence[View], holes: Sequence[int]) -> Part:
    """The part `source` of each picture (n, …), as it is seen: what it was before it was edited; or it with one of its holes."""
    rows = [examples.source(*view, hole) for view, hole in zip(views, holes, strict=True)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


Raw = Callable[[EncodedPictures, Sequence[View]], Sequence[Any]]
RAW: Mapping[str, Raw] = {"class": labels, "image": references, "control": controls}
"""By the part."""
