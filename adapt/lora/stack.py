"""What lies on one weight: a copy of the base's numbers, and the adapters on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adapt.errors import AdapterError
from adapt.formats import Layer

STACK = "_adapt_stack"
"""Where a weight keeps what is on it: the state belongs to the model, not to this module."""


@dataclass
class Stack:
    """Adapters on one weight, lowest first. Each does what it does to the base, so that their order means nothing: a kind that
    turns the weight (DoRA) turns the base's, not what other adapters have made of it.

    Attributes:
        base: the weight without any of them.
        layers: by handle; None for those that were merged for good.
    """

    base: Tensor
    layers: list[tuple[Any, Layer, float]] = field(default_factory=list)

    def lay(self, weight: Tensor) -> None:
        """All of them anew."""
        if not self.layers:
            weight.copy_(self.base)
        for number in range(len(self.layers)):
            self._lay_one(weight, number, self.base if number == 0 else weight)

    def lay_last(self, weight: Tensor) -> None:
        """The highest, on a weight that has the others: bit for bit what `lay` makes of all."""
        self._lay_one(weight, len(self.layers) - 1, weight)

    def _lay_one(self, weight: Tensor, number: int, below: Tensor) -> None:
        """One on what is `below` it: the base, or the weight with the others."""
        _, layer, scale = self.layers[number]
        if layer.adds or number == 0:
            layer.merge_into(weight, scale, below)
        else:
            turned = layer.merged(self.base, scale)
            weight.copy_(below.to(turned) + (turned - self.base.to(turned)))


@torch.no_grad()
def put_on(weight: Tensor, handle: object, name: str, layer: Layer, scale: float) -> None:
    """One adapter's layer on a weight; if the adapter is on it already, in its own place instead of what it was.

    Raises:
        AdapterError: the weight, in half precision, does not hold it; it is on the stack all the same.
    """
    stack: Stack | None = getattr(weight, STACK, None)
    if stack is None:
        stack = Stack(weight.detach().clone())
        setattr(weight, STACK, stack)
    place = next((n for n, (other, *_) in enumerate(stack.layers) if other is handle), None)
    if place is None:
        stack.layers.append((handle, layer, scale))
        stack.lay_last(weight)
    else:
        stack.layers[place] = (handle, layer, scale)
        stack.lay(weight)
    if weight.dtype == torch.float16 and not bool(weight.isfinite().all()):  # it ends at 65504
        raise AdapterError(
            "the base in float16 does not hold what the adapter makes of it",
            given=f"{name} at scale {scale:g}",
            next="a smaller scale, or the base in bfloat16 or float32",
        )


@torch.no_grad()
def take_off(weight: Tensor, handle: object) -> None:
    """One adapter off one weight: the base again, and the others on it in their order."""
    stack: Stack | None = getattr(weight, STACK, None)
    if stack is None:  # no memory for the copy, say: it never was on
        return
    stack.layers = [entry for entry in stack.layers if entry[0] is not handle]
    stack.lay(weight)
    _forget(weight, stack)


def leave_on(weight: Tensor, handle: object) -> None:
    """One adapter in one weight for good."""
    stack: Stack = getattr(weight, STACK)
    stack.layers = [(None if other is handle else other, *rest) for other, *rest in stack.layers]  # type: ignore[misc]
    _forget(weight, stack)


def _forget(weight: Tensor, stack: Stack) -> None:
    """Drops the copy when nothing that may come off is left."""
    if not any(handle for handle, _, _ in stack.layers):
        delattr(weight, STACK)
