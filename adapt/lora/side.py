"""What lies beside a layer whose weight is in few bits: nothing can be added to that, so B A x is added to what it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from adapt.backbones.packed import shape_of
from adapt.errors import AdapterError
from adapt.formats import Layer, Pair

if TYPE_CHECKING:
    from adapt.lora.applied import Applied

SIDE = "_adapt_side"
"""Where a layer keeps what is beside it: the state belongs to the model, not to this module."""


@dataclass
class _On:
    """One adapter's LoRA: A and s · B, in the type and on the device of what the layer computes."""

    handle: Applied
    down: Tensor
    up: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if self.down.dtype != y.dtype or self.down.device != y.device:
            self.down, self.up = self.down.to(y), self.up.to(y)
        return y + F.linear(F.linear(x.to(y.dtype), self.down), self.up)


class Side:
    """The adapters beside one layer, lowest first. While there is none, the layer is what it was.

    Args:
        module: a linear layer.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.layers = module, list[_On]()
        self._hook: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that the layer computes with."""
        return shape_of(self.module)

    def put_on(self, handle: Applied, layer: Layer, scale: float) -> None:
        """One adapter's LoRA beside the layer; if the adapter is there already, in its own place instead of what it was."""
        assert isinstance(layer, Pair), "judged by side_of"
        new = _On(handle, layer.down, layer.up * (layer.scale * scale))
        places = [n for n, on in enumerate(self.layers) if on.handle is handle]
        if places:
            self.layers[places[0]] = new
        else:
            self.layers.append(new)
        if self._hook is None:
            self._hook = self.module.register_forward_hook(self._add)
            setattr(self.module, SIDE, self)

    def take_off(self, handle: Applied) -> None:
        """One adapter off."""
        self.layers = [on for on in self.layers if on.handle is not handle]
        if not self.layers and self._hook is not None:
            self._hook.remove()
            self._hook = None
            delattr(self.module, SIDE)

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if any(on.handle.resting for on in self.layers):
            return output
        for on in self.layers:
            output = on(inputs[0], output)
        return output


def side_of(module: nn.Module, name: str, layer: Layer) -> Side:
    """What is beside a packed layer.

    Raises:
        AdapterError: an adapter that needs the numbers of the weight.
    """
    if type(layer) is not Pair:
        raise AdapterError(
            f"only LoRA can be put on a base in few bits, not {layer.kind}",
            given=name,
            next="the base in float32, float16 or bfloat16, or adapt export --nearest",
        )
    found: Side = getattr(module, SIDE, None) or Side(module)
    return found
