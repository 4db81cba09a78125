"""Something that is learned: parameters by name, that can be set and stood in for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


class Held(ABC):
    """What a run trains in one place."""

    @property
    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by name."""

    @torch.no_grad()
    def assign(self, values: Mapping[str, Tensor]) -> None:
        """Copies values into the parameters, bit for bit."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Other values in the parameters inside the `with`."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.assign(values)
        try:
            yield
        finally:
            self.assign(kept)
