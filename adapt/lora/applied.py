"""An adapter for drawing: added to the weights, and off again without a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from adapt.errors import AdapterError
from adapt.formats import Layer
from adapt.lora.text_encoders import inner


class Applied:
    """An adapter added to a model's weights, with copies of the touched weights: `unload` restores them bit for bit.

    Works as a context manager.

    Args:
        modules: networks by component name.
        layers: by `<component>.<layer>`.
        scale: 1 as trained.
    """

    def __init__(self, modules: Mapping[str, nn.Module], layers: Mapping[str, Layer], scale: float) -> None:
        self.then: list[Callable[[], None]] = []
        """Called before the weights come off: what takes off the rest of an adapter."""
        self._kept: list[tuple[Tensor, Tensor]] = []
        weights = {
            name: weight_of(modules, name, layer) for name, layer in layers.items()
        }  # judged before one is touched
        try:
            for name, weight in weights.items():
                self._add(weight, layers[name], scale)
        except BaseException:  # out of memory, say: whole or not at all
            self.unload()
            raise

    @torch.no_grad()
    def _add(self, weight: Tensor, layer: Layer, scale: float) -> None:
        merged = layer.merged(weight, scale)
        self._kept.append((weight, weight.detach().clone()))
        weight.copy_(merged)

    @torch.no_grad()
    def unload(self) -> None:
        """Puts the old weights back. Adapters come off in the reverse order in which they went on."""
        while self.then:
            self.then.pop()()
        while self._kept:
            weight, old = self._kept.pop()
            weight.copy_(old)

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
