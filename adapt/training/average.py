"""The moving average of the LoRA weights, which is what becomes the adapter (diffusers' `EMAModel` on LoRA alone)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """Args:
    parameters: LoRA by name.
    decay: highest decay a step; it ramps up as (1 + step) / (10 + step). 0: no average, the weights themselves.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        from diffusers.training_utils import EMAModel

        self._parameters = dict(parameters)
        self._ema = EMAModel(self._parameters.values(), decay=decay) if decay else None

    @property
    def values(self) -> dict[str, Tensor]:
        """What the adapter would be now, by parameter name; not a copy."""
        if self._ema is None:
            return {name: p.detach() for name, p in self._parameters.items()}
        return dict(zip(self._parameters, self._ema.shadow_params, strict=True))

    def update(self) -> None:
        """Once an optimizer step."""
        if self._ema is not None:
            self._ema.step(self._parameters.values())

    def restore(self, values: Mapping[str, Tensor], step: int) -> None:
        """Goes on from the average after `step` steps."""
        if self._ema is None:
            return
        self._ema.optimization_step = step
        with torch.no_grad():
            for name, shadow in zip(self._parameters, self._ema.shadow_params, strict=True):
                shadow.copy_(values[name])
