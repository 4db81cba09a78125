"""Classes that are taught: what a run trains beside the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapt.lora.held import Held
from conditioning import ClassConditioner, Condition, Part

if TYPE_CHECKING:
    from adapt.config import TrainSettings


@dataclass
class LearnedClasses(Held):
    """Attributes:
    conditioner: the classes.
    awake: False where the base is asked, which knows none: conditions are then left as they are.
    """

    conditioner: ClassConditioner
    awake: bool = True

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return self.conditioner.learned

    def groups(self, settings: TrainSettings) -> list[tuple[list[nn.Parameter], float]]:
        """The table at a rate of its own; projector and null, where they learn, at the network's."""
        own, rest = [self.conditioner.table], [p for name, p in self.parameters.items() if name != "table"]
        table = (own, settings.class_learning_rate / settings.learning_rate)
        return [table, (rest, 1.0)] if rest else [table]

    def told(self, condition: Condition, labels: Sequence[str | None]) -> Condition:
        """The condition with the class of each row, with gradients; None: no class."""
        if not self.awake:
            return condition
        return condition.replaced({"class": self.conditioner.encode([label or "" for label in labels])})

    def null(self, rows: int) -> dict[str, Part]:
        """The part that says no class, with gradients."""
        return {"class": self.conditioner.null(rows)} if self.awake else {}

    @torch.no_grad()
    def frozen(self, values: Mapping[str, Tensor] | None = None) -> ClassConditioner:
        """A copy; `values` stands in for the parameters."""
        held, now = self.conditioner, {**self.conditioner.learned, **(values or {})}
        state = held.state() | {name: now[name].detach().cpu() for name in ("projector", "null") if name in now}
        table = torch.cat([held.known.cpu(), now["table"].detach().cpu()])
        return ClassConditioner(held.labels, table, state["projector"], state["null"], held.slot)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """No class is told, inside the `with`."""
        awake, self.awake = self.awake, False
        try:
            yield
        finally:
            self.awake = awake


def teach(conditioner: ClassConditioner, device: torch.device) -> LearnedClasses:
    """Classes about to be learned."""
    taught = LearnedClasses(conditioner.to(device))
    for parameter in taught.parameters.values():
        parameter.requires_grad_(True)
    return taught
