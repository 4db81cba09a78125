"""An adapter for drawing: added to the weights, and off again without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from adapt.errors import AdapterError
from adapt.formats import Layer
from adapt.lora.stack import STACK, leave_on, put_on, take_off
from adapt.lora.text_encoders import inner


class Applied:
    """An adapter added to a model's weights, with a copy of each touched weight: `unload` restores them bit for bit.

    Several may be applied at once and come off in any order: what is left is then, bit for bit, what it would be without the one
    that came off. Each does what it does to the base alone, so the order in which they came changes nothing but the last bits.
    Works as a context manager.

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
        self._modules, self._layers, self._scale = modules, layers, scale
        self._touched: dict[str, Tensor] = {}
        self.resting = False
        """Whether its weights are without it for a moment (`off`)."""
        self.change(layers, scale)

    def rescale(self, scale: float) -> None:
        """The same adapter at another scale, while it is on: between two steps, say. Bit for bit as if it had come at this scale.

        Raises:
            AdapterError: as for a new one; it is off then.
        """
        self.change(self._layers, scale)

    def change(self, layers: Mapping[str, Layer], scale: float) -> None:
        """Another adapter in place of this one, which keeps its place among others: faster than one off and another on, because
        the copies of the weights stay. Nothing of the old one is left.

        Raises:
            AdapterError: as for a new one. Seen before a weight is touched, the old one is still on; else it is off.
        """
        if not isfinite(scale):
            raise AdapterError("the adapter's scale is not finite", given=scale, allowed="1 as trained, 0 nothing")
        weights = {name: self._weight_of(name, layer) for name, layer in layers.items()}  # judged before one is touched
        try:
            for name in [name for name in self._touched if name not in weights]:
                take_off(self._touched.pop(name), self)
            for name, weight in weights.items():
                self._touched[name] = weight
                put_on(weight, self, name, layers[name], scale)
            self._layers, self._scale = layers, scale
        except BaseException:  # out of memory, say: whole or not at all
            self.unload()
            raise

    def _weight_of(self, name: str, layer: Layer) -> Tensor:
        """See `weight_of`; those that it is on already are known."""
        weight = self._touched.get(name)
        fits = weight is not None and layer.fits(weight.shape)
        return weight if weight is not None and fits else weight_of(self._modules, name, layer)

    def become(self, layers: Mapping[str, Layer]) -> None:
        """Puts these in the place of its own layers of the same names, at its scale."""
        for name, layer in layers.items():
            put_on(self._touched[name], self, name, layer, self._scale)
        self._layers = {**self._layers, **layers}

    def unload(self) -> None:
        """Takes it off again, whatever is applied beside it."""
        while self.then:
            self.then.pop()()
        while self._touched:
            take_off(self._touched.popitem()[1], self)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The weights without any adapter, inside the `with`; afterwards they are, bit for bit, what they were."""
        weights = list(self._touched.values())
        kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight in weights:
                weight.copy_(getattr(weight, STACK).base)
        self.resting = True
        try:
            yield
        finally:
            self.resting = False
            with torch.no_grad():
                for weight, before in zip(weights, kept, strict=True):
                    weight.copy_(before)

    def keep(self) -> None:
        """Leaves it in the weights for good: `unload` then does nothing."""
        while self._touched:
            leave_on(self._touched.popitem()[1], self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()


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
