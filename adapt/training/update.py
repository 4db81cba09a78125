"""What is done with a gradient: looked at, shortened, applied at the step's learning rate; or left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adapt.config import TrainSettings
from adapt.errors import TrainingError
from adapt.lora import Network
from adapt.training import optimizer
from adapt.training.fused import Fused
from adapt.training.optimizer.families import Groups, has_modes
from adapt.training.optimizer.state import OptimizerState, optimizer_state, restore_optimizer

MOST_IN_A_ROW = 20
"""Steps one after another that may be left out. fp16's scale halves at each: from 2¹⁶ it is then low enough for any gradient."""


class Update:
    """Args:
    settings: the run's.
    injection: what is trained.
    device: of the gradients.
    """

    def __init__(self, settings: TrainSettings, injection: Network, device: torch.device) -> None:
        self.settings, self.parameters = settings, injection.parameters
        groups = learning_groups(settings, injection)
        self.factors = [factor for _, factor in groups]
        self.optimizer = optimizer.make(settings, groups)
        if has_modes(self.optimizer):
            self.optimizer.train()  # type: ignore[attr-defined]
        self.learning_rate = optimizer.learning_rate(settings)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self.in_a_row = 0
        self.fused = Fused(self.optimizer, self.parameters) if settings.fused_backward else None

    def begin(self, step: int) -> None:
        """Before the backward passes of `step`: sets its learning rates."""
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = self.learning_rate(step) * factor

    def scaled(self, loss: Tensor) -> Tensor:
        """What to call `backward` on; fp16 gradients would vanish without."""
        return self.scaler.scale(loss)

    def apply(self, step: int, loss: float) -> str | None:
        """Applies the gradients of `step`. Returns None, or what was not finite: then nothing was applied.

        Raises:
            TrainingError: `MOST_IN_A_ROW` steps one after another were not finite.
        """
        if self.fused is not None:
            return "loss" if not math.isfinite(loss) else "gradient" if self.fused.fault() else None
        self.scaler.unscale_(self.optimizer)
        norm = optimizer.clip(list(self.parameters.values()), self.settings.max_grad_norm)
        fault = "loss" if not math.isfinite(loss) else "gradient" if math.isnan(norm) else None
        if fault is None:
            self.begin(step)
            self.scaler.step(self.optimizer)
        self.scaler.update()  # after an overflow: a lower scale
        self.optimizer.zero_grad(set_to_none=True)
        self.in_a_row = self.in_a_row + 1 if fault else 0
        return fault

    def tolerates(self, fault: str) -> bool:
        """Whether the run may go on after this. fp16 gradients overflow now and then: the scaler lowers its scale."""
        overflow = fault == "gradient" and self.scaler.is_enabled()
        return (self.settings.on_nonfinite == "skip" or overflow) and self.in_a_row <= MOST_IN_A_ROW

    def rate(self, step: int) -> float:
        """The learning rate of a step that was just taken; Prodigy's is its estimate times the schedule."""
        return self.learning_rate(step) * float(self.optimizer.param_groups[0].get("d", 1.0))

    def require_finite(self, values: Mapping[str, Tensor], step: int) -> None:
        """Raises `TrainingError` when weights are not finite, so that they get into no file."""
        wrong = [name for name, x in values.items() if not bool(torch.isfinite(x).all())]
        if wrong:
            raise TrainingError(
                f"the weights after step {step} are not finite",
                given=f"{len(wrong)} of {len(values)} tensors, learning_rate {self.settings.learning_rate}",
                next="lower learning_rate; the last checkpoint is untouched, and --resume goes on from it",
            )

    def state(self) -> tuple[OptimizerState, dict[str, Any]]:
        """The optimizer's, and the scaler's as JSON."""
        return optimizer_state(self.optimizer, self.parameters), {**self.scaler.state_dict(), "in_a_row": self.in_a_row}

    def restore(self, state: OptimizerState, scaler: Mapping[str, Any]) -> None:
        """The reverse of `state`."""
        restore_optimizer(self.optimizer, self.parameters, state)
        own = {key: value for key, value in scaler.items() if key != "in_a_row"}
        if own:
            self.scaler.load_state_dict(own)
        self.in_a_row = int(scaler.get("in_a_row", 0))


def learning_groups(settings: TrainSettings, injection: Network) -> Groups:
    """Parameters with the factor of their learning rate, as the adapter says; without: all with factor 1."""
    groups = getattr(injection, "groups", None)
    return groups(settings) if groups else [(list(injection.parameters.values()), 1.0)]
