"""Weights and activations that wait in the machine's memory and come to the GPU when they are computed with.

A frozen layer's weight is fetched for its forward pass and again for its backward pass, and let go after each: the GPU holds a
few layers at a time, whatever the network's blocks look like, with and without gradient checkpointing. What autograd keeps of a
layer is then neither the weight nor its copy. Numbers stay the same to the bit: only where they lie is different.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import ceil
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv1d_input, conv2d_input, conv3d_input

from adapt.backbones import Backbone
from adapt.config import TrainSettings

SMALLEST = 2**20
"""Bytes from which a tensor is worth the way."""
CONVOLUTIONS: dict[type[nn.Module], Any] = {
    nn.Conv1d: (F.conv1d, conv1d_input),
    nn.Conv2d: (F.conv2d, conv2d_input),
    nn.Conv3d: (F.conv3d, conv3d_input),
}
"""A layer's class → its function, and that of the gradient of its input."""


# -------------------------------------------------------------------------------------------------------------- weights
class _Linear(torch.autograd.Function):
    """y = W x + b with W and b frozen and elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Linear) -> Tensor:
        ctx.layer, ctx.kind = layer, x.dtype
        weight = layer.weight.to(x.device, non_blocking=True)
        return F.linear(x, weight, _here(layer.bias, x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        weight = ctx.layer.weight.to(grad.device, non_blocking=True)
        return (grad @ weight.to(grad.dtype)).to(ctx.kind), None


class _Convolution(torch.autograd.Function):
    """The same of a convolution that pads with zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        function, _ = CONVOLUTIONS[type(layer)]
        ctx.layer, ctx.shape, ctx.kind = layer, x.shape, x.dtype
        y: Tensor = function(x, _here(layer.weight, x), _here(layer.bias, x), *_geometry(layer))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        layer = ctx.layer
        _, of_input = CONVOLUTIONS[type(layer)]
        weight = layer.weight.to(grad.device, non_blocking=True)
        return of_input(ctx.shape, weight.to(grad.dtype), grad, *_geometry(layer)).to(ctx.kind), None


def _geometry(layer: Any) -> tuple[Any, ...]:
    return layer.stride, layer.padding, layer.dilation, layer.groups


def _here(weight: Tensor | None, like: Tensor) -> Tensor | None:
    return None if weight is None else weight.to(like.device, non_blocking=True)


def _forward(layer: Any, x: Tensor) -> Tensor:
    function = _Linear if type(layer) is nn.Linear else _Convolution
    y: Tensor = function.apply(x, layer)  # type: ignore[no-untyped-call]
    return y


def movable(denoiser: nn.Module) -> list[nn.Module]:
    """Its frozen linear layers and convolutions, without those outside blocks (which are small, and say where the network is), in
    the order of the network."""
    first = next(denoiser.parameters())
    return [
        layer
        for name, layer in denoiser.named_modules()
        if "." in name and _plain(layer) and first not in set(layer.parameters())
    ]


def _plain(layer: Any) -> bool:
    known = type(layer) is nn.Linear or (type(layer) in CONVOLUTIONS and layer.padding_mode == "zeros")
    return known and not isinstance(getattr(layer, "padding", None), str)


def send_away(backbone: Backbone, share: float, device: torch.device) -> None:
    """Puts the base on `device`, but for a share of its denoiser's weights: they stay where they are, in memory that a GPU reads
    from at full speed.

    Args:
        share: 0 … 1 of the layers, spread evenly over the network.
    """
    layers = [layer for network in backbone.networks for layer in movable(network)]
    count = ceil(share * len(layers))
    chosen = [layers[k * len(layers) // count] for k in range(count)]
    away = {id(parameter) for layer in chosen for parameter in layer.parameters(recurse=False)}
    for module in backbone.modules.values():
        _move(module, away, device)
    for layer in chosen:
        layer.forward = MethodType(_forward, layer)


def _move(module: nn.Module, away: set[int], device: torch.device) -> None:
    for each in module.modules():
        for parameter in each.parameters(recurse=False):
            if id(parameter) not in away:
                parameter.data = parameter.data.to(device)
            elif device.type == "cuda":
                parameter.data = parameter.data.pin_memory()
        for name, buffer in each.named_buffers(recurse=False):
            setattr(each, name, buffer.to(device))


def bring_adapter(parameters: Iterable[nn.Parameter], device: torch.device) -> None:
    """An adapter's parameters are put where the weights of their layers are: they are trained on the device."""
    for parameter in parameters:
        parameter.data = parameter.data.to(device)


# ---------------------------------------------------------------------------------------------------------- activations
class Activations:
    """What the backward pass keeps of a forward pass waits in the machine's memory: large tensors that are no parameters.

    With gradient checkpointing these are the inputs of blocks; without, everything.

    Args:
        networks: whose parameters stay.
        away: where they wait.
        smallest: bytes of a tensor that goes.
    """

    def __init__(self, *networks: nn.Module, away: torch.device | str = "cpu", smallest: int = SMALLEST) -> None:
        self.away, self.smallest = torch.device(away), smallest
        self.own = {
            parameter.untyped_storage().data_ptr() for network in networks for parameter in network.parameters()
        }
        self.gone = 0

    def pack(self, x: Tensor) -> Any:
        """What autograd keeps in its place."""
        if x.nbytes < self.smallest or x.untyped_storage().data_ptr() in self.own:
            return x
        self.gone += 1
        kept = torch.empty(x.shape, dtype=x.dtype, device=self.away, pin_memory=x.is_cuda)
        return x.device, kept.copy_(x)  # waits for x: its memory may be taken at once

    def unpack(self, kept: Any) -> Tensor:
        """It, back where it was."""
        if isinstance(kept, Tensor):
            return kept
        device, x = kept
        back: Tensor = x.to(device, non_blocking=True)
        return back

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What is computed inside the `with` is kept so."""
        with torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack):
            yield


def keeping_of(settings: TrainSettings, backbone: Backbone) -> Callable[[], AbstractContextManager[None]]:
    """What stands around a forward pass that is followed back, as the settings say."""
    return Activations(*backbone.networks).waiting if settings.offload_activations else nullcontext
