"""An adapter for drawing: added to the weights, and off again without a trace; beside layers whose weights are in few bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from adapt.backbones.packed import is_packed, shape_of, unpacked
from adapt.errors import AdapterError
from adapt.formats import Layer
from adapt.lora.side import Side, side_of
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
        self._touched: dict[str, Tensor | Side] = {}
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
        places = {name: self._place_of(name, layer) for name, layer in layers.items()}  # judged before one is touched
        try:
            for name in [name for name in self._touched if name not in places]:
                self._take_off(self._touched.pop(name))
            for name, place in places.items():
                self._touched[name] = place
                self._put_on(name, layers[name], scale)
            self._layers, self._scale = layers, scale
        except BaseException:  # out of memory, say: whole or not at all
            self.unload()
            raise

    def _place_of(self, name: str, layer: Layer) -> Tensor | Side:
        """The weight that a layer goes into, or what is beside a packed one; those that it is on already are known."""
        place = self._touched.get(name)
        fits = place is not None and layer.fits(place.shape)
        return place if place is not None and fits else place_of(self._modules, name, layer)

    def _put_on(self, name: str, layer: Layer, scale: float) -> None:
        place = self._touched[name]
        if isinstance(place, Side):
            place.put_on(self, layer, scale)
        else:
            put_on(place, self, name, layer, scale)

    def _take_off(self, place: Tensor | Side) -> None:
        if isinstance(place, Side):
            place.take_off(self)
        else:
            take_off(place, self)

    def become(self, layers: Mapping[str, Layer]) -> None:
        """Puts these in the place of its own layers of the same names, at its scale."""
        for name, layer in layers.items():
            self._put_on(name, layer, self._scale)
        self._layers = {**self._layers, **layers}

    def unload(self) -> None:
        """Takes it off again, whatever is applied beside it."""
        while self.then:
            self.then.pop()()
        while self._touched:
            self._take_off(self._touched.popitem()[1])

    @contextmanager
    def off(self) -> Iterator[None]:
        """The weights without any adapter, inside the `with`; afterwards they are, bit for bit, what they were."""
        weights = [place for place in self._touched.values() if not isinstance(place, Side)]
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
        """Leaves it in the weights for good: `unload` then does nothing.

        Raises:
            AdapterError: a weight in few bits; all is as it was.
        """
        if beside := next((name for name, place in self._touched.items() if isinstance(place, Side)), None):
            raise AdapterError("nothing can be merged into weights in few bits", given=beside)
        while self._touched:
            place = self._touched.popitem()[1]
            assert not isinstance(place, Side), "seen above"
            leave_on(place, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()


def place_of(modules: Mapping[str, nn.Module], name: str, layer: Layer) -> Tensor | Side:
    """Where an adapter's layer goes: into a weight, or beside a layer whose weight is in few bits.

    Raises:
        AdapterError: as `weight_of`; an adapter that needs the numbers of a packed weight.
    """
    module = module_of(modules, name, layer)
    return side_of(module, name, layer) if is_packed(module) else module.get_parameter("weight")


def weight_of(modules: Mapping[str, nn.Module], name: str, layer: Layer) -> Tensor:
    """The weight that a layer belongs to; of a packed layer the numbers that it stands for, a copy.

    Args:
        modules: networks by component name.
        name: `<component>.<layer>`.

    Raises:
        AdapterError: there is none, or one of another shape.
    """
    module = module_of(modules, name, layer)
    return unpacked(module) if is_packed(module) else module.get_parameter("weight")


def module_of(modules: Mapping[str, nn.Module], name: str, layer: Layer) -> nn.Module:
    """The module that a layer belongs to: see `weight_of`."""
    component, _, inside = name.partition(".")
    try:
        module = inner(modules[component]).get_submodule(inside)
        module.get_parameter("weight")
    except (AttributeError, KeyError) as error:
        raise AdapterError("the adapter was made for another base: it has no such layer", given=name) from error
    shape = shape_of(module)
    if not layer.fits(shape):
        raise AdapterError(
            f"the adapter was made for another base: {name} has shape {shape}",
            given=f"a {layer.kind} of {layer.size[0]} × {layer.size[1]}",
        )
    return module


def has_layer(modules: Mapping[str, nn.Module], name: str) -> bool:
    """Whether there is a weight of this name, `<component>.<layer>`, of whatever shape."""
    component, _, inside = name.partition(".")
    try:
        inner(modules[component]).get_submodule(inside).get_parameter("weight")
    except (AttributeError, KeyError):
        return False
    return True
