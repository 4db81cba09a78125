"""The kinds of adapter that peft trains, in one table. Further kinds are further rows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adapt.config.network import NetworkSettings
from adapt.formats.tlora import LEAST
from adapt.lora.boft import put_boft
from adapt.lora.by_time import ActiveComponents, leave_out, orthonormal
from adapt.lora.dropout import Dice, ModuleDropout, PlannedDropout, RankDropout
from adapt.lora.layout import CONVOLUTIONS, Place

NAME = "default"
"""What peft calls the adapter inside a model."""


@dataclass(frozen=True)
class Kind:
    """Attributes:
    config: settings, layout and targets → peft's configuration.
    zeros: tensors that start from 0, so that the model is what it was; the others start from even numbers.
    kept: tensors that start as peft has them.
    drop: (layer, its number, settings, dice): puts the dropouts that are set into one of peft's layers.
    measure: what a layer takes from the base's weight once it has started, or None.
    put: (configuration, module, name): puts peft's layers into a module.
    shared: (one of peft's layers): tensors beside its parameters, which all layers share.
    """

    config: Callable[[NetworkSettings, Mapping[str, Place], Sequence[str]], Any]
    zeros: tuple[str, ...]
    drop: Callable[[Any, int, NetworkSettings, Dice], None]
    measure: Callable[[Any], None] | None = None
    kept: tuple[str, ...] = ()
    put: Callable[[Any, nn.Module, str], None] = field(default=lambda *given: _inject(*given))
    shared: Callable[[Any], dict[str, Tensor]] = field(default=lambda layer: {})


def _inject(config: Any, module: nn.Module, name: str) -> None:
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, module, adapter_name=name)


def _put_vera(config: Any, module: nn.Module, name: str) -> None:
    """peft injects no kind whose layers share something; the model that it wraps around the module is not needed further."""
    from peft.tuners.vera import VeraModel

    VeraModel(module, config, name)


def _projections(layer: Any) -> dict[str, Tensor]:
    return {"vera_A": layer.vera_A[NAME], "vera_B": layer.vera_B[NAME]}


# ------------------------------------------------------------------------------------------------------- configurations
def _lora(settings: NetworkSettings, places: Mapping[str, Place], targets: Sequence[str], dora: bool = False) -> Any:
    from peft import LoraConfig

    rank, alpha = _usual(places)
    return LoraConfig(
        r=rank, lora_alpha=alpha, use_rslora=settings.rslora, use_dora=dora, target_modules=list(targets),
        **_unusual(places, rank, alpha),
    )  # fmt: skip


def _loha(settings: NetworkSettings, places: Mapping[str, Place], targets: Sequence[str]) -> Any:
    from peft import LoHaConfig

    rank, alpha = _usual(places)
    return LoHaConfig(r=rank, alpha=alpha, target_modules=list(targets), **_unusual(places, rank, alpha))


def _lokr(settings: NetworkSettings, places: Mapping[str, Place], targets: Sequence[str]) -> Any:
    from peft import LoKrConfig

    rank, alpha = _usual(places)
    factor = -1 if settings.lokr_factor is None else settings.lokr_factor
    return LoKrConfig(
        r=rank, alpha=alpha, decompose_factor=factor, target_modules=list(targets), **_unusual(places, rank, alpha)
    )


def _oft(settings: NetworkSettings, places: Mapping[str, Place], targets: Sequence[str]) -> Any:
    from peft import OFTConfig

    return OFTConfig(
        r=0, oft_block_size=settings.rank, target_modules=list(targets), use_cayley_neumann=False, module_dropout=0.0
    )


def _boft(settings: NetworkSettings, places: Mapping[str, Place], targets: Sequence[str]) -> Any:
    from peft import BOFTConfig

    return BOFTConfig(
        boft_block_size=settings.rank, boft_n_butterfly_factor=settings.boft_factors, target_modules=list(targets)
    )


def _vera(settings: NetworkSettings, places: Mapping[str, Place], targets: Sequence[str]) -> Any:
    """The matrices are those of peft's default key: the same in every run, whatever its seed."""
    from peft import VeraConfig

    return VeraConfig(r=settings.rank, target_modules=list(targets))


def _undropped(layer: Any, number: int, settings: NetworkSettings, dice: Dice) -> None:
    """A rotation has no dropout: the settings refuse it."""


def _usual(places: Mapping[str, Place]) -> tuple[int, float]:
    """Rank and alpha of most layers."""
    (rank, alpha), _ = Counter((place.rank, place.alpha) for place in places.values()).most_common(1)[0]
    return rank, alpha


def _unusual(places: Mapping[str, Place], rank: int, alpha: float) -> dict[str, Any]:
    """Those of the others, by names that fit one layer each."""
    ranks = {_only(name): place.rank for name, place in places.items() if place.rank != rank}
    alphas = {_only(name): place.alpha for name, place in places.items() if place.alpha != alpha}
    return {"rank_pattern": ranks, "alpha_pattern": alphas}


def _only(name: str) -> str:
    return "^" + name.replace(".", r"\.")


# ------------------------------------------------------------------------------------------------------------- dropouts
def _drop_lora(layer: Any, number: int, settings: NetworkSettings, dice: Dice) -> None:
    """Inputs and modules before A, in peft's place for dropout; rank components behind A."""
    before = _before(number, settings, dice)
    if settings.module_dropout:
        before.append(ModuleDropout(settings.module_dropout, number, dice))
    if before:
        slot = before[0] if len(before) == 1 else nn.Sequential(*before)
        layer.lora_dropout[NAME] = slot.train(layer.training)
    if settings.rank_dropout:
        down = layer.lora_A[NAME]
        down.components = RankDropout(settings.rank_dropout, number, dice, _axis(down)).train(layer.training)
        down.register_forward_hook(lambda module, given, out: module.components(out))


def _drop_tlora(layer: Any, number: int, settings: NetworkSettings, dice: Dice) -> None:
    """As LoRA; and behind A, only the components of each row's time."""
    _drop_lora(layer, number, settings, dice)
    down = layer.lora_A[NAME]
    least = min(settings.least_rank, len(down.weight))
    layer.time_min_rank = torch.tensor([float(least)])
    leave_out(down, ActiveComponents(dice.clock, least, _axis(down)))


def _drop_lycoris(layer: Any, number: int, settings: NetworkSettings, dice: Dice) -> None:
    """peft's own module dropout asks a global generator, also when it is off; below 0 its answer never matters."""
    layer.module_dropout[NAME] = -1.0
    before = _before(number, settings, dice)
    behind: list[nn.Module] = []
    if settings.rank_dropout:
        behind.append(RankDropout(settings.rank_dropout, number, dice, _axis(layer.get_base_layer())))
    if settings.module_dropout:
        behind.append(ModuleDropout(settings.module_dropout, number, dice))
    if before or behind:
        layer.dropouts = nn.ModuleList([nn.Sequential(*before), nn.Sequential(*behind)]).train(layer.training)
        # What peft adds to the base's output is asked of this method, and of nothing else.
        layer._get_delta_activations = partial(_dropped, layer, layer._get_delta_activations)


def _dropped(layer: Any, plain: Callable[[str, Tensor], Tensor], name: str, x: Tensor) -> Tensor:
    before, behind = layer.dropouts
    out: Tensor = behind(plain(name, before(x)))
    return out


def _drop_vera(layer: Any, number: int, settings: NetworkSettings, dice: Dice) -> None:
    """Inputs and modules before A, in peft's place for dropout."""
    before = _before(number, settings, dice)
    if settings.module_dropout:
        before.append(ModuleDropout(settings.module_dropout, number, dice))
    if before:
        layer.vera_dropout[NAME] = nn.Sequential(*before).train(layer.training)


def _before(number: int, settings: NetworkSettings, dice: Dice) -> list[nn.Module]:
    return [PlannedDropout(settings.dropout, number, dice)] if settings.dropout else []


def _axis(layer: nn.Module) -> int:
    """Where the outputs of a layer stand."""
    return 1 if isinstance(layer, CONVOLUTIONS) else -1


# --------------------------------------------------------------------------------------------------------------- starts
def _lengths(layer: Any) -> None:
    """DoRA's magnitudes are the norms of W, in the precision in which they are trained and compared."""
    dora, weight = layer.lora_magnitude_vector[NAME], layer.get_base_layer().weight.detach()
    wide = weight.to(dora.weight.dtype)
    dora.weight.data = dora.get_weight_norm(wide, torch.zeros_like(wide), scaling=1.0)


KINDS: Mapping[str, Kind] = {
    "lora": Kind(_lora, ("lora_B",), _drop_lora),
    "dora": Kind(partial(_lora, dora=True), ("lora_B",), _drop_lora, _lengths, kept=("lora_magnitude_vector",)),
    "loha": Kind(_loha, ("hada_w2_b",), _drop_lycoris),
    "lokr": Kind(_lokr, ("lokr_w1", "lokr_w1_a"), _drop_lycoris),
    "oft": Kind(_oft, ("oft_R",), _undropped),
    "boft": Kind(_boft, ("boft_R",), _undropped, kept=("boft_s",), put=put_boft),
    "tlora": Kind(
        _lora,
        ("lora_B",),
        _drop_tlora,
        lambda layer: orthonormal(layer, NAME),
        shared=lambda layer: {LEAST: layer.time_min_rank},
    ),
    "vera": Kind(_vera, ("vera_lambda_b",), _drop_vera, kept=("vera_lambda_d",), put=_put_vera, shared=_projections),
}
"""By the setting `kind`."""
