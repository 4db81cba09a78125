"""Which class an optimizer's name stands for, and what the settings are called there.

AdamW is torch's. Adafactor is transformers' (Shazeer & Stern 2018, arXiv 1804.04235) and not torch's, which multiplies the
learning rate by the size of each weight: LoRA's B begins at 0 and would hardly move. The packages of the others are named in
the extra `optim` (`quant` for 8 bit). Any class of torch's kind can be named by its path.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from adapt.config import TrainSettings
from adapt.errors import SettingsError, did_you_mean

Groups = Sequence[tuple[Sequence[nn.Parameter], float]]
"""Parameters, and the factor of their learning rate."""


def _adam(settings: TrainSettings) -> dict[str, Any]:
    betas = (settings.adam_beta1, settings.adam_beta2)
    return {"betas": betas, "eps": settings.adam_epsilon, "weight_decay": settings.weight_decay}


def _decay(settings: TrainSettings) -> dict[str, Any]:
    return {"weight_decay": settings.weight_decay}


@dataclass(frozen=True)
class Family:
    """Attributes:
    path: of the class.
    arguments: what the settings mean there, beside `lr`.
    extra: of this package, that brings the class.
    fixed: arguments that are ours; `optimizer_args` may change them.
    """

    path: str
    arguments: Callable[[TrainSettings], dict[str, Any]]
    extra: str | None = None
    fixed: Mapping[str, Any] | None = None


FAMILIES = {
    # Loshchilov & Hutter 2019, arXiv 1711.05101; fused: one pass over hundreds of small matrices
    "adamw": Family("torch.optim.AdamW", _adam, fixed={"fused": True}),
    "adafactor": Family(
        "transformers.optimization.Adafactor", _decay, fixed={"scale_parameter": False, "relative_step": False}
    ),
    "prodigy": Family("prodigyopt.Prodigy", _adam, "optim"),  # Mishchenko & Defazio 2023, arXiv 2306.06101
    "schedulefree": Family("schedulefree.AdamWScheduleFree", _adam, "optim"),  # Defazio et al. 2024, arXiv 2405.15682
    "lion": Family("lion_pytorch.Lion", _decay, "optim"),  # Chen et al. 2023, arXiv 2302.06675
    # Jordan et al. 2024; with this adjustment (Liu et al. 2025, arXiv 2502.16982) the learning rate means what AdamW's does.
    "muon": Family("torch.optim.Muon", _decay, fixed={"adjust_lr_fn": "match_rms_adamw"}),
    "adamw8bit": Family("bitsandbytes.optim.AdamW8bit", _adam, "quant"),  # Dettmers et al. 2022, arXiv 2110.02861
    "lion8bit": Family("bitsandbytes.optim.Lion8bit", _decay, "quant"),
}


def make(settings: TrainSettings, groups: Groups) -> Optimizer:
    """The optimizer of these parameters.

    Raises:
        SettingsError: a package is missing; no such class; arguments or parameters that it does not take.
    """
    _require_fitting(settings, groups)
    kind, arguments = chosen(settings)
    try:
        with redirect_stdout(StringIO()):  # prodigy prints, and standard output is for results
            made = kind([{"params": list(each)} for each, _ in groups], lr=settings.learning_rate, **arguments)  # type: ignore[call-arg]
    except Exception as error:  # whatever a class says to its arguments
        raise SettingsError(
            f"optimizer={settings.optimizer} cannot be made", given=f"{arguments}: {type(error).__name__}: {error}"
        ) from error
    if has_modes(made) and settings.ema:
        raise SettingsError(
            f"optimizer={settings.optimizer} averages the weights itself", given=f"ema={settings.ema}", allowed="ema=0"
        )
    return made


def _require_fitting(settings: TrainSettings, groups: Groups) -> None:
    """What only the parameters tell."""
    if settings.optimizer == "prodigy" and len({factor for _, factor in groups}) > 1:
        factors = ", ".join(f"{factor:g}" for _, factor in groups)
        raise SettingsError(
            "prodigy finds one learning rate for all parameters", given=f"factors {factors}", allowed="1"
        )
    if settings.optimizer == "muon" and any(p.ndim != 2 for each, _ in groups for p in each):
        raise SettingsError(
            "muon takes matrices only, and LoRA of a convolution is none",
            given=f"targets={', '.join(settings.targets or ())}",
            next="give targets without convolutions, or another optimizer",
        )


def chosen(settings: TrainSettings) -> tuple[type[Optimizer], dict[str, Any]]:
    """The class, and its arguments beside parameters and learning rate.

    Raises:
        SettingsError: as `make`.
    """
    family = FAMILIES.get(settings.optimizer) or Family(settings.optimizer, _decay)
    kind = find(family.path, family.extra)
    taken, anything = parameters_of(kind)
    arguments = {**(family.fixed or {}), **family.arguments(settings)}
    if settings.optimizer == "prodigy":
        arguments["safeguard_warmup"] = settings.warms_up
    if "weight_decay" not in taken and not anything:
        _require_default(settings, "weight_decay", kind)
        del arguments["weight_decay"]
    unknown = [name for name in settings.optimizer_args if name not in taken and not anything]
    if unknown:
        near = did_you_mean(unknown[0], taken)
        raise SettingsError(
            f"{kind.__name__} takes no argument {unknown[0]}" + (f" (did you mean {near}?)" if near else ""),
            given=f"optimizer_args: {', '.join(settings.optimizer_args)}",
            allowed=", ".join(name for name in taken if name not in arguments or name in (family.fixed or {})),
        )
    return kind, {**arguments, **settings.optimizer_args}


def _require_default(settings: TrainSettings, name: str, kind: type[Optimizer]) -> None:
    if getattr(settings, name) not in (0, TrainSettings.model_fields[name].default):
        raise SettingsError(f"{kind.__name__} has no {name}", given=getattr(settings, name), allowed="leave it out")


def find(path: str, extra: str | None = None) -> type[Optimizer]:
    """The optimizer class `package.module.Class`.

    Raises:
        SettingsError: the package is not installed; it has no such class; it is no optimizer of torch's kind.
    """
    module, _, name = path.rpartition(".")
    try:
        with redirect_stdout(StringIO()):
            found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        missing = error.name or module
        install = f"pip install 'adapt-diffusion[{extra}]'" if extra else "check the name, or install what brings it"
        raise SettingsError(f"the optimizer needs {missing}, which is not there", given=path, next=install) from error
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        known = [n for n, c in vars(importlib.import_module(module)).items() if _is_optimizer(c)]
        near = did_you_mean(name, known)
        hint = f"did you mean {module}.{near}?" if near else None
        raise SettingsError("no optimizer class of that name", given=path, allowed=", ".join(known) or None, next=hint)
    return found


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer


def parameters_of(kind: type[Optimizer]) -> tuple[list[str], bool]:
    """Names of the arguments of a class after the parameters and `lr`, and whether it takes any name."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[2:]
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "lr"]
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def has_modes(optimizer: Optimizer) -> bool:
    """Whether it has `train()` and `eval()`: what the parameters hold while it trains is not what it has learned."""
    return all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))


def clip(parameters: Sequence[nn.Parameter], longest: float | None) -> float:
    """Shortens the gradient to `longest`, if that is given, and returns the norm that it had (not finite: nothing is to be
    applied)."""
    if longest is None:
        norm = float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    else:
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, longest))
    return norm if math.isfinite(norm) else math.nan
