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
from adapt.formats.factorise import Keep, nearest, nearest_to
from adapt.lora.resize import require_lora

Rule = Callable[[list[Tensor], Tensor, float], Tensor]
Pairs = Sequence[tuple[Pair | None, float]]
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
) -> tuple[LoraWeights, float]:
    """Σ weight · ΔW by one of `METHODS`, as LoRA, and the share that its rank leaves out: ‖rest‖ / ‖merged ΔW‖.

    Args:
        keep: how many singular values of each layer; for `linear` all are kept.
        density: share of the entries of each ΔW that ties, dare and magnitude-prune keep, 0 < density ≤ 1.
        seed: of dare's random choice; a function of seed, layer and adapter alone.

    Raises:
        SettingsError: an unknown method or a density out of range.
        AdapterError: another kind than LoRA; layers of one name and different sizes.
    """
    if method not in METHODS:
        raise SettingsError("unknown method", given=method, allowed=", ".join(METHODS))
    if not 0 < density <= 1:
        raise SettingsError("density is out of range", given=density, allowed="above 0, up to 1")
    found: dict[str, dict[str, Layer]] = {}
    lost = whole = 0.0
    for component, name in _names(adapters):
        layers = [(w.modules.get(component, {}).get(name), scale) for w, scale in adapters]
        pairs = [(None if layer is None else require_lora(layer), scale) for layer, scale in layers]
        _require_fit(f"{component}.{name}", [pair for pair, _ in pairs if pair is not None])
        merged, left_out = _merged(pairs, method, keep, density, seed, f"{component}.{name}")
        found.setdefault(component, {})[name] = merged
        lost, whole = lost + float(left_out), whole + float(merged.norm()) ** 2 + float(left_out)
    return LoraWeights(found), math.sqrt(lost / whole) if whole else 0.0


def _merged(pairs: Pairs, method: str, keep: Keep, density: float, seed: int, name: str) -> tuple[Pair, float | Tensor]:
    if method == "linear":
        return _stacked(pairs), 0.0
    if method == "svd":
        return nearest_to(_stacked(pairs), keep)
    weights = torch.tensor([scale for _, scale in pairs])
    return nearest(_rule(method, seed, name)(_deltas(pairs), weights, density), keep)


def _names(adapters: Sequence[tuple[LoraWeights, float]]) -> list[tuple[str, str]]:
    return sorted({(c, name) for weights, _ in adapters for c, layers in weights.modules.items() for name in layers})


def _require_fit(name: str, pairs: Sequence[Pair]) -> None:
    if len(shapes := {pair.shape for pair in pairs}) > 1:
        told = " and ".join(map(str, sorted(shapes)))
        raise AdapterError(f"the adapters were made for different bases: {name} has several sizes", given=told)


def _stacked(pairs: Pairs) -> Pair:
    """Σ s B A, exactly: all A above each other, all s B beside each other."""
    there = [(pair, scale) for pair, scale in pairs if pair is not None]
    downs = torch.cat([pair.down.float() for pair, _ in there])
    return Pair(
        downs, torch.cat([pair.up.float() * (pair.scale * scale) for pair, scale in there], 1), float(len(downs))
    )


def _deltas(pairs: Pairs) -> list[Tensor]:
    """ΔW of each; zeros for an adapter that does nothing here."""
    some = next(pair for pair, _ in pairs if pair is not None).delta()
    return [torch.zeros_like(some) if pair is None else pair.delta() for pair, _ in pairs]


def _rule(method: str, seed: int, name: str) -> Rule:
    from peft.utils import merge_utils

    rules: Mapping[str, Any] = {"ties": merge_utils.ties, "magnitude-prune": merge_utils.magnitude_prune}
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
