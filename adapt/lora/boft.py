"""peft's BOFT without its CUDA extension: several factors on every machine, and nothing is compiled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class PlainBlocks:
    """What peft asks its extension for, in torch's own words. peft compiles one at the first layer that it makes (and tries again
    at each when that fails), and makes one factor of several where it cannot."""

    def forward(self, blocks: Tensor) -> list[Tensor]:
        """(m, n, b, b) → [(m, n b, n b)] with the blocks along the diagonal."""
        return [torch.stack([torch.block_diag(*each) for each in blocks])]  # type: ignore[no-untyped-call]

    def backward(self, grad: Tensor, blocks: Tensor) -> list[Tensor]:
        """The gradients of the blocks [(m, n, b, b)]."""
        m, n, b, _ = blocks.shape
        return [grad.view(m, n, b, n, b).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).contiguous()]


def without_extension() -> None:
    """peft uses `PlainBlocks` from here on, unless its extension is there already."""
    from peft.tuners.boft import layer

    if layer._FBD_CUDA is None:
        layer._FBD_CUDA = PlainBlocks()


def put_boft(config: Any, module: torch.nn.Module, adapter_name: str) -> None:
    """`inject_adapter_in_model` for BOFT."""
    from peft import inject_adapter_in_model

    without_extension()
    inject_adapter_in_model(config, module, adapter_name=adapter_name)
