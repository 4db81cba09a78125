"""The proof after export: a file is only called an adapter once a fresh diffusers pipeline has taken it and agrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from adapt.adapter import Adapter
from adapt.backbones import Backbone
from adapt.data.plan import normal
from adapt.errors import AdapterError

TOLERANCE = 1e-3
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Proof:
    """Attributes:
    layers: adapter layers that the library took; all of them.
    difference: largest difference between our prediction and its own, over three times; in units of the prediction.
    effect: largest difference that the adapter makes to the base's prediction.
    reader: the library that took them: diffusers, or peft for what diffusers cannot.
    """

    layers: int
    difference: float
    effect: float
    reader: str = "diffusers"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def prove(adapter: Adapter, backbone: Backbone, prompt: str = "") -> Proof:
    """Loads the adapter with diffusers' own loader (LoHa, LoKr: peft's), and compares predictions with ours.

    Raises:
        AdapterError: it did not take every layer, or predicts something else; the file is left for inspection.
    """
    prompt = " ".join([*adapter.words, prompt])
    pipeline = adapter.to_diffusers(backbone)
    other = type(backbone)(pipeline, backbone.reference)
    other.max_tokens = backbone.max_tokens
    theirs = predictions(other, prompt)
    plain = predictions(backbone, prompt)
    with adapter.apply(backbone):
        ours = predictions(backbone, prompt)
    difference, effect = _largest(ours, theirs), _largest(ours, plain)
    if not difference <= TOLERANCE * max(1.0, effect):
        raise AdapterError(
            f"{adapter.loader} draws something else with the exported adapter",
            given=f"difference {difference:.2g}, effect of the adapter {effect:.2g}",
            allowed=TOLERANCE,
        )
    return Proof(len(adapter.weights), difference, effect, adapter.loader)


@torch.no_grad()
def predictions(backbone: Backbone, prompt: str) -> list[Tensor]:
    """Predictions at fixed noise and three times, each (1, C, *dims)."""
    objective, condition = backbone.objective(), backbone.condition([prompt])
    shape = backbone.own_latents
    x_t = normal(0, "proof", 0, 0, (1, *shape)).to(backbone.device, backbone.dtype)
    times = (objective.times(torch.tensor([q])).to(backbone.device) for q in QUANTILES)
    return [backbone.predict(x_t, t, condition) for t in times]


def _largest(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))
