"""What a denoiser is told: parts that can be dropped, and facts that never are.

A *part* is one piece of the condition (text, class, image, control …) as named tensors, batch first. Each part can be
replaced by its null, row by row: that is what classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598) is trained
with. *Facts* are micro-conditions (sizes, frames per second …) which stay whatever is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

Part = Mapping[str, Tensor]
"""Named tensors of one part, each (B, …)."""


@dataclass(frozen=True)
class Condition:
    """One condition a row.

    Attributes:
        parts: `{"text": {"tokens": (B, L, D), "mask": (B, L)}, …}`; every tensor has the same B.
        facts: `{"time_ids": (B, 6), …}`.
    """

    parts: Mapping[str, Part] = field(default_factory=dict)
    facts: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {len(tensor) for tensor in self._tensors()}
        if len(sizes) > 1:
            raise ValueError(f"all tensors of a condition have one row a sample: found {sorted(sizes)} rows")

    def _tensors(self) -> list[Tensor]:
        return [tensor for part in self.parts.values() for tensor in part.values()] + list(self.facts.values())

    def __len__(self) -> int:
        return next((len(tensor) for tensor in self._tensors()), 0)

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with `function` applied to every tensor."""
        parts = {name: {key: function(tensor) for key, tensor in part.items()} for name, part in self.parts.items()}
        return Condition(parts, {name: function(tensor) for name, tensor in self.facts.items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Condition:
        """On another device; floating tensors also in `dtype`."""
        return self.map(lambda x: x.to(device, dtype if dtype and x.is_floating_point() else x.dtype))

    def rows(self, index: Tensor | slice) -> Condition:
        """The given rows, in the given order."""
        return self.map(lambda x: x[index])

    def expand(self, n: int) -> Condition:
        """A condition of one row, repeated to `n` rows."""
        return self.map(lambda x: x.expand(n, *x.shape[1:]))

    def drop(self, dropped: Mapping[str, Tensor], null: Condition) -> Condition:
        """Row by row, `null`'s part where `dropped[part]` (B,) is true. Facts stay."""
        parts = {
            name: _where(dropped[name], null.parts[name], part) if name in dropped else part
            for name, part in self.parts.items()
        }
        return Condition(parts, self.facts)

    def replaced(self, parts: Mapping[str, Part]) -> Condition:
        """With these parts in place of its own, or beside them. Facts stay."""
        return Condition({**self.parts, **parts}, self.facts)

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """The rows of all conditions, one after the other; shorter token rows are padded (their mask with zeros).

        Raises:
            ValueError: the conditions differ in their parts or facts, or tokens without a mask in their length.
        """
        first = conditions[0]
        if any((set(c.parts), set(c.facts)) != (set(first.parts), set(first.facts)) for c in conditions):
            raise ValueError("only conditions with the same parts and the same facts can be joined")
        parts = {name: _cat_parts([c.parts[name] for c in conditions]) for name in first.parts}
        return Condition(parts, {name: torch.cat([c.facts[name] for c in conditions]) for name in first.facts})


def _padded(part: Part, length: int) -> dict[str, Tensor]:
    """Tensors with a token axis (B, L, …) padded with zeros on the right; a pooled (B, D) stays."""
    if "tokens" not in part or part["tokens"].shape[1] == length:
        return dict(part)
    if "mask" not in part:
        raise ValueError(f"tokens of other lengths need a mask: found {part['tokens'].shape[1]} and {length}")
    missing = length - part["tokens"].shape[1]
    padding = {"tokens": (0, 0, 0, missing), "mask": (0, missing)}
    return {key: F.pad(x, padding[key]) if key in padding else x for key, x in part.items()}


def _aligned(parts: Sequence[Part]) -> list[dict[str, Tensor]]:
    length = max((part["tokens"].shape[1] for part in parts if "tokens" in part), default=0)
    return [_padded(part, length) for part in parts]


def _cat_parts(parts: Sequence[Part]) -> dict[str, Tensor]:
    aligned = _aligned(parts)
    return {key: torch.cat([part[key] for part in aligned]) for key in aligned[0]}


def _where(mask: Tensor, yes: Part, no: Part) -> dict[str, Tensor]:
    a, b = _aligned([yes, no])
    return {key: torch.where(mask.view(-1, *[1] * (b[key].ndim - 1)), a[key].to(b[key]), b[key]) for key in b}
