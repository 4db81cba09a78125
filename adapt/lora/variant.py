"""The same network with other weights, at no cost a call: what autoguidance and domain guidance compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from conditioning import Condition, Predictor


@dataclass(frozen=True)
class Variant:
    """A predictor, run with other values of some of its parameters; afterwards the old ones are back, bit for
    bit. Values are exchanged by pointer, not copied.

    Attributes:
        function: the backbone's predictor.
        values: what each parameter is during a call, same shape, kind and device.
    """

    function: Predictor
    values: Mapping[nn.Parameter, Tensor]

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        before = {parameter: parameter.data for parameter in self.values}
        try:
            for parameter, value in self.values.items():
                parameter.data = value
            return self.function(x_t, t, condition)
        finally:
            for parameter, value in before.items():
                parameter.data = value
