"""What the texts of a batch say: encoded when it is drawn, or beforehand, so that no text encoder is needed then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adapt.backbones import Backbone
from adapt.backbones.told import nothing, told
from adapt.sampling import parts
from adapt.sampling.request import Drawing
from adapt.types import Sizes
from conditioning import Condition


@dataclass(frozen=True)
class Spoken:
    """Of drawings of one kind, one row each.

    Attributes:
        condition: what is drawn, with the facts of the drawings.
        negative: what is kept away from.
        further: what pulls besides the prompt, in the order of `Drawing.compose`.
    """

    condition: Condition
    negative: Condition
    further: tuple[Condition, ...] = ()

    def to(self, device: torch.device | str) -> Spoken:
        """Where it waits."""
        further = tuple(each.to(device) for each in self.further)
        return Spoken(self.condition.to(device), self.negative.to(device), further)


def spoken(backbone: Backbone, drawings: Sequence[Drawing]) -> Spoken:
    """Encodes all texts of drawings of one kind."""
    first, sizes = drawings[0], [_whole(backbone, drawings[0])] * len(drawings)
    condition = parts.spoken(backbone, drawings, [d.prompt for d in drawings], sizes, first.embedded_guidance)
    further = [[drawing.compose[number][0] for drawing in drawings] for number in range(len(first.compose))]
    return Spoken(
        condition,
        _negative(backbone, drawings, condition),
        tuple(parts.spoken(backbone, drawings, texts) for texts in further),
    )


def _whole(backbone: Backbone, drawing: Drawing) -> Sizes:
    """What is drawn, for the facts: all of it is there, of a sound as many seconds as are asked for."""
    if drawing.seconds is None:
        return Sizes.whole(drawing.height, drawing.width, drawing.fps)
    return Sizes((1, round(drawing.seconds * backbone.medium.rate)), (0, 0), (1, drawing.width))


def _negative(backbone: Backbone, drawings: Sequence[Drawing], condition: Condition) -> Condition:
    """The family's null for "", which is not the encoding of "" everywhere."""
    reading, texts = drawings[0].reading, [d.negative_prompt for d in drawings]
    if backbone.reads_source:
        return parts.spoken(backbone, drawings, texts)
    if not any(texts):
        return nothing(backbone, len(texts), reading, condition)
    beside = [condition.rows(slice(i, i + 1)) for i in range(len(texts))]
    rows = [
        told(backbone, [text], reading) if text else nothing(backbone, 1, reading, own)
        for text, own in zip(texts, beside, strict=True)
    ]
    return Condition.cat(rows)
