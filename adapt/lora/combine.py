"""Several adapters as one: their exact sum, or what peft's merging rules leave of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from adapt.data.plan import even
from adapt.errors import AdapterError, SettingsError
from adapt.formats import Layer, LoraWeights, Pair
from adapt.formats.exactly import as_lora
from adapt.formats.factorise import Keep, nearest, nearest_to
from adapt.lora.nearest import Modules, difference, weight_for

Layers = Sequence[tuple[Layer | None, float]]
Rule = Callable[[list[Tensor], Tensor, float], Tensor]
METHODS = ("linear", "svd", "ties", "dare", "magnitude-prune")
"""The sum, of all ranks together; the sum at a lower rank; Yadav et al. 2023 (arXiv 2306.01708); Yu et al. 2023
(arXiv 2311.03099); the largest entries only."""


@torch.no_grad()
def combined(
    adapters: Sequence[tuple[LoraWeights, float]],
    method: str,
    keep: Keep,
    *,
    density: float = 0.5,
    seed: int = 0,
    modules: Modules | None = None,
) -> tuple[LoraWeights, float]:
    """Σ weight · ΔW by one of `METHODS`, as LoRA, and the share that its rank leaves out: ‖rest‖ / ‖merged ΔW‖.

    Args:
        keep: how many singular values of each layer; for `linear` all are kept.
        density: share of the entries of each ΔW that ties, dare and magnitude-prune keep, 0 < density ≤ 1.
        seed: of dare's random choice; a function of seed, layer and adapter alone.
        modules: networks of the base by component name; not needed for LoRA. The ΔW of a kind that turns weights (DoRA, OFT) is
            what it does to the base's at its scale, each adapter by itself.

    Raises:
        SettingsError: an unknown method or a density out of range.
        AdapterError: another kind than LoRA without a base, or by `linear` where no LoRA is exact; layers of one name and
            different sizes.
    """
    if method not in METHODS:
        raise SettingsError("unknown method", given=method, allowed=", ".join(METHODS))
    if not 0 < density <= 1:
        raise SettingsError("density is out of range", given=density, allowed="above 0, up to 1")
    found: dict[str, dict[str, Layer]] = {}
    lost = whole = 0.0
    for component, name in _names(adapters):
        full = f"{component}.{name}"
        layers = [(w.modules.get(component, {}).get(name), scale) for w, scale in adapters]
        merged, left_out = _merged(layers, method, keep, density, seed, full, modules)
        found.setdefault(component, {})[name] = merged
        lost, whole = lost + float(left_out), whole + float(merged.norm()) ** 2 + float(left_out)
    return LoraWeights(found), math.sqrt(lost / whole) if whole else 0.0


def _merged(
    layers: Layers, method: str, keep: Keep, density: float, seed: int, name: str, modules: Modules | None
) -> tuple[Pair, float | Tensor]:
    there = [(layer, scale) for layer, scale in layers if layer is not None]
    weight = _weight_of([layer for layer, _ in there], modules, name)
    if method == "linear":
        return _stacked(there, weight), 0.0
    if method == "svd" and all(layer.adds for layer, _ in there):
        return nearest_to(_stacked(there, weight), keep)
    deltas, scales = _deltas(layers, weight)
    return nearest(_rule(method, seed, name)(deltas, scales, density), keep)


def _names(adapters: Sequence[tuple[LoraWeights, float]]) -> list[tuple[str, str]]:
    return sorted({(c, name) for weights, _ in adapters for c, layers in weights.modules.items() for name in layers})


def _weight_of(layers: Sequence[Layer], modules: Modules | None, name: str) -> Tensor:
    """The weight that they are for; LoRA alone says its shape, and needs no more than that."""
    if others := [layer for layer in layers if layer.kind != "lora"]:
        weights = [weight_for(modules, name, layer) for layer in (*others, *layers)]  # all of them judged
        return weights[0]
    shapes = {layer.shape for layer in layers if isinstance(layer, Pair)}
    if len(shapes) > 1:
        told = " and ".join(map(str, sorted(shapes)))
        raise AdapterError(f"the adapters were made for different bases: {name} has several sizes", given=told)
    return torch.empty(shapes.pop(), device="meta")


def _stacked(layers: Sequence[tuple[Layer, float]], weight: Tensor) -> Pair:
    """Σ s B A, exactly: all A above each other, all s B beside each other."""
    pairs = [(as_lora(layer, weight), scale) for layer, scale in layers]
    downs = torch.cat([pair.down.float() for pair, _ in pairs])
    ups = torch.cat([pair.up.float() * (pair.scale * scale) for pair, scale in pairs], 1)
    return Pair(downs, ups, float(len(downs)))


def _deltas(layers: Layers, weight: Tensor) -> tuple[list[Tensor], Tensor]:
    """ΔW of each, and its weight: zeros for an adapter that does nothing here; of a kind that turns the weight, what it does at
    its scale, over that scale."""
    found = [
        (torch.zeros(weight.shape), scale) if layer is None else _delta(layer, scale, weight) for layer, scale in layers
    ]
    return [delta for delta, _ in found], torch.tensor([scale for _, scale in found])


def _delta(layer: Layer, scale: float, weight: Tensor) -> tuple[Tensor, float]:
    if layer.adds:
        return layer.delta(weight.shape), scale
    effect = difference(layer, weight, scale)  # at scale 0 a DoRA is not quite the base
    return (effect / scale, scale) if scale else (effect, 1.0)


def _rule(method: str, seed: int, name: str) -> Rule:
    from peft.utils import merge_utils

    rules: Mapping[str, Any] = {
        "ties": merge_utils.ties,
        "magnitude-prune": merge_utils.magnitude_prune,
        "svd": lambda deltas, weights, density: merge_utils.task_arithmetic(deltas, weights),
    }
    if method in rules:
        return rules[method]  # type: ignore[no-any-return]

    def dare(deltas: list[Tensor], weights: Tensor, density: float) -> Tensor:
        """peft's own draws from the global random state."""
        kept = [
            delta * (even(seed, f"dare-{name}", 0, number, delta.shape) < density) / density
            for number, delta in enumerate(deltas)
        ]
        summed: Tensor = merge_utils.task_arithmetic(kept, weights)
        return summed

    return dare
