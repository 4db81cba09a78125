"""Noise that belongs to a picture: drawn row by row, each row from its own generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.sampling.axes import AS_HERE, Axes


def generator_of(seed: int) -> torch.Generator:
    """A CPU generator: a seed gives the same picture on every device.

    Args:
        seed: 0 … 2**63 - 1.
    """
    return torch.Generator("cpu").manual_seed(seed)


@dataclass(frozen=True)
class Noise:
    """Standard normal noise for a batch.

    Attributes:
        generators: one a picture, so that a picture starts from the same noise alone and in a batch.
        device, dtype: of what is returned; drawn in this dtype, as diffusers' pipelines do.
        axes: the order in which the family's pipeline lays them, and so draws.
    """

    generators: Sequence[torch.Generator]
    device: torch.device
    dtype: torch.dtype
    axes: Axes = AS_HERE

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """(C, *dims) → (B, C, *dims)."""
        return torch.cat([self._row((1, *shape), generator) for generator in self.generators])

    def _row(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        laid = self.axes.shape(shape)
        drawn = torch.randn(laid, generator=generator, device=generator.device, dtype=self.dtype).to(self.device)
        return self.axes.ours(drawn)
