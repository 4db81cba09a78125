"""An adapter inside a model for training: put in by peft, started and dropped out of by the Plan, taken out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapt.config.network import NetworkSettings
from adapt.data.plan import even
from adapt.errors import SettingsError
from adapt.formats import Layer, Pair
from adapt.formats.kinds import built
from adapt.formats.layer import PEFT
from adapt.lora.dropout import Dice
from adapt.lora.held import Held
from adapt.lora.kinds import KINDS, NAME
from adapt.lora.layout import Place, called, layout, no_layers
from adapt.lora.pissa import Principal, largest, take_out

if TYPE_CHECKING:
    from adapt.config import TrainSettings


@dataclass(frozen=True)
class Injection(Held):
    """Adapter layers inside one module.

    Attributes:
        module: the denoiser they were put into.
        config: peft's configuration.
        settings: what was asked for.
        places: layer → rank, alpha and learning rate.
        dice: to be moved before every forward when there is dropout.
        principal: by layer, what PiSSA or LoRA-GA took out of the base's weights; empty otherwise.
        then: called when it is taken out.
    """

    module: nn.Module
    config: Any
    settings: NetworkSettings
    places: Mapping[str, Place]
    dice: Dice = field(default_factory=Dice)
    principal: dict[str, Principal] = field(default_factory=dict)
    then: list[Callable[[], None]] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter of the adapter by name, sorted; fp32 (fp64 in an fp64 model)."""
        found = {
            f"{name}.{inner}": parameter
            for name, layer in self._tuners
            for inner, parameter in layer.named_parameters()
            if inner.partition(".")[0] in layer.adapter_layer_names
        }
        return dict(sorted(found.items()))

    @cached_property
    def _tuners(self) -> tuple[tuple[str, Any], ...]:
        """peft's layers by name: a walk through the whole network, taken once."""
        return tuple(tuned(self.module))

    def groups(self, settings: TrainSettings) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters that learn at the same rate, and the factor on `learning_rate`.

        Those without a pattern come first; then one group a rate, in the order of `learning_rate_pattern`. Inside a group
        parameters are sorted by name. With LoRA+ (Hayou et al. 2024, arXiv 2402.12354) each group's B follow as one of their
        own, at a multiple of its rate.
        """
        rates = {name: place.learning_rate for name, place in self.places.items()}
        by_rate: dict[float | None, list[nn.Parameter]]
        by_rate = {rate: [] for rate in (None, *settings.learning_rate_pattern.values())}
        for name, parameter in self.parameters.items():
            by_rate[rates[_split(name)[0]]].append(parameter)
        groups = [
            (found, 1.0 if rate is None else rate / settings.learning_rate) for rate, found in by_rate.items() if found
        ]
        return groups if settings.lora_plus_ratio is None else self._with_plus(groups, settings.lora_plus_ratio)

    def _with_plus(
        self, groups: Sequence[tuple[list[nn.Parameter], float]], ratio: float
    ) -> list[tuple[list[nn.Parameter], float]]:
        ups = {id(p) for name, p in self.parameters.items() if _split(name)[1].startswith("lora_B")}
        found = []
        for parameters, factor in groups:
            parts = ([p for p in parameters if id(p) not in ups], [p for p in parameters if id(p) in ups])
            found += [(part, f) for part, f in zip(parts, (factor, factor * ratio), strict=True) if part]
        return found

    # ----------------------------------------------------------------------------------------------------- what it holds
    def layers(self, values: Mapping[str, Tensor] | None = None) -> dict[str, Layer]:
        """The weights by layer, as differences to the base; `values` stands in for the parameters (an average of them, say).

        PiSSA's and LoRA-GA's are relative to the original base, as LoRA of rank 2 r.
        """
        copies = {name: p.detach().clone() for name, p in (values or self.parameters).items()}
        found = self._layers(copies)
        return {name: self._relative(name, layer) for name, layer in found.items()}

    def _layers(self, values: Mapping[str, Tensor]) -> dict[str, Layer]:
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in sorted(self.places)}
        for full, tensor in values.items():
            name, part = _split(full)
            parts[name][part] = tensor
        shared, peft_layers = KINDS[self.settings.kind].shared, dict(self._tuners)
        return {
            name: built(
                self.settings.kind,
                {**found, **shared(peft_layers[name])},
                self._alpha(name),
                dialect=PEFT,
                rank=self.places[name].rank,
            )
            for name, found in parts.items()
        }

    def _alpha(self, name: str) -> float:
        """What stands over r: with rsLoRA (Kalajdzievski 2023, arXiv 2312.03732) the factor is alpha / √r."""
        place = self.places[name]
        return place.alpha * place.rank**0.5 if self.settings.rslora else place.alpha

    def _relative(self, name: str, layer: Layer) -> Layer:
        if name not in self.principal:
            return layer
        assert isinstance(layer, Pair), "PiSSA goes with LoRA"
        return self.principal[name].relative(layer)

    # ----------------------------------------------------------------------------------------------------- what changes it
    @torch.no_grad()
    def take(self, layers: Mapping[str, Layer]) -> None:
        """Copies layers into the parameters, bit for bit; layers that are not named stay as they are.

        Raises:
            SettingsError: a layer of another shape; nothing is changed then.
        """
        parameters = self.parameters
        found = {_joined(name, part): t for name, layer in layers.items() for part, t in layer.named(PEFT).items()}
        for name, tensor in found.items():
            if name not in parameters or parameters[name].shape != tensor.shape:
                raise SettingsError("the adapter does not fit this run", given=f"{name}, shape {tuple(tensor.shape)}")
        for name, tensor in found.items():
            parameters[name].copy_(tensor)

    def shorten(self, longest: float | None) -> None:
        """Scales every layer whose ‖ΔW‖ is greater than `longest` down to it (kohya's `scale_weight_norms`); None: nothing."""
        if longest is not None:
            now = self._layers({name: p.detach() for name, p in self.parameters.items()})
            self.take({name: layer.shortened(longest) for name, layer in now.items()})

    def split(self, factors: Callable[[str, Any], tuple[Tensor, Tensor]]) -> None:
        """Starts A and B as a part of each layer's weight and leaves the rest in it.

        Args:
            factors: (layer's name, peft's layer) → A and B, of which the factor alpha / r is not yet a part.

        Raises:
            SettingsError: a weight in half precision; the base is then whole again, and the injection removed.
        """
        layers = dict(tuned(self.module))
        try:
            for name in sorted(self.places):
                self.principal[name] = take_out(name, layers[name], self._alpha(name), factors)
        except BaseException:
            self.remove()
            raise

    def shape(self, name: str) -> torch.Size:
        """Of the weight of a layer."""
        return self.module.get_submodule(name).get_parameter("base_layer.weight").shape

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base as it was, inside the `with`."""
        layers = [layer for _, layer in self._tuners if not layer.disable_adapters]
        for layer in layers:
            layer.enable_adapters(False)
        self._stand_in([p.original for p in self.principal.values()])
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            if layers:  # of two nested ones, the outer one puts the rest back
                self._stand_in([p.rest for p in self.principal.values()])

    def _stand_in(self, weights: Sequence[Tensor]) -> None:
        for principal, weight in zip(self.principal.values(), weights, strict=True):
            principal.weight.data = weight

    def remove(self) -> None:
        """Takes the adapter out again; the base is what it was, bit for bit."""
        while self.then:
            self.then.pop()()
        self.__dict__.pop("_tuners", None)
        for name, layer in list(tuned(self.module)):
            parent, _, child = name.rpartition(".")
            setattr(self.module.get_submodule(parent), child, layer.base_layer)
        if hasattr(self.module, "peft_config"):
            del self.module.peft_config
        self._stand_in([p.original for p in self.principal.values()])


def inject(
    module: nn.Module, *, rank: int, alpha: float, dropout: float, targets: Sequence[str], seed: int
) -> Injection:
    """`install` for a plain LoRA of one size everywhere."""
    return install(module, NetworkSettings(rank=rank, alpha=alpha, dropout=dropout), targets, seed)


def install(
    module: nn.Module, settings: NetworkSettings, targets: Sequence[str], seed: int, scope: str = ""
) -> Injection:
    """Puts an adapter into every layer of `module` whose name ends with one of `targets`.

    It starts from a distribution fixed by `seed` and does nothing yet, so the model is what it was (with PiSSA: up to
    rounding). Only the adapter is trainable.

    Args:
        scope: tells networks of one base apart: with another, it starts and drops out otherwise.

    Raises:
        SettingsError: no layer has one of these names; a pattern fits none; PiSSA in half precision.
    """
    places, kind = layout(module, settings, targets), KINDS[settings.kind]
    everywhere = len(places) == len(called(module, targets))
    config = kind.config(settings, places, targets if everywhere else sorted(places))
    injection = Injection(module, config, settings, places, Dice(seed, scope=scope))
    try:
        kind.put(config, module, NAME)
    except (ValueError, TypeError) as error:
        injection.remove()  # what was put in before the fault
        raise no_layers(module, targets) from error
    found = dict(tuned(module))
    assert found.keys() == places.keys(), f"peft put layers into {found.keys() ^ places.keys()}"
    _start(injection, seed)
    for number, (_, layer) in enumerate(sorted(found.items())):
        layer.train(module.training)  # peft makes layers that think they are being trained
        if kind.measure:
            kind.measure(layer)
        kind.drop(layer, number, settings, injection.dice)
    if settings.init == "pissa":
        injection.split(largest)
    return injection


def _start(injection: Injection, seed: int) -> None:
    """Kaiming-uniform as peft's, but from (seed, name), so that it depends on nothing that ran before."""
    kind = KINDS[injection.settings.kind]
    for name, parameter in injection.parameters.items():
        parameter.requires_grad_(True)
        if parameter.dtype != torch.float64:
            parameter.data = parameter.data.float()
        part = _split(name)[1].partition(".")[0]
        if part in kind.zeros:
            parameter.data.zero_()
        elif part not in kind.kept:
            bound = parameter[0].numel() ** -0.5
            stream = f"{injection.dice.scope}lora-start-{name}"
            parameter.data = ((2 * even(seed, stream, 0, 0, parameter.shape) - 1) * bound).to(parameter)


def tuned(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """peft's layers inside a module, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer))


def _split(full: str) -> tuple[str, str]:
    """A parameter's name inside the model → its layer, and its name in files: `x.to_q.lora_A.default.weight` →
    `x.to_q`, `lora_A.weight`."""
    head, _, tail = full.rpartition(f".{NAME}")
    layer, _, part = head.rpartition(".")
    return layer, part if part == "lora_magnitude_vector" else part + tail


def _joined(layer: str, part: str) -> str:
    """The reverse of `_split`."""
    head, _, tail = part.partition(".")
    tail = "weight" if head == "lora_magnitude_vector" else tail
    return f"{layer}.{head}.{NAME}" + (f".{tail}" if tail else "")
