"""LoRA inside a model: injected by peft for training, added to the weights for drawing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from adapt.data.plan import even
from adapt.errors import AdapterError, SettingsError
from adapt.formats import Pair

NAME = "default"


@dataclass
class Dice:
    """Where the run is, for dropout inside the model: its masks are functions of (seed, step, position, layer).

    Attributes:
        seed: the run's.
        step: optimizer step.
        positions: position of each row in the global batch.
    """

    seed: int = 0
    step: int = 0
    positions: Sequence[int] = ()


class PlannedDropout(nn.Module):
    """Dropout before a LoRA layer whose mask does not depend on processes, accumulation or what ran before.

    Args:
        p: share that is dropped, 0 ≤ p < 1.
        layer: number of the layer, so that layers differ.
        dice: the run's position; shared by all layers.
    """

    def __init__(self, p: float, layer: int, dice: Dice) -> None:
        super().__init__()
        self.p, self.layer, self.dice = p, layer, dice

    def forward(self, x: Tensor) -> Tensor:
        """x (B, …), one row a position → the same shape; the identity in eval mode."""
        if not self.training:
            return x
        if len(x) != len(self.dice.positions):
            raise ValueError(f"{len(x)} rows stand at {len(self.dice.positions)} positions of the batch")
        masks = [self._mask(position, x[0]) for position in self.dice.positions]
        return x * torch.stack(masks).to(x) / (1 - self.p)

    def _mask(self, position: int, row: Tensor) -> Tensor:
        return even(self.dice.seed, f"lora-dropout-{self.layer}", self.dice.step, position, row.shape) >= self.p


@dataclass(frozen=True)
class Injection:
    """LoRA layers inside one module.

    Attributes:
        module: the denoiser they were put into.
        config: peft's configuration.
        dice: to be moved before every forward when there is dropout.
    """

    module: nn.Module
    config: Any
    dice: Dice = field(default_factory=Dice)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every LoRA parameter by name, sorted; fp32 (fp64 in an fp64 model)."""
        named = sorted(self.module.named_parameters())
        return {name: p for name, p in named if ".lora_" in name}

    def pairs(self, values: Mapping[str, Tensor] | None = None) -> dict[str, Pair]:
        """The weights by module name; `values` stands in for the parameters (an average of them, say)."""
        from peft.tuners.lora import LoraLayer

        tensors = {name: p.detach().clone() for name, p in (values or self.parameters).items()}
        layers = [(name, layer) for name, layer in self.module.named_modules() if isinstance(layer, LoraLayer)]
        return {
            name: Pair(
                tensors[f"{name}.lora_A.{NAME}.weight"],
                tensors[f"{name}.lora_B.{NAME}.weight"],
                layer.lora_alpha[NAME],
            )
            for name, layer in sorted(layers, key=lambda item: item[0])
        }

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base as it was, inside the `with`."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        tuned = (layer for layer in self.module.modules() if isinstance(layer, BaseTunerLayer))
        layers = [layer for layer in tuned if not layer.disable_adapters]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def remove(self) -> None:
        """Takes the LoRA layers out again; the base's own layers and weights were never touched."""
        from peft.tuners.lora import LoraLayer

        for name, layer in list(self.module.named_modules()):
            if isinstance(layer, LoraLayer):
                parent, _, child = name.rpartition(".")
                setattr(self.module.get_submodule(parent), child, layer.base_layer)
        if hasattr(self.module, "peft_config"):
            del self.module.peft_config

    @torch.no_grad()
    def assign(self, values: Mapping[str, Tensor]) -> None:
        """Copies values into the parameters, bit for bit."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Other values in the parameters inside the `with` (the moving average, say)."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.assign(values)
        try:
            yield
        finally:
            self.assign(kept)


def inject(
    module: nn.Module, *, rank: int, alpha: float, dropout: float, targets: Sequence[str], seed: int
) -> Injection:
    """Puts LoRA (r, alpha) into every layer of `module` whose name ends with one of `targets`.

    A starts from a distribution fixed by `seed`, B from 0, so the model is what it was. Only LoRA is trainable.

    Raises:
        SettingsError: no layer has one of these names.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=dropout)
    try:
        inject_adapter_in_model(config, module, adapter_name=NAME)
    except ValueError as error:
        Injection(module, config).remove()  # what was put in before the fault
        raise _no_layers(module, targets) from error
    injection = Injection(module, config, Dice(seed))
    _start(injection, seed)
    if dropout:
        _plan_dropout(injection, dropout)
    return injection


def require_layers(module: nn.Module, targets: Sequence[str]) -> None:
    """Raises `SettingsError` when no layer's name ends with one of `targets`; injects nothing."""
    if not any(f".{name}".endswith(f".{target}") for name, _ in module.named_modules() for target in targets):
        raise _no_layers(module, targets)


def _no_layers(module: nn.Module, targets: Sequence[str]) -> SettingsError:
    ends = sorted({n.rpartition(".")[2] for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)})
    return SettingsError(
        "targets match no layer of the base, or one that takes no LoRA",
        given=", ".join(targets),
        allowed=f"ends of layer names such as {', '.join(ends)}",
    )


def _start(injection: Injection, seed: int) -> None:
    """Kaiming-uniform A as peft's, but from (seed, name), so that it depends on nothing that ran before."""
    for name, parameter in injection.parameters.items():
        parameter.requires_grad_(True)
        if parameter.dtype != torch.float64:
            parameter.data = parameter.data.float()
        if ".lora_A." in name:
            bound = parameter[0].numel() ** -0.5
            parameter.data = ((2 * even(seed, f"lora-start-{name}", 0, 0, parameter.shape) - 1) * bound).to(parameter)


def _plan_dropout(injection: Injection, p: float) -> None:
    from peft.tuners.lora import LoraLayer

    layers = [layer for _, layer in sorted(injection.module.named_modules()) if isinstance(layer, LoraLayer)]
    for number, layer in enumerate(layers):
        layer.lora_dropout[NAME] = PlannedDropout(p, number, injection.dice).train(injection.module.training)


class Applied:
    """LoRA added to a model's weights, with copies of the touched weights: `unload` restores them bit for bit.

    Works as a context manager.

    Args:
        modules: networks by component name.
        pairs: by `<component>.<layer>`.
        scale: 1 as trained.
    """

    def __init__(self, modules: Mapping[str, nn.Module], pairs: Mapping[str, Pair], scale: float) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []
        weights = {
            name: _weight(modules, name, pair) for name, pair in pairs.items()
        }  # all judged before one is touched
        with torch.no_grad():
            for name, weight in weights.items():
                self._kept.append((weight, weight.detach().clone()))
                delta = pairs[name].delta().to(weight.device)
                wide = torch.promote_types(weight.dtype, torch.float32)
                weight.copy_(weight.to(wide) + scale * delta)

    @torch.no_grad()
    def unload(self) -> None:
        """Puts the old weights back. Adapters come off in the reverse order in which they went on."""
        while self._kept:
            weight, old = self._kept.pop()
            weight.copy_(old)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()


def _weight(modules: Mapping[str, nn.Module], name: str, pair: Pair) -> Tensor:
    component, _, layer = name.partition(".")
    try:
        weight = modules[component].get_submodule(layer).get_parameter("weight")
    except AttributeError as error:
        raise AdapterError("the adapter was made for another base: it has no such layer", given=name) from error
    shape = (len(pair.up), *pair.down.shape[1:])
    if tuple(weight.shape) != shape:
        raise AdapterError(
            f"the adapter was made for another base: {name} has shape {tuple(weight.shape)}", given=shape
        )
    return weight
