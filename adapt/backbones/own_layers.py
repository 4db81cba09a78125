"""Layers that classes change for their rows alone: a small LoRA that works where its class is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone
    from conditioning import ClassConditioner
    from conditioning.own_layers import Change


def put_on(backbone: Backbone, classes: ClassConditioner, scale: float = 1.0) -> Callable[[], None]:
    """From now on the denoiser's layers do what the classes of each row change in them, until what is returned is called.

    Rows of classes that change nothing, and rows of no class, are not touched: they are what they were, to the bit. Hooks stay
    on between predictions, because blocks that are checkpointed are computed again in the backward pass.

    Args:
        scale: 1 as trained.

    Raises:
        ValueError: a layer that the denoiser does not have, or one of another shape; no layer is changed then.
    """
    network = backbone.modules[backbone.denoiser_name]
    found = {name: (_layer(network, name), changes) for name, changes in classes.own_layers.by_layer().items()}
    for name, (layer, changes) in found.items():
        _require_fit(name, layer, changes)
    hooks = [
        layer.register_forward_hook(partial(_changed, backbone, [_near(each, backbone) for each in changes], scale))
        for layer, changes in found.values()
    ]

    def off() -> None:
        while hooks:
            hooks.pop().remove()

    return off


def changeable(layer: nn.Module) -> bool:
    """Whether a class can have a change of its own in it."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.groups == 1)


def _layer(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"a class changes {name}, and the base has no such layer") from error


def _require_fit(name: str, layer: nn.Module, changes: Sequence[Change]) -> None:
    """Weights in few bits have shapes of their own, which say nothing."""
    weight = getattr(layer, "weight", None)
    for _, down, up in changes:
        wanted = (len(up), *down.shape[1:])
        if weight is None or not changeable(layer) or (weight.is_floating_point() and tuple(weight.shape) != wanted):
            raise ValueError(f"a class changes {name} as if it were a layer of {wanted}")


def _near(change: Change, backbone: Backbone) -> Change:
    """Where the base computes, and in its precision, once and for all; what is learned stays the parameter that it is."""
    if change.down.requires_grad or change.up.requires_grad:
        return change
    where = backbone.device, backbone.dtype
    return change._replace(down=change.down.detach().to(*where), up=change.up.detach().to(*where))


def _changed(
    backbone: Backbone,
    changes: Sequence[Change],
    scale: float,
    layer: nn.Module,
    given: tuple[Tensor, ...],
    out: Tensor,
) -> Tensor | None:
    """What the layer says, and in rows of these classes what they add; None: as it was."""
    shares = backbone.asked.parts.get("class", {}).get("own") if backbone.asked is not None else None
    if shares is None:
        return None
    shares = shares.repeat_interleave(len(out) // len(shares), 0)  # frames of a clip, places of a picture as rows
    found = None
    for number, down, up in changes:
        rows = shares[:, number].nonzero().flatten()
        if not len(rows):
            continue
        added = _through(layer, given[0][rows], down, up)
        share = scale * shares[rows, number].view(-1, *[1] * (added.ndim - 1))
        found = (out if found is None else found).index_add(0, rows, (share * added).to(out.dtype))
    return found


def _through(layer: Any, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """x of these rows → up · down of it, placed as the layer places what it says."""
    down, up = down.to(x), up.to(x)
    if down.ndim == 2:
        return x @ down.T @ up.T
    return torch.einsum("br...,or->bo...", layer._conv_forward(x, down, None), up)
