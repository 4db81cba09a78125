"""The optimizer's step in the backward pass: each gradient is applied as soon as it is there, and let go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Fused:
    """Steps an optimizer one parameter at a time, from hooks: never more than one gradient is held.

    For optimizers whose step of one parameter depends on no other; the numbers are then the same to the bit.

    Args:
        optimizer: it; its state and groups stay its own.
        parameters: what it trains.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
        self.optimizer = optimizer
        self.groups = {p: group for group in optimizer.param_groups for p in group["params"]}
        self.bad: Tensor | None = None
        self.handles: list[RemovableHandle] = [
            parameter.register_post_accumulate_grad_hook(self._step)  # type: ignore[no-untyped-call]
            for parameter in parameters.values()
        ]

    def _step(self, parameter: Any) -> None:
        gradient = parameter.grad
        wrong = (~torch.isfinite(gradient)).any()
        self.bad = (
            wrong if self.bad is None else self.bad | wrong
        )  # looked at once a step: a GPU is not waited for here
        whole = self.optimizer.param_groups
        self.optimizer.param_groups = [{**self.groups[parameter], "params": [parameter]}]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = whole
        parameter.grad = None

    def fault(self) -> bool:
        """Whether a gradient of the step that is over was not finite. It has been applied: the run must end."""
        bad, self.bad = self.bad, None
        return bad is not None and bool(bad)

    def remove(self) -> None:
        """Takes the hooks off."""
        while self.handles:
            self.handles.pop().remove()
