"""A finished adapter in a run that teaches something beside it: it works, and does not change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from adapt.lora.dropout import Dice
from adapt.lora.held import Held

if TYPE_CHECKING:
    from adapt.config import TrainSettings
    from adapt.formats import Layer
    from adapt.lora.applied import Applied


@dataclass(frozen=True)
class Fixed(Held):
    """Stands where a run's `Injection` stands, with nothing to learn.

    Attributes:
        module: the denoiser.
        applied: the adapter, on its weights.
        held: its layers, as they are in its file.
        config: peft's configuration in its facts.
    """

    module: nn.Module
    applied: Applied
    held: Mapping[str, Layer]
    config: FixedConfig
    dice: Dice = field(default_factory=Dice)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return {}

    def groups(self, settings: TrainSettings) -> list[tuple[list[nn.Parameter], float]]:
        """None: nothing learns."""
        return []

    def layers(self, values: Mapping[str, Tensor] | None = None) -> dict[str, Layer]:
        """The adapter's own, bit for bit."""
        return dict(self.held)

    def shorten(self, longest: float | None) -> None:
        """Nothing: it stays as it is."""

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base as it was, inside the `with`."""
        with self.applied.off():
            yield

    def remove(self) -> None:
        """Takes the adapter off; the base is what it was, bit for bit."""
        self.applied.unload()


@dataclass(frozen=True)
class FixedConfig:
    """A configuration that is only handed on."""

    values: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return dict(self.values)
