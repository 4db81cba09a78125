"""What diffusers' UNets can be told beside latents, time and text: residuals of a ControlNet, states of an IP-Adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adapt.backbones.beside import Told
from conditioning import Part


def with_residuals(network: Any, part: Part, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Told:
    """What a ControlNet says of a control is added to the skips and the middle, times the strength of each row.

    Args:
        network: diffusers' `ControlNetModel`.
        part: `pixels` (B, 3, H, W), `strength` (B,).
        arguments, named: what the UNet is called with.
    """
    strength, (x_t, *rest), kind = part["strength"], arguments, network.dtype
    if not bool(strength.any()):
        return arguments, dict(named)
    takes = ("encoder_hidden_states", "added_cond_kwargs")
    told = {name: _as(named[name], kind) for name in takes if named.get(name) is not None}
    seen = x_t[:, : network.config.in_channels].to(kind)
    skips, middle = network(seen, *rest, controlnet_cond=part["pixels"].to(kind), return_dict=False, **told)
    *skips, middle = (x.to(x_t.dtype) * strength.view(-1, 1, 1, 1).to(x_t.dtype) for x in (*skips, middle))
    added = {"down_block_additional_residuals": tuple(skips), "mid_block_additional_residual": middle}
    return arguments, {**named, **added}


def with_states(part: Part, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Told:
    """What an IP-Adapter's attention looks at: `states` (B, 1, …)."""
    beside = {**(named.get("added_cond_kwargs") or {}), "image_embeds": [part["states"]]}
    return arguments, {**named, "added_cond_kwargs": beside}


def _as(given: Any, kind: torch.dtype) -> Any:
    """Tensors of the network's precision, also in a mapping."""
    if isinstance(given, Mapping):
        return {name: _as(each, kind) for name, each in given.items()}
    return given.to(kind) if isinstance(given, Tensor) and given.is_floating_point() else given
