"""Weaker versions of what draws: the base without adapters, adapters at less strength, earlier checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from adapt.adapter import Adapter
from adapt.backbones import Backbone
from adapt.errors import SettingsError
from adapt.formats import Layer
from adapt.lora.applied import place_of
from adapt.lora.side import Aside, Side
from adapt.lora.variant import Variant
from adapt.sampling.guidances import WEAKER, Named, share_of
from adapt.sampling.guided import BASE, weak_name
from adapt.sampling.request import Drawing, named_in
from conditioning import Condition, Predictor

Scaled = Sequence[tuple[Adapter, float]]


def weaker_of(backbone: Backbone, drawings: Iterable[Drawing], adapters: Scaled) -> dict[str, Predictor]:
    """The weaker predictors that these drawings need, by name. To be called on the bare base, before `adapters` go on.

    Raises:
        SettingsError: there is no adapter to compare with, or a weak one that is none.
        AdapterError: a weak adapter that cannot be read, or was made for another base.
    """
    asked = {named for drawing in drawings for named in named_in(drawing.guidance)}
    wanted = sorted((named for named in asked if named.name in WEAKER), key=str)
    return {
        BASE if named.name == "domain" else weak_name(named): _variant(
            backbone,
            _without(backbone.predict, _taught(adapters)) if named.name == "domain" else backbone.predict,
            _weak(named, adapters),
            adapters,
        )
        for named in wanted
    }


def _taught(adapters: Scaled) -> set[str]:
    """Parts of conditions that these adapters make."""
    return {part for adapter, _ in adapters for part in adapter.conditioners}


def _without(predict: Predictor, taught: set[str]) -> Predictor:
    """The base knows no such parts: what an adapter has learned to say of classes, say, is not told to it."""

    def base(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        parts = {name: part for name, part in condition.parts.items() if name not in taught}
        return predict(x_t, t, Condition(parts, condition.facts))

    return base


def bare_of(backbone: Backbone, adapters: Scaled) -> Predictor:
    """What the base predicts without these adapters, also while they are on it. To be called on the bare base."""
    return _variant(backbone, _without(backbone.predict, _taught(adapters)), [], adapters)


def _variant(backbone: Backbone, predict: Predictor, weak: Scaled, adapters: Scaled) -> Predictor:
    """The predictor with the adapters of `weak` alone, in weights and beside packed ones, whatever is on it."""
    values = values_of(backbone, weak, adapters)
    beside = packed_of(backbone, weak, adapters)
    return Aside(Variant(predict, values), beside) if beside else Variant(predict, values)


def packed_of(backbone: Backbone, weak: Scaled, adapters: Scaled) -> dict[nn.Module, list[tuple[Layer, float]]]:
    """The denoisers' touched layers whose weights are in few bits → the layers of `weak` beside them."""
    found: dict[nn.Module, list[tuple[Layer, float]]] = {}
    for number, (adapter, scale) in enumerate([*weak, *adapters]):
        for name, layer in _of_denoisers(backbone, adapter).items():
            place = place_of(backbone.modules, name, layer)
            if isinstance(place, Side):
                found.setdefault(place.module, []).extend([(layer, scale)] if number < len(weak) else [])
    return found


def _of_denoisers(backbone: Backbone, adapter: Adapter) -> dict[str, Layer]:
    components = tuple(f"{name}." for name in backbone.denoisers)
    return {name: layer for name, layer in adapter.layers().items() if name.startswith(components)}


def _weak(named: Named, adapters: Scaled) -> Scaled:
    """What is weaker: nothing at all, the same adapters at a share of their scales, or another one."""
    if not adapters:
        raise SettingsError(f"guidance {named.name} compares with the model without its adapter, and there is no adapter",
                            given=str(named), next="--adapter PATH")  # fmt: skip
    if named.name == "domain":
        return []
    share = share_of(named["weak"])
    if share is None:
        return [(Adapter.load(named["weak"]), 1.0)]
    return [(adapter, scale * share) for adapter, scale in adapters]


@torch.no_grad()
def values_of(backbone: Backbone, weak: Scaled, adapters: Scaled) -> dict[nn.Parameter, Tensor]:
    """The denoisers' touched weights, where they are whole, as they are with the adapters of `weak` alone.

    Args:
        weak: adapters and their scales.
        adapters: those that are applied now: what they touch is the base's own in the weaker model.
    """
    places = {
        name: place_of(backbone.modules, name, layer)
        for adapter, _ in [*adapters, *weak]
        for name, layer in _of_denoisers(backbone, adapter).items()
    }
    touched = {name: place for name, place in places.items() if isinstance(place, Tensor)}
    values = {name: weight.detach().clone() for name, weight in touched.items()}
    for adapter, scale in weak:
        adapter.check(backbone)
        for name, layer in adapter.layers().items():
            if name in values:
                values[name] = layer.merged(values[name], scale).to(values[name])
    return {touched[name]: value for name, value in values.items()}  # type: ignore[misc]
