"""What a class changes in the denoiser's layers, for its rows alone: a small LoRA of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from conditioning.condition import Part

Changes = Mapping[str, Tensor]
"""`<number of the class>.<layer>.down` (r, in, *kernel) and `….up` (out, r) → tensor."""
PREFIX, PARTS = "own.", ("down", "up")
"""The first stands before their names, where they stand with others."""
NAME = re.compile(r"\d+\..+")


class Change(NamedTuple):
    """ΔW = up · down of one class in one layer (Hu et al. 2021, arXiv 2106.09685), the factor already in it."""

    number: int
    down: Tensor
    up: Tensor


class OwnLayers(nn.Module):
    """Low-rank changes of layers by class. Classes without any leave the layers as they are, to the bit.

    Args:
        changes: see `Changes`; none: no class has any.
        classes: how many classes there are.

    Raises:
        ValueError: a name or a class that there is not, half a pair, shapes that do not fit each other.
    """

    def __init__(self, changes: Changes, classes: int) -> None:
        super().__init__()
        self._names = sorted(changes)
        self._held = nn.ParameterList(nn.Parameter(changes[name].clone(), requires_grad=False) for name in self._names)
        for name in self._names:
            self._require(name, classes)

    def _require(self, name: str, classes: int) -> None:
        stem, _, part = name.rpartition(".")
        found = [self.tensors.get(f"{stem}.{each}") for each in PARTS]
        down, up = found
        fits = down is not None and up is not None and down.ndim > 1 and up.ndim == 2 and up.shape[1] == len(down)
        if part not in PARTS or not NAME.fullmatch(stem) or _number(name) >= classes or not fits:
            raise ValueError(f"{name} is no change that one of {classes} classes makes in a layer")

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """Every tensor by name."""
        return dict(zip(self._names, self._held, strict=True))

    def since(self, first: int) -> dict[str, nn.Parameter]:
        """Those of the classes from this number on."""
        return {name: x for name, x in self.tensors.items() if _number(name) >= first}

    def renumbered(self, numbers: Mapping[int, int]) -> dict[str, Tensor]:
        """Those of the classes that are named, old number → new."""
        return {
            f"{numbers[_number(name)]}.{name.partition('.')[2]}": x
            for name, x in self.tensors.items()
            if _number(name) in numbers
        }

    def by_layer(self) -> dict[str, list[Change]]:
        """Layer → what classes change in it, in the order of their numbers."""
        tensors, found = self.tensors, dict[str, list[Change]]()
        for stem in sorted({name.rpartition(".")[0] for name in tensors}, key=lambda stem: (_number(stem), stem)):
            change = Change(_number(stem), *(tensors[f"{stem}.{part}"] for part in PARTS))
            found.setdefault(stem.partition(".")[2], []).append(change)
        return found

    def told(self, weights: Tensor) -> Part:
        """Rows' shares of all classes (B, K) → what the denoiser is told of them: `own` (B, K); nothing where no class changes
        any layer."""
        if not self._names:
            return {}
        known = torch.zeros(weights.shape[1]).to(weights)
        known[[*{_number(name) for name in self._names}]] = 1
        return {"own": weights * known}


def _number(name: str) -> int:
    """Of the class."""
    return int(name.partition(".")[0])
