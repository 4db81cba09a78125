"""Starting from an adapter that is there already: its weights bit for bit, or the nearest ones of another rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adapt.config.network import FACTORS_ONLY, NetworkSettings
from adapt.errors import SettingsError
from adapt.formats import Dora, Layer, Pair
from adapt.formats.factorise import nearest
from adapt.lora.injection import Injection
from adapt.lora.layout import Place


@dataclass(frozen=True)
class WarmStart:
    """What became of the adapter that a run starts from.

    Attributes:
        copied: layers taken bit for bit.
        refactored: layers taken as the nearest of this run's rank.
        new: layers of this run that it does not have.
        lost: ‖what was left out‖ / ‖ΔW‖ over the refactored layers.
    """

    copied: int
    refactored: int
    new: int
    lost: float

    def __str__(self) -> str:
        taken = [f"{self.copied} layers copied"] if self.copied else []
        if self.refactored:
            taken.append(
                f"{self.refactored} layers refactored, which leaves out {100 * self.lost:.2g} % of what they did"
            )
        return ", ".join([*taken, *([f"{self.new} layers start new"] if self.new else [])])


def judge(layers: Mapping[str, Layer], places: Mapping[str, Place], settings: NetworkSettings) -> None:
    """Whether a run of these settings can start from these layers; changes nothing.

    Raises:
        SettingsError: layers that are not trained; another kind, rank or strength without `init_resize`, or with it where no
            nearest one is defined.
    """
    if strange := [name for name in layers if name not in places]:
        raise SettingsError(
            f"init_from has {len(strange)} layers that this run does not train: they would be lost",
            given=", ".join(strange[:3]),
            next=f"targets=[{', '.join(sorted({name.rpartition('.')[2] for name in layers}))}]",
        )
    for name, layer in layers.items():
        if (fault := _fault(layer, places[name], settings)) is None:
            continue
        if not settings.init_resize:
            raise SettingsError(
                f"init_from does not fit: {name} is {fault}", next=f"{_as_the_file(layers)}, or init_resize=true"
            )
        if settings.kind in FACTORS_ONLY or (settings.kind == "dora") != (layer.kind == "dora"):
            raise SettingsError(
                f"init_from does not fit: {name} is {fault}",
                allowed="init_resize makes LoRA of anything but DoRA, and DoRA of DoRA",
            )


def begin(injection: Injection, layers: Mapping[str, Layer]) -> WarmStart:
    """Puts the layers into the injection's parameters; layers that are not named stay as they are.

    Raises:
        SettingsError: as `judge`; tensors of another shape; nothing is changed then.
    """
    settings, places, own = injection.settings, injection.places, injection.layers()
    judge(layers, places, settings)
    other = {name for name, layer in layers.items() if _fault(layer, places[name], settings)}
    found = {
        name: _refactored(layer, own[name], injection.shape(name)) for name, layer in layers.items() if name in other
    }
    injection.take({name: found[name].layer if name in other else layer for name, layer in layers.items()})
    lost, whole = (sum(float(getattr(r, what)) for r in found.values()) for what in ("lost", "whole"))
    share = math.sqrt(lost / whole) if whole else 0.0
    return WarmStart(len(layers) - len(other), len(other), len(places) - len(layers), share)


@dataclass(frozen=True)
class _Refactored:
    """A layer in this run's shapes; ‖what was left out‖² and ‖ΔW‖²."""

    layer: Layer
    lost: Tensor
    whole: Tensor


def _refactored(layer: Layer, own: Layer, shape: Sequence[int]) -> _Refactored:
    """The nearest LoRA of our rank; directions that the other did not have start as LoRA does: A fresh, B from 0."""
    assert isinstance(own, Pair), "judged"
    delta = layer.delta(shape)
    pair, lost = nearest(delta, own.rank)
    share, rank = own.scale**0.5, pair.rank
    down, up = own.down.clone(), torch.zeros_like(own.up)
    down[:rank], up[:, :rank] = pair.down / share, pair.up / share
    ours = replace(own, down=down, up=up)
    if isinstance(ours, Dora) and isinstance(layer, Dora):
        ours = replace(ours, magnitude=layer.magnitude)
    return _Refactored(ours, lost, delta.square().sum())


def _fault(layer: Layer, place: Place, settings: NetworkSettings) -> str | None:
    """What of this layer is not as the run has it, or None."""
    scale = place.alpha / (place.rank**0.5 if settings.rslora else place.rank)
    if layer.kind != settings.kind:
        return f"a {layer.kind}, not a {settings.kind}"
    if layer.rank not in (0, place.rank):
        return f"of rank {layer.rank}, not {place.rank}"
    if not math.isclose(layer.scale, scale, rel_tol=1e-6):
        return f"{layer.scale:g} times B A, not {scale:g} times"
    return None


def _as_the_file(layers: Mapping[str, Layer]) -> str:
    """The settings with which a run is like the file."""
    kind = next(iter(layers.values())).kind
    ranks, scales = (
        {layer.rank for layer in layers.values()} - {0},
        {round(layer.scale, 9) for layer in layers.values()},
    )
    if len(ranks) == len(scales) == 1:
        rank, scale = ranks.pop(), scales.pop()
        return f"kind={kind} rank={rank} alpha={scale * rank:g}"
    return f"kind={kind} with the file's ranks and alphas by rank_pattern and alpha_pattern"
