"""Conditioners that are taught: what a run trains beside the network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapt.lora.held import Held
from conditioning import Condition, LearnedConditioner, Part

if TYPE_CHECKING:
    from adapt.config import TrainSettings


@dataclass
class Taught(Held):
    """Attributes:
    conditioner: what is taught.
    rate: the learning rate of `fast`.
    fast: names of its parameters that learn at `rate`; the others learn as the network does.
    awake: False where the base is asked, which knows nothing of it: conditions are then left as they are.
    """

    conditioner: LearnedConditioner
    rate: float
    fast: Collection[str]
    awake: bool = True

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return self.conditioner.learned

    def groups(self, settings: TrainSettings) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters that learn at the same rate, and the factor on `learning_rate`."""
        fast = [p for name, p in self.parameters.items() if name in self.fast]
        rest = [p for name, p in self.parameters.items() if name not in self.fast]
        groups = [(fast, self.rate / settings.learning_rate), (rest, 1.0)]
        return [(found, factor) for found, factor in groups if found]

    def told(self, condition: Condition, raw: Sequence[Any]) -> Condition:
        """The condition with this part of each row, with gradients."""
        if not self.awake:
            return condition
        return condition.replaced({self.conditioner.name: self.conditioner.encode(raw)})

    def null(self, condition: Condition) -> dict[str, Part]:
        """The part that says nothing in place of what the condition says, with gradients."""
        if not self.awake:
            return {}
        name = self.conditioner.name
        return {name: self.conditioner.beside(condition.parts[name])}

    @torch.no_grad()
    def frozen(self, values: Mapping[str, Tensor] | None = None) -> LearnedConditioner:
        """A copy; `values` stands in for the parameters."""
        return self.conditioner.having(self.parameters if values is None else values)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Nothing is told, inside the `with`."""
        awake, self.awake = self.awake, False
        try:
            yield
        finally:
            self.awake = awake


def teach(conditioner: LearnedConditioner, rate: float, fast: Collection[str], device: torch.device) -> Taught:
    """A conditioner about to be learned."""
    taught = Taught(conditioner.to(device), rate, fast)
    for parameter in taught.parameters.values():
        parameter.requires_grad_(True)
    return taught
