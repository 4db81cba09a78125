"""What a denoiser sees in a picture: the means over places of what one of its middle blocks says.

Features of a frozen diffusion model tell content and style apart without any other network (Tang et al. 2023, arXiv 2306.03881,
which takes the second block of the decoder). It works on every family: of UNets the second block on the way up, of transformers
the block at two fifths of the depth.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone
    from conditioning import Condition


STACK = re.compile(r"(?!text_)\w*(blocks|layers)")
"""Of a transformer's children those that are blocks which pictures go through."""


def middle(denoiser: nn.Module) -> nn.Module:
    """The block that is listened to."""
    up = getattr(denoiser, "up_blocks", None)
    if isinstance(up, nn.ModuleList):
        return up[min(1, len(up) - 1)]
    stacks: list[Any] = [module for name, module in denoiser.named_children() if STACK.fullmatch(name)]
    longest: Any = max(reversed(stacks), key=len)  # of two as long the one behind, where streams have met
    block: nn.Module = longest[2 * len(longest) // 5]
    return block


@torch.no_grad()
def inside(backbone: Backbone, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """x_t (B, C, *dims), t (B,), B conditions → features (B, d), fp32 on the CPU."""
    heard: list[Any] = []
    blocks = [middle(network) for network in backbone.denoisers.values()]
    handles = [block.register_forward_hook(lambda module, given, said: heard.append(said)) for block in blocks]
    try:
        backbone.predict(x_t, t, condition)
    finally:
        for handle in handles:
            handle.remove()
    return _pooled(heard[-1]).float().cpu()


def _pooled(said: Any) -> Tensor:
    """Channels (B, C, *places) or tokens (B, L, D) → their means; of several tensors the largest (the picture's own tokens)."""
    tensors = [x for x in (said if isinstance(said, tuple) else (said,)) if isinstance(x, Tensor) and x.ndim > 2]
    x = max(tensors, key=Tensor.numel)
    return x.mean(1) if x.ndim == 3 else x.flatten(2).mean(2)
