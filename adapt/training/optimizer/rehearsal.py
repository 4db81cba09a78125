"""A rehearsal before step 1: the optimizer takes some steps on a matrix, is saved, and goes on as if it had not been.

It finds what a signature cannot tell: a class that wants a closure, a library that does not run on this device, and state that
is not where it could be saved, so that a resumed run would quietly be another run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adapt.config import TrainSettings
from adapt.errors import SettingsError
from adapt.training.optimizer.families import has_modes, make
from adapt.training.optimizer.state import optimizer_state, restore_optimizer

STEPS, NAME = 2, "weight"


def rehearse(settings: TrainSettings, device: torch.device) -> None:
    """Raises `SettingsError` when the optimizer cannot be used, or cannot be resumed exactly."""
    weight = nn.Parameter(torch.linspace(-1, 1, 64 * 96, device=device).reshape(64, 96))  # 8 bit begins at 4096 numbers
    optimizer = make(settings, [([weight], 1.0)])
    try:
        _steps(optimizer, weight, 0, STEPS)
        saved = optimizer_state(optimizer, {NAME: weight})
        twin = nn.Parameter(weight.detach().clone())
        again = make(settings, [([twin], 1.0)])
        restore_optimizer(again, {NAME: twin}, saved)
        same = bool(_steps(optimizer, weight, STEPS, STEPS).equal(_steps(again, twin, STEPS, STEPS)))
    except SettingsError:
        raise
    except Exception as error:  # a class from anywhere may raise anything
        raise SettingsError(
            f"optimizer={settings.optimizer} cannot be used here", given=f"{type(error).__name__}: {error}"
        ) from error
    if not same:
        raise SettingsError(
            f"optimizer={settings.optimizer} keeps state that it does not tell",
            given="a rehearsal went on differently after saving and loading",
            next="give another optimizer: its runs could not be resumed exactly",
        )


def _steps(optimizer: Optimizer, weight: nn.Parameter, first: int, count: int) -> Tensor:
    """Some steps with made-up gradients; returns the weight."""
    if has_modes(optimizer):
        optimizer.train()  # type: ignore[attr-defined]
    for step in range(first, first + count):
        weight.grad = torch.cos(weight.detach() * (step + 1))
        optimizer.step()
    return weight.detach().clone()
