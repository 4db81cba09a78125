"""Where two adapters differ in what they do to the weights, layer by layer, whatever kinds and dialects they came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from adapt.formats.encoder_names import in_files
from adapt.formats.layer import Layer
from adapt.formats.lora_weights import LoraWeights

if TYPE_CHECKING:
    from torch import Tensor


ANY = 7
"""Rows or columns of the fixed weight where a kind fits any number of them."""


@dataclass(frozen=True)
class Difference:
    """Attributes:
    layer: `<component>.<layer>`.
    what: `only in the first`, `only in the second`, `sizes` or `values`.
    relative: ‖ΔW - ΔW'‖ / ‖ΔW‖, where both are there and fit; of DoRA, of what they make of a fixed weight.
    """

    layer: str
    what: str
    relative: float | None = None

    @property
    def line(self) -> str:
        return f"{self.layer}: {self.what}" + (f", by {self.relative:.2g}" if self.relative else "")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def differences(first: LoraWeights, second: LoraWeights, tolerance: float = 0.0) -> list[Difference]:
    """All layers in which they differ by more than the tolerance, sorted by name; equal numbers are equal without arithmetic."""
    ours, theirs = _layers(first), _layers(second)
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs or name not in ours:
            found.append(Difference(name, f"only in the {'first' if name in ours else 'second'}"))
        elif difference := _between(name, ours[name], theirs[name], tolerance):
            found.append(difference)
    return found


def _layers(weights: LoraWeights) -> Mapping[str, Layer]:
    return {f"{c}.{in_files(c, name)}": each for c, layers in weights.modules.items() for name, each in layers.items()}


def _between(name: str, ours: Layer, theirs: Layer, tolerance: float) -> Difference | None:
    if ours.equals(theirs):
        return None
    if ours.size != theirs.size:
        return Difference(name, "sizes")
    relative = apart(_effect(ours), _effect(theirs))
    return Difference(name, "values", relative) if relative > tolerance else None


def _effect(layer: Layer) -> Tensor:
    """ΔW, or what is made of a weight of whole numbers, where the kind looks at the weight."""
    if layer.adds:
        return layer.delta().flatten(1)
    import torch

    shape = [side or ANY for side in getattr(layer, "shape", layer.size)]
    count = torch.Size(shape).numel()
    weight = (torch.arange(count, dtype=torch.float32) * 37 % 101 / 50 - 1).reshape(shape)
    return (layer.merged(weight, 1.0) - weight).flatten(1)


def apart(ours: Tensor, theirs: Tensor) -> float:
    """‖ours - theirs‖ / ‖ours‖; of a zero, infinity unless both are."""
    size, distance = float(ours.norm()), float((ours - theirs).norm())
    return distance / size if size else (float("inf") if distance else 0.0)
