"""An adapter for drawing: added to the weights, and off again without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from adapt.errors import AdapterError
from adapt.formats import Layer
from adapt.lora.text_encoders import inner

STACK = "_adapt_stack"
"""Where a weight keeps what is on it: the state belongs to the model, not to this module."""


@dataclass
class Stack:
    """Adapters on one weight, lowest first.

    Attributes:
        base: the weight without any of them.
        layers: by handle; None for those that were merged for good.
    """

    base: Tensor
    layers: list[tuple[Applied | None, Layer, float]] = field(default_factory=list)


class Applied:
    """An adapter added to a model's weights, with a copy of each touched weight: `unload` restores them bit for bit.

    Several may be applied at once and come off in any order: what is left is then, bit for bit, what it would be without the one
    that came off. Works as a context manager.

    Args:
        modules: networks by component name.
        layers: by `<component>.<layer>`.
        scale: 1 as trained.

    Raises:
        AdapterError: made for another base, a scale that is not finite, or weights that would not be finite any more; no weight
            is touched then.
    """

    def __init__(self, modules: Mapping[str, nn.Module], layers: Mapping[str, Layer], scale: float) -> None:
        self.then: list[Callable[[], object]] = []
        """Called before the weights come off: what takes off the rest of an adapter."""
        self._touched: list[Tensor] = []
        self._weights: Mapping[str, Tensor] = {}
        if not isfinite(scale):
            raise AdapterError("the adapter's scale is not finite", given=scale, allowed="1 as trained, 0 nothing")
        weights = {
            name: weight_of(modules, name, layer) for name, layer in layers.items()
        }  # judged before one is touched
        self._weights = weights
        try:
            for name, weight in weights.items():
                self._add(name, weight, layers[name], scale)
        except BaseException:  # out of memory, say: whole or not at all
            self.unload()
            raise

    @torch.no_grad()
    def _add(self, name: str, weight: Tensor, layer: Layer, scale: float) -> None:
        stack: Stack | None = getattr(weight, STACK, None)
        if stack is None:
            stack = Stack(weight.detach().clone())
            setattr(weight, STACK, stack)
        stack.layers.append((self, layer, scale))
        self._touched.append(weight)
        layer.merge_into(weight, scale)
        if weight.dtype == torch.float16 and not bool(weight.isfinite().all()):  # it ends at 65504
            raise AdapterError(
                "the base in float16 does not hold what the adapter makes of it",
                given=f"{name} at scale {scale:g}",
                next="a smaller scale, or the base in bfloat16 or float32",
            )

    @torch.no_grad()
    def become(self, layers: Mapping[str, Layer]) -> None:
        """Puts these in the place of its own layers of the same names, at its scale."""
        for name, layer in layers.items():
            weight = self._weights[name]
            stack: Stack = getattr(weight, STACK)
            stack.layers = [(h, layer if h is self else other, scale) for h, other, scale in stack.layers]
            _pile(weight, stack)

    @torch.no_grad()
    def unload(self) -> None:
        """Takes it off again, whatever is applied beside it."""
        while self.then:
            self.then.pop()()
        while self._touched:
            _take_off(self._touched.pop(), self)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The weights without any adapter, inside the `with`; afterwards they are, bit for bit, what they were."""
        kept = [weight.detach().clone() for weight in self._touched]
        with torch.no_grad():
            for weight in self._touched:
                weight.copy_(getattr(weight, STACK).base)
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, before in zip(self._touched, kept, strict=True):
                    weight.copy_(before)

    def keep(self) -> None:
        """Leaves it in the weights for good: `unload` then does nothing."""
        while self._touched:
            weight = self._touched.pop()
            stack: Stack = getattr(weight, STACK)
            stack.layers = [(None if handle is self else handle, *rest) for handle, *rest in stack.layers]  # type: ignore[misc]
            _forget(weight, stack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()


def _take_off(weight: Tensor, handle: Applied) -> None:
    """One adapter off one weight: the base again, and the others on it in their order."""
    stack: Stack = getattr(weight, STACK)
    stack.layers = [entry for entry in stack.layers if entry[0] is not handle]
    _pile(weight, stack)
    _forget(weight, stack)


def _pile(weight: Tensor, stack: Stack) -> None:
    """The base again, and what is on it in its order."""
    weight.copy_(stack.base)
    for _, layer, scale in stack.layers:
        layer.merge_into(weight, scale)


def _forget(weight: Tensor, stack: Stack) -> None:
    """Drops the copy when nothing that may come off is left."""
    if not any(handle for handle, _, _ in stack.layers):
        delattr(weight, STACK)


def weight_of(modules: Mapping[str, nn.Module], name: str, layer: Layer) -> Tensor:
    """The weight that a layer belongs to.

    Args:
        modules: networks by component name.
        name: `<component>.<layer>`.

    Raises:
        AdapterError: there is none, or one of another shape.
    """
    component, _, inside = name.partition(".")
    try:
        weight = inner(modules[component]).get_submodule(inside).get_parameter("weight")
    except (AttributeError, KeyError) as error:
        raise AdapterError("the adapter was made for another base: it has no such layer", given=name) from error
    if not layer.fits(weight.shape):
        raise AdapterError(
            f"the adapter was made for another base: {name} has shape {tuple(weight.shape)}",
            given=f"a {layer.kind} of {layer.size[0]} × {layer.size[1]}",
        )
    return weight


def has_layer(modules: Mapping[str, nn.Module], name: str) -> bool:
    """Whether there is a weight of this name, `<component>.<layer>`, of whatever shape."""
    component, _, inside = name.partition(".")
    try:
        inner(modules[component]).get_submodule(inside).get_parameter("weight")
    except (AttributeError, KeyError):
        return False
    return True
