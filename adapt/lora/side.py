"""What lies beside a layer whose weight is in few bits: nothing can be added to that, so B A x is added to what it computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from adapt.backbones.packed import shape_of
from adapt.errors import AdapterError
from adapt.formats import Layer, Pair
from conditioning import Condition, Predictor

if TYPE_CHECKING:
    from adapt.lora.applied import Applied

SIDE = "_adapt_side"
"""Where a layer keeps what is beside it: the state belongs to the model, not to this module."""


@dataclass
class _On:
    """One adapter's LoRA: A and s · B, in the type and on the device of what the layer computes."""

    handle: Applied | None
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
        new = _of(handle, layer, scale)
        places = [n for n, on in enumerate(self.layers) if on.handle is handle]
        if places:
            self.layers[places[0]] = new
        else:
            self.layers.append(new)
        self._settle()

    def take_off(self, handle: Applied) -> None:
        """One adapter off."""
        self.layers = [on for on in self.layers if on.handle is not handle]
        self._settle()

    @contextmanager
    def instead(self, others: Sequence[tuple[Layer, float]]) -> Iterator[None]:
        """Other LoRA beside the layer, and its scales, inside the `with`."""
        kept = self.layers
        self.layers = [_of(None, layer, scale) for layer, scale in others]
        self._settle()
        try:
            yield
        finally:
            self.layers = kept
            self._settle()

    def _settle(self) -> None:
        """Listens while there is something to add."""
        if self.layers and self._hook is None:
            self._hook = self.module.register_forward_hook(self._add)
            setattr(self.module, SIDE, self)
        elif not self.layers and self._hook is not None:
            self._hook.remove()
            self._hook = None
            delattr(self.module, SIDE)

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if any(on.handle is not None and on.handle.resting for on in self.layers):
            return output
        for on in self.layers:
            output = on(inputs[0], output)
        return output


def _of(handle: Applied | None, layer: Layer, scale: float) -> _On:
    assert isinstance(layer, Pair), "judged by side_of"
    return _On(handle, layer.down, layer.up * (layer.scale * scale))


class Aside:
    """A predictor with other adapters beside packed layers than those that are on them at that moment.

    Args:
        predict: what predicts.
        others: packed layer → what is beside it instead, with scales.
    """

    def __init__(self, predict: Predictor, others: Mapping[nn.Module, Sequence[tuple[Layer, float]]]) -> None:
        self.predict, self.others = predict, others

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        with ExitStack() as stack:
            for module, layers in self.others.items():
                side: Side = getattr(module, SIDE, None) or Side(module)
                stack.enter_context(side.instead(layers))
            return self.predict(x_t, t, condition)


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
