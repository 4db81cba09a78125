"""All that a run trains, as one: the denoiser's adapter (or one in each of several), and those of text encoders beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from adapt.formats import Layer
from adapt.lora.assistant import Assistant
from adapt.lora.grown import Fixed
from adapt.lora.held import Held
from adapt.lora.injection import Injection, tuned
from adapt.lora.taught import Taught
from adapt.lora.words import NewWords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapt.config import TrainSettings
    from conditioning import LearnedConditioner

WORDS, SEPARATOR = "words", ":"
"""The last stands between a text encoder's name and a parameter's; the denoiser's parameters have their own names."""


@dataclass(frozen=True)
class Network:
    """Attributes:
    denoiser: its component's name.
    parts: component → its adapter; the denoiser's first.
    others: components of further denoisers that are trained, each for its own times.
    unwrapped: the denoiser is not put into a wrapper that shares gradients.
    assistant: what stands beside the base meanwhile; None: nothing.
    rates: learning rates of components that have their own.
    words: new words that are taught; None: there are none.
    taught: conditioners that are taught, by the part that they make.
    until: component, `words`, or a taught part → the step before which it learns; others learn to the end.
    """

    denoiser: str
    parts: Mapping[str, Injection | Fixed]
    rates: Mapping[str, float] = field(default_factory=dict)
    words: NewWords | None = None
    until: Mapping[str, float] = field(default_factory=dict)
    taught: Mapping[str, Taught] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    unwrapped: bool = False
    assistant: Assistant | None = None

    @property
    def denoisers(self) -> tuple[str, ...]:
        """All that are trained."""
        return (self.denoiser, *self.others)

    @property
    def encoders(self) -> dict[str, Injection | Fixed]:
        """The text encoders that are trained."""
        return {name: part for name, part in self.parts.items() if name not in self.denoisers}

    @property
    def beside_layers(self) -> dict[str, NewWords | Taught]:
        """What is taught beside layers: `words`, and parts of the condition."""
        return {**({WORDS: self.words} if self.words is not None else {}), **self.taught}

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by name; those of text encoders as `text_encoder:name`, new words as `words:text_encoder`,
        conditioners as `class:table`."""
        return {
            self._full(component, name): parameter
            for component, found in self._held().items()
            for name, parameter in found.items()
        }

    @property
    def beside(self) -> list[nn.Parameter]:
        """Parameters outside the denoiser: nothing brings their gradients from one process to another by itself. Of several
        denoisers none is wrapped: which of them has rows differs from one process to another."""
        wrapped = () if self.others or self.unwrapped else (self.denoiser,)
        return [p for component, found in self._held().items() if component not in wrapped for p in found.values()]

    def _held(self) -> dict[str, dict[str, nn.Parameter]]:
        """Component, `words`, or a taught part → its parameters."""
        return {name: part.parameters for name, part in self._all().items()}

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """peft's configuration by component."""
        return {name: part.config.to_dict() for name, part in self.parts.items()}

    def groups(self, settings: TrainSettings) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters that learn at the same rate, and the factor on `learning_rate`."""
        groups = {name: part.groups(settings) for name, part in self.parts.items()}
        if self.words is not None:
            groups[WORDS] = [(list(self.words.parameters.values()), 1.0)]
        groups |= {part: taught.groups(settings) for part, taught in self.taught.items()}
        return [
            (found, factor * self.rates.get(component, settings.learning_rate) / settings.learning_rate)
            for component, each in groups.items()
            for found, factor in each
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

    def vectors(self, values: Mapping[str, Tensor] | None = None) -> dict[str, dict[str, Tensor]]:
        """New word → component → its vectors; none without new words."""
        if self.words is None:
            return {}
        return self.words.words.vectors(None if values is None else self._of(values, WORDS))

    def conditioners(self, values: Mapping[str, Tensor] | None = None) -> dict[str, LearnedConditioner]:
        """Part of the condition → what has learned to make it."""
        return {
            part: taught.frozen(None if values is None else self._of(values, part))
            for part, taught in self.taught.items()
        }

    def assign(self, values: Mapping[str, Tensor]) -> None:
        """Copies values into the parameters, bit for bit."""
        for name, part in self._all().items():
            part.assign(self._of(values, name))

    def _all(self) -> dict[str, Held]:
        return {**self.parts, **self.beside_layers}

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Other values in the parameters inside the `with` (the moving average, say)."""
        with ExitStack() as stack:
            for name, part in self._all().items():
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

    def learns(self, name: str) -> bool:
        """Whether a component, `words`, or a taught part, still learns at this step."""
        return self.step < self.until.get(name, math.inf)

    @property
    def listens(self) -> bool:
        """Whether anything that encodes captions is still learned."""
        return any(self.learns(name) for name in self._held() if name not in (*self.denoisers, *self.taught))

    def rest(self) -> None:
        """What no longer learns gets no gradient: optimizers leave it as it is, to the bit."""
        for name, part in self._all().items():
            if not self.learns(name):
                for parameter in part.parameters.values():
                    parameter.grad = None

    def move(self, step: int, positions: Sequence[int]) -> None:
        """Dropout from here on is that of these rows of the batch of `step`."""
        for part in self.parts.values():
            part.dice.move(step, positions)

    @contextmanager
    def bare(self) -> Iterator[None]:
        """The denoisers as they were, inside the `with`; what they are told is as it is taught."""
        with ExitStack() as stack:
            for name in self.denoisers:
                stack.enter_context(self.parts[name].disabled())
            yield

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base as it was, inside the `with`."""
        with ExitStack() as stack:
            for part in self.parts.values():
                stack.enter_context(part.disabled())
            if self.words is not None:
                stack.enter_context(self.words.words.disabled())
            for taught in self.taught.values():
                stack.enter_context(taught.disabled())
            yield

    @contextmanager
    def practising(self) -> Iterator[None]:
        """Text encoders with their adapters' dropout, inside the `with`; their own dropout, which asks a global generator, is
        never on."""
        learning = [part for name, part in self.encoders.items() if self.learns(name)]
        layers = [layer for part in learning for _, layer in tuned(part.module)]
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()

    def remove(self) -> None:
        """Takes everything out again; the base is what it was, bit for bit."""
        if self.assistant is not None:
            self.assistant.remove()
        for part in self.parts.values():
            part.remove()
        if self.words is not None:
            self.words.words.remove()
