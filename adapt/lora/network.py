"""All that a run trains, as one: the denoiser's adapter, and those of text encoders beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from adapt.formats import Layer
from adapt.lora.injection import Injection, tuned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapt.config import TrainSettings

SEPARATOR = ":"
"""Between a text encoder's name and a parameter's; the denoiser's parameters have their own names."""


@dataclass(frozen=True)
class Network:
    """Attributes:
    denoiser: its component's name.
    parts: component → its adapter; the denoiser's first.
    rates: learning rates of components that have their own.
    """

    denoiser: str
    parts: Mapping[str, Injection]
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def encoders(self) -> dict[str, Injection]:
        """The text encoders that are trained."""
        return {name: part for name, part in self.parts.items() if name != self.denoiser}

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by name; those of text encoders as `text_encoder:name`."""
        return {
            self._full(component, name): parameter
            for component, part in self.parts.items()
            for name, parameter in part.parameters.items()
        }

    @property
    def beside(self) -> list[nn.Parameter]:
        """Parameters outside the denoiser: nothing brings their gradients from one process to another by itself."""
        return [parameter for part in self.encoders.values() for parameter in part.parameters.values()]

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """peft's configuration by component."""
        return {name: part.config.to_dict() for name, part in self.parts.items()}

    def groups(self, settings: TrainSettings) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters that learn at the same rate, and the factor on `learning_rate`."""
        return [
            (found, factor * self.rates.get(component, settings.learning_rate) / settings.learning_rate)
            for component, part in self.parts.items()
            for found, factor in part.groups(settings)
        ]

    def _full(self, component: str, name: str) -> str:
        return name if component == self.denoiser else f"{component}{SEPARATOR}{name}"

    def _of(self, values: Mapping[str, Tensor], component: str) -> dict[str, Tensor]:
        """The values of one component, by its own names."""
        found = (name.rpartition(SEPARATOR) for name in values)
        start = "" if component == self.denoiser else component
        return {name: values[before + sign + name] for before, sign, name in found if before == start}

    # ----------------------------------------------------------------------------------------------------- what it holds
    def layers(self, values: Mapping[str, Tensor] | None = None) -> dict[str, dict[str, Layer]]:
        """Component → layer → its weights, as `Injection.layers`."""
        held = self.parameters if values is None else values
        return {name: part.layers(self._of(held, name)) for name, part in self.parts.items()}

    def assign(self, values: Mapping[str, Tensor]) -> None:
        """Copies values into the parameters, bit for bit."""
        for name, part in self.parts.items():
            part.assign(self._of(values, name))

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Other values in the parameters inside the `with` (the moving average, say)."""
        with ExitStack() as stack:
            for name, part in self.parts.items():
                stack.enter_context(part.holding(self._of(values, name)))
            yield

    def shorten(self, longest: float | None) -> None:
        """As `Injection.shorten`, everywhere."""
        for part in self.parts.values():
            part.shorten(longest)

    # ----------------------------------------------------------------------------------------------------- where it stands
    @property
    def step(self) -> int:
        """The optimizer step that is being taken."""
        return self.parts[self.denoiser].dice.step

    def move(self, step: int, positions: Sequence[int]) -> None:
        """Dropout from here on is that of these rows of the batch of `step`."""
        for part in self.parts.values():
            part.dice.step, part.dice.positions = step, positions

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base as it was, inside the `with`."""
        with ExitStack() as stack:
            for part in self.parts.values():
                stack.enter_context(part.disabled())
            yield

    @contextmanager
    def practising(self) -> Iterator[None]:
        """Text encoders with their adapters' dropout, inside the `with`; their own dropout, which asks a global generator, is
        never on."""
        layers = [layer for part in self.encoders.values() for _, layer in tuned(part.module)]
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()

    def remove(self) -> None:
        """Takes everything out again; the base is what it was, bit for bit."""
        for part in self.parts.values():
            part.remove()
