"""Networks that stand beside a denoiser and tell it more with every prediction: a ControlNet, an IP-Adapter's projector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from adapt.backbones.stem import hinted
from conditioning import Condition, Part

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone

Told = tuple[tuple[Any, ...], dict[str, Any]]
"""What a network is called with: its positional arguments and its named ones."""


class Beside(ABC):
    """A conditioner whose part is no tensor that a family's `predict` knows: it changes what the denoiser is called with.

    Attributes:
        name: of its part in `Condition.parts`.
    """

    name: str

    @abstractmethod
    def look(self, backbone: Backbone, picture: Image, pixels: Tensor) -> Tensor:
        """What is told of a picture; without a row axis.

        Args:
            pixels: it at the drawing's size, (3, H, W) in [-1, 1].
        """

    @abstractmethod
    def encode(self, raw: Sequence[Any]) -> Part:
        """One row of tensors for each (what `look` found, its strength); None is null."""

    @abstractmethod
    def null(self, rows: int) -> Part:
        """The part that says nothing, `rows` times."""

    @abstractmethod
    def passed_on(self, part: Part, arguments: tuple[Any, ...], named: dict[str, Any]) -> Told:
        """What the denoiser is called with instead."""

    @abstractmethod
    def put_on(self, backbone: Backbone) -> None:
        """Judges the base, and changes it where that is needed.

        Raises:
            AdapterError: made for another base, which is then untouched.
        """

    def take_off(self, backbone: Backbone) -> None:  # noqa: B027 - most leave the base as it is
        """Undoes `put_on`."""

    @contextmanager
    def on(self, backbone: Backbone) -> Iterator[Beside]:
        """The base with it, inside the `with`.

        Raises:
            AdapterError: made for another base, or the place is taken.
        """
        from adapt.errors import AdapterError

        if self.name in backbone.conditioners:
            raise AdapterError(
                f"another {self.name} is on this base already", given=type(self).__name__, allowed="one at a time"
            )
        self.put_on(backbone)
        backbone.conditioners[self.name] = self
        try:
            yield self
        finally:
            del backbone.conditioners[self.name]
            self.take_off(backbone)


@contextmanager
def informed(backbone: Backbone, condition: Condition) -> Iterator[None]:
    """Everything that stands beside the denoiser has its say in what is predicted inside the `with`."""
    with ExitStack() as stack:
        for name, each in backbone.conditioners.items():
            if isinstance(each, Beside) and name in condition.parts:
                stack.enter_context(_telling(backbone.denoiser, each, condition.parts[name]))
        stack.enter_context(hinted(backbone, condition))
        yield


@contextmanager
def _telling(network: nn.Module, beside: Beside, part: Part) -> Iterator[None]:
    def told(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Told:
        return beside.passed_on(part, arguments, named)

    hook = network.register_forward_pre_hook(told, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def rows_of(raw: Sequence[tuple[Tensor, float] | None], null: Tensor) -> tuple[Tensor, Tensor]:
    """What is told, stacked, null where there is none (B, …), and its strength (B,)."""
    like = next((x for x, _ in filter(None, raw)), null)
    empty = null.expand_as(like) if null.ndim == like.ndim else torch.zeros_like(like)
    strength = torch.tensor([0.0 if each is None else each[1] for each in raw])
    return torch.stack([empty.to(like) if each is None else each[0] for each in raw]), strength
