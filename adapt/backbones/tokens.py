"""Tokens of several parts side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from conditioning import Part


class Tokens(NamedTuple):
    """What a denoiser attends to: `tokens` (B, L, D), and `mask` (B, L), 1 where a token counts; None: all do."""

    tokens: Tensor
    mask: Tensor | None


def fused(parts: Mapping[str, Part], first: str) -> Tokens:
    """The tokens of every part that has some, those of `first` before the others'. Tokens of a part without a mask all count."""
    told = [part for part in _in_order(parts, first) if "tokens" in part]
    if len(told) == 1:
        return Tokens(told[0]["tokens"], told[0].get("mask"))
    tokens = torch.cat([part["tokens"] for part in told], 1)
    if not any("mask" in part for part in told):
        return Tokens(tokens, None)
    return Tokens(tokens, torch.cat([_mask_of(part) for part in told], 1))


def _in_order(parts: Mapping[str, Part], first: str) -> list[Part]:
    return [parts[name] for name in sorted(parts, key=lambda name: (name != first, name))]


def _mask_of(part: Part) -> Tensor:
    tokens = part["tokens"]
    return part["mask"] if "mask" in part else tokens.new_ones(tokens.shape[:2], dtype=torch.long)
