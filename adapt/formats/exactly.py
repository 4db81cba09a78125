"""Kinds whose ΔW is a product of small matrices, as plain LoRA: the same ΔW, at a larger rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adapt.errors import AdapterError
from adapt.formats.dora import Dora
from adapt.formats.factorise import nearest
from adapt.formats.glora import GLora
from adapt.formats.layer import Layer
from adapt.formats.loha import LoHa
from adapt.formats.lokr import LoKr
from adapt.formats.lora_weights import Pair
from adapt.formats.rows import Rows, rows_of
from adapt.formats.vera import Vera

if TYPE_CHECKING:
    from torch import Tensor

    Halves = tuple[Tensor, Tensor]
    """(out, r) and (r, in × kernel): their product is a matrix."""


def as_lora(layer: Layer, weight: Tensor) -> Pair:
    """The LoRA with the same ΔW: of VeRA at its own rank, of LoHa at rank r², of LoKr at the product of both factors' ranks, of
    GLoRA at 2 r; at most as many as the weight has rows or columns (then by all singular values).

    Args:
        weight: that it belongs to; of kinds that add, only its shape is looked at.

    Raises:
        AdapterError: a kind of which no LoRA does exactly the same.
    """
    shape = weight.shape
    if isinstance(layer, Pair) and layer.kind == "lora":
        return layer
    if isinstance(layer, Rows):
        whole = as_lora(layer.whole, weight.new_empty((layer.whole.size[0], *shape[1:]), device="meta"))
        part = rows_of(whole, layer.start, layer.stop)
        assert isinstance(part, Pair)
        return part
    if isinstance(layer, LoHa | LoKr):
        up, down = _of_loha(layer) if isinstance(layer, LoHa) else _of_lokr(layer)
        if len(down) >= min(layer.size):
            return nearest(layer.delta(shape), min(layer.size))[0]
        return _pair(up * layer.scale, down, shape)
    if isinstance(layer, Vera):
        return Pair(
            layer.down[:, : shape[1]].float(),
            layer.outs.float()[:, None] * layer.up[: shape[0]] * layer.ranks,
            layer.rank,
        )
    if isinstance(layer, GLora):
        pair = layer.pair(weight.float())
        return pair if pair.rank < min(layer.size) else nearest(pair.delta(), min(layer.size))[0]
    raise AdapterError(
        f"what a {layer.kind} does to a weight is no product of small matrices, so no LoRA does exactly that",
        given=f"kind {layer.kind}",
        next="adapt export --nearest RANK" + ("" if layer.kind == "tlora" else ", or merge with --method svd"),
    )


def _pair(up: Tensor, down: Tensor, shape: Sequence[int]) -> Pair:
    rank, ones = len(down), [1] * (len(shape) - 2)
    return Pair(down.reshape(rank, *shape[1:]), up.reshape(shape[0], rank, *ones).contiguous(), float(rank))


def _of_loha(layer: LoHa) -> Halves:
    """(A B) ∘ (C D): row by row of A and C, column by column of B and D, every product of two ranks is one rank."""
    (a, b), (c, d) = _half(layer.w1_a, layer.w1_b, layer.t1), _half(layer.w2_a, layer.w2_b, layer.t2)
    return (a[:, :, None] * c[:, None]).flatten(1), (b[:, None] * d[None]).flatten(0, 1)


def _half(a: Tensor, b: Tensor, core: Tensor | None) -> Halves:
    import torch

    a, b = a.float(), b.float()
    if core is None:
        return a, b
    return a.T, torch.einsum("ij...,jr->ir...", core.float(), b).flatten(1)


def _of_lokr(layer: LoKr) -> Halves:
    """(A B) ⊗ (C D) = (A ⊗ C) (B ⊗ D)."""
    import torch

    (a, b), (c, d) = _left(layer), _right(layer)
    return torch.kron(a.contiguous(), c.contiguous()), torch.kron(b.contiguous(), d.contiguous())


def _left(layer: LoKr) -> Halves:
    if layer.w1_a is not None and layer.w1_b is not None:
        return layer.w1_a.float(), layer.w1_b.float()
    return _with_one(layer.left)


def _right(layer: LoKr) -> Halves:
    if layer.w2_a is not None and layer.w2_b is not None:
        return _half(layer.w2_a, layer.w2_b.flatten(1), layer.t2)
    return _with_one(layer.right)


def _with_one(whole: Tensor) -> Halves:
    """A whole factor as a product of the smaller rank: itself and the identity."""
    import torch

    rows, columns = whole.shape
    one = torch.eye(min(rows, columns), dtype=whole.dtype)
    return (one, whole) if rows <= columns else (whole, one)


def rank_kept(layer: Layer, pair: Pair) -> Layer:
    """A DoRA with another LoRA inside it; any other layer becomes that LoRA."""
    return replace(layer, down=pair.down, up=pair.up, alpha=pair.alpha) if isinstance(layer, Dora) else pair
