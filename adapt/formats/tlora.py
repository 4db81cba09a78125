"""T-LoRA: a LoRA with fewer components the more noise there is (Soboleva et al. 2025, arXiv 2507.05964, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.errors import AdapterError
from adapt.formats.layer import Layer, listed
from adapt.formats.lora_weights import Pair

if TYPE_CHECKING:
    from torch import Tensor

LEAST = "time_min_rank"
"""The tensor that says how many components are left in pure noise."""


def active(share: Tensor, rank: int, least: int) -> Tensor:
    """How many of `rank` components there are when a share (B,) of the way to pure noise is gone: the first
    ⌊(1 - share) (r - r_min)⌋ + r_min (B,)."""
    left = (1 - share.float()).clamp(0, 1)
    return (left * (rank - least)).floor().long() + least


@dataclass(frozen=True)
class TimeLora(Layer):
    """ΔW at a time is alpha / r · up[:, :k] @ down[:k], k = `active` components.

    Attributes:
        down, up: as of LoRA.
        least: r_min, (1,).
    """

    kind: ClassVar[str] = "tlora"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {**Pair.names, "least": (LEAST, LEAST)}
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(names),)
    adds: ClassVar[bool] = False
    down: Tensor
    up: Tensor
    least: Tensor
    alpha: float

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        down = tensors["down"]
        return cls(down, tensors["up"], tensors["least"], float(len(down)) if alpha is None else alpha)

    @property
    def whole(self) -> Pair:
        """With all components, as at a time without noise."""
        return Pair(self.down, self.up, self.alpha)

    @property
    def rank(self) -> int:
        return self.whole.rank

    @property
    def size(self) -> tuple[int, int]:
        return self.whole.size

    def fits(self, shape: Sequence[int]) -> bool:
        return self.whole.fits(shape)

    def components(self, share: float) -> int:
        """How many there are at this share of the way to pure noise."""
        import torch

        return int(active(torch.tensor([share]), self.rank, int(self.least)))

    def at(self, share: float) -> Pair:
        """The LoRA that it is at this share of the way to pure noise."""
        count = self.components(share)
        return Pair(self.down[:count], self.up[:, :count], self.alpha * count / self.rank)

    def presence(self) -> Tensor:
        """The share of the way to pure noise on which each component is there (r,): 1 - (j + 1) / (r - r_min) of the j-th that
        comes and goes."""
        import torch

        least = int(self.least)
        going = torch.arange(1, self.rank - least + 1, dtype=torch.float32) / max(self.rank - least, 1)
        return torch.cat([torch.ones(least), 1 - going])

    def mean(self) -> tuple[Pair, float]:
        """The one LoRA that is nearest to it over all times alike: its mean over them. And the mean ‖ΔW - that‖² of the times."""
        import torch

        there = self.presence()
        up, down = self.up.float().flatten(1), self.down.float().flatten(1)
        products = self.whole.scale**2 * (up.T @ up) * (down @ down.T)  # of components with each other, <u vᵀ, u' v'ᵀ>
        together = torch.minimum(there[:, None], there)  # there at the same time: the rarer one says
        spread = float(((together - there[:, None] * there) * products).sum().clamp(min=0))
        count = max(int((there > 0).sum()), 1)
        sides = [1, -1, *[1] * (self.up.ndim - 2)]
        ups = self.up[:, :count].float() * there[:count].reshape(sides)
        return Pair(self.down[:count].float(), ups, self.alpha * count / self.rank), spread

    def norm(self) -> Tensor:
        """‖ΔW‖ with all components."""
        return self.whole.norm()

    def multiplied(self) -> dict[str, Tensor]:
        return self.whole.tensors()

    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        raise AdapterError(
            "a T-LoRA is another LoRA at every time, and no one difference of weights",
            given="kind=tlora",
            next="adapt generate --adapter draws with it; adapt export --nearest RANK is its mean over the times",
        )

    def merged(self, weight: Tensor, scale: float) -> Tensor:
        return self.delta()

    def misfit(self) -> str | None:
        if fault := self.whole.misfit():
            return fault
        if self.least.shape != (1,) or not 1 <= float(self.least) <= self.rank:
            return f"{LEAST} {listed(self.least)} that is no number of its components"
        return None
