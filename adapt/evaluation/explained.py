"""What an explanation of one drawing found: where words are looked at, what adapters changed, what each piece contributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL.Image import Image

from adapt.lora.change import LayerChange
from adapt.sampling.watched import Change

if TYPE_CHECKING:
    from adapt.sampling.heat import Looked

Kind = Literal["part", "word", "further prompt", "adapter", "negative prompt", "seed"]
"""What can be left out; another seed is what nothing left out is measured by."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """The same drawing, from the same noise, without one thing.

    Attributes:
        kind: one of those above.
        name: of the part, the word or the adapter.
        picture: what is drawn then.
        distance: from the full picture; see `distance`.
    """

    kind: Kind
    name: str
    picture: Image
    distance: float


@dataclass(frozen=True)
class AdapterChange:
    """How much one adapter changes the base's weights.

    Attributes:
        name: the adapter's.
        digest: of its weights.
        scale: that it is drawn with.
        layers: one a weight, in the network's order.
    """

    name: str
    digest: str
    scale: float
    layers: tuple[LayerChange, ...]

    def as_dict(self) -> dict[str, Any]:
        layers = [{"name": one.name, "norm": one.norm, "relative": one.relative} for one in self.layers]
        return {"name": self.name, "digest": self.digest, "scale": self.scale, "layers": layers}


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """Attributes:
    prompt: what is drawn.
    reference: the base's name.
    settings: seed, steps, guidance scale …
    picture: the full drawing, as `generate` draws it.
    looked: words and how much they are looked at; those that were asked for, else all.
    elsewhere: shares of looks that go to no word.
    no_maps: why there are no maps; None: there are.
    adapters: what each changed in the weights.
    times: what all together change in the prediction, one a step.
    left_out: one a thing that was left out.
    another_seed: the same with the next seed: how far apart two pictures of one prompt are.
    passed_over: words that were not left out, because there are so many.
    """

    prompt: str
    reference: str
    settings: Mapping[str, Any]
    picture: Image
    looked: tuple[Looked, ...] = ()
    elsewhere: Mapping[str, float] = field(default_factory=dict)
    no_maps: str | None = None
    adapters: tuple[AdapterChange, ...] = ()
    times: tuple[Change, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    another_seed: LeftOut | None = None
    passed_over: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What is drawn, class and prompt."""
        return ": ".join(filter(None, (self.settings.get("class"), self.prompt))) or "a picture without words"

    def as_dict(self) -> dict[str, Any]:
        """All but pictures and maps."""
        return {
            "prompt": self.prompt,
            "base": self.reference,
            "settings": dict(self.settings),
            "words": [_word(one) for one in self.looked],
            "elsewhere": dict(self.elsewhere),
            "no_maps": self.no_maps,
            "adapters": [one.as_dict() for one in self.adapters],
            "times": [one._asdict() for one in self.times],
            "left_out": [_left(one) for one in self.left_out],
            "another_seed": None if self.another_seed is None else self.another_seed.distance,
            "passed_over": list(self.passed_over),
        }


def _word(one: Looked) -> dict[str, Any]:
    told = {"word": one.word.text, "start": one.word.start, "end": one.word.end, "tokens": one.tokens}
    return {**told, "share": one.share, "focus": one.focus, "place": list(one.place)}


def _left(one: LeftOut) -> dict[str, Any]:
    return {"kind": one.kind, "name": one.name, "distance": one.distance}


def distance(picture: Image, other: Image) -> float:
    """Root mean square difference of two RGB pictures of one size, over pixels and channels: 0 the same, 1 black and white."""
    a, b = (np.asarray(each.convert("RGB"), np.float64) / 255 for each in (picture, other))
    return float(np.sqrt(np.mean((a - b) ** 2)))
