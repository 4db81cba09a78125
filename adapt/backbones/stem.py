"""Where a denoiser takes its latents in: what a control adds there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from conditioning import Condition

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone

STEMS = ("conv_in", "pos_embed.proj", "patch_embed.proj")
"""First layers of UNets and of transformers that cut latents into patches by a convolution."""


class Stem(NamedTuple):
    """The layer that the noisy latents go through first.

    Attributes:
        layer: what is called, which may be an adapter's around it.
        convolution: the base's own.
    """

    layer: nn.Module
    convolution: nn.Conv2d


def stem_of(backbone: Backbone) -> Stem | None:
    """Where latents are taken in; None where the family has no such layer. Clips and sounds are told no controls."""
    if backbone.entry.medium != "picture":
        return None
    network = backbone.modules[backbone.denoiser_name]
    for name in STEMS:
        layer: Any = reduce(_child, name.split("."), network)
        own = getattr(layer, "base_layer", layer)
        if (
            isinstance(layer, nn.Module)
            and isinstance(own, nn.Conv2d)
            and own.in_channels in (backbone.latent_channels, backbone.config.get("in_channels"))
        ):
            return Stem(layer, own)
    return None


def _child(module: Any, name: str) -> Any:
    return getattr(module, name, None)


@contextmanager
def hinted(backbone: Backbone, condition: Condition) -> Iterator[None]:
    """The control's map on what the first layer says, inside the `with`; nothing where none is told."""
    hint = condition.parts.get("control", {}).get("map")
    stem = None if hint is None else stem_of(backbone)
    if hint is None or stem is None:
        yield
        return
    hook = stem.layer.register_forward_hook(partial(_plus, hint))
    try:
        yield
    finally:
        hook.remove()


def _plus(hint: Tensor, layer: nn.Module, given: object, found: Tensor) -> Tensor:
    return found + hint.to(found)
