"""The weights that become the adapter: a moving average (diffusers' `EMAModel` on LoRA alone), or the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adapt.training.optimizer.families import has_modes

Named = Mapping[str, nn.Parameter]


class Average:
    """Args:
    parameters: LoRA by name.
    decay: highest decay a step; it ramps up as (1 + step) / (10 + step). 0: no average, the weights themselves.
    optimizer: one that averages itself (schedule-free) is asked for what it has learned; any other is not.
    """

    def __init__(self, parameters: Named, decay: float, optimizer: Optimizer | None = None) -> None:
        from diffusers.training_utils import EMAModel

        self._parameters = dict(parameters)
        self._ema = EMAModel(self._parameters.values(), decay=decay, foreach=True) if decay else None
        self._optimizer = optimizer if optimizer is not None and has_modes(optimizer) else None
        self._found: dict[str, Tensor] | None = None

    @property
    def values(self) -> dict[str, Tensor]:
        """What the adapter would be now, by parameter name; not a copy."""
        if self._ema is not None:
            return dict(zip(self._parameters, self._ema.shadow_params, strict=True))
        if self._optimizer is None:
            return {name: p.detach() for name, p in self._parameters.items()}
        if self._found is None:  # once a step: it is asked again while the parameters hold the answer
            self._found = evaluated(self._optimizer, self._parameters)
        return self._found

    def update(self, step: int) -> None:
        """After optimizer step number `step`, from 1."""
        self._found = None
        if self._ema is not None:
            # The decay is a function of the step, also where steps were left out.
            self._ema.optimization_step = step - 1
            self._ema.step(self._parameters.values())

    def restore(self, values: Mapping[str, Tensor], step: int) -> None:
        """Goes on from the average after `step` steps."""
        self._found = None
        if self._ema is None:
            return
        with torch.no_grad():
            for name, shadow in zip(self._parameters, self._ema.shadow_params, strict=True):
                shadow.copy_(values[name])


@torch.no_grad()
def evaluated(optimizer: Optimizer, parameters: Named) -> dict[str, Tensor]:
    """What an optimizer with modes has learned, by name. The parameters are afterwards what they were, bit for bit: its own
    `eval()` and `train()` there and back would move them by rounding, and a run would depend on when it is looked at."""
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer.eval()  # type: ignore[attr-defined]
    found = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer.train()  # type: ignore[attr-defined]
    for name, parameter in parameters.items():
        parameter.copy_(kept[name])
    return found
