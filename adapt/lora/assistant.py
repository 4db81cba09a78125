"""An assistant: a frozen LoRA beside the base while it is taught, of which nothing is saved or drawn with.

Distilled bases draw in few steps because their predictions jump to the end; taught as others are, they unlearn that. An assistant
undoes the distillation for the time of training: what is learned on top of it goes onto the distilled base afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import AdapterError
from adapt.formats import Layer, Pair

CONVOLUTIONS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}


class Branch(nn.Module):
    """s · B A x beside one layer of the base, which may be held in few bits or elsewhere.

    Args:
        pair: A, B and s.
        layer: the base's.
    """

    down: Tensor
    up: Tensor

    def __init__(self, pair: Pair, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("down", pair.down.to(device, dtype))
        self.register_buffer("up", (pair.up.float() * pair.scale).to(device, dtype))
        self._geometry = _geometry(layer)
        self._function = CONVOLUTIONS.get(type(layer), F.linear)

    def forward(self, x: Tensor) -> Tensor:
        inner = self._function(x, self.down.to(x.dtype), None, *self._geometry)
        return self._function(inner, self.up.to(inner.dtype))


def _geometry(layer: Any) -> tuple[Any, ...]:
    return (layer.stride, layer.padding, layer.dilation) if type(layer) in CONVOLUTIONS else ()


class Assistant:
    """A LoRA at scale 1 beside some layers; the base's weights are not touched.

    Args:
        modules: networks by component name.
        layers: by `<component>.<layer>`.
        dtype: what A and B are held in.

    Raises:
        AdapterError: another kind than LoRA, or made for another base; nothing is put on then.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], layers: Mapping[str, Layer], dtype: torch.dtype, device: torch.device
    ) -> None:
        places = {name: place_of(modules, name, layer) for name, layer in layers.items()}
        self.awake = True
        self.branches = nn.ModuleList(
            Branch(pair, layer, dtype, device) for layer, pair in places.values()
        )  # moved and counted as one network
        self._hooks = [
            layer.register_forward_hook(self._beside(branch))
            for (layer, _), branch in zip(places.values(), self.branches, strict=True)
        ]

    def _beside(self, branch: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor:
            return found + branch(given[0]).to(found.dtype) if self.awake else found

        return hook

    @contextmanager
    def off(self) -> Iterator[None]:
        """The distilled base, inside the `with`: what will be drawn with."""
        before, self.awake = self.awake, False
        try:
            yield
        finally:
            self.awake = before

    def around(self, preview: Callable[[int], Sequence[str]]) -> Callable[[int], Sequence[str]]:
        """The same preview, without the assistant."""

        def drawn(step: int) -> Sequence[str]:
            with self.off():
                return preview(step)

        return drawn

    def remove(self) -> None:
        """Takes it off for good."""
        while self._hooks:
            self._hooks.pop().remove()


def place_of(modules: Mapping[str, nn.Module], name: str, layer: Layer) -> tuple[nn.Module, Pair]:
    """The base's layer that one of the assistant's goes beside.

    Raises:
        AdapterError: there is none, or of another size; no LoRA.
    """
    if not isinstance(layer, Pair) or layer.kind != "lora":
        raise AdapterError(
            "an assistant is a LoRA", given=f"{name}, {layer.kind}", next="adapt export --nearest RANK makes one of it"
        )
    component, _, inside = name.partition(".")
    try:
        found: Any = modules[component].get_submodule(inside)
    except (KeyError, AttributeError) as error:
        raise AdapterError("the assistant was made for another base: it has no such layer", given=name) from error
    if isinstance(found, nn.Linear):
        fits = layer.shape == (found.out_features, found.in_features)
    else:
        fits = type(found) in CONVOLUTIONS and found.groups == 1 and layer.fits(found.weight.shape)
    if not fits:
        raise AdapterError(
            "the assistant was made for another base: a layer has another size",
            given=f"{name}, {layer.size[0]} × {layer.size[1]}",
        )
    return found, layer
