"""What a fine-tune made of one weight, as a layer of a kind: the nearest that has a closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from adapt.formats import Dora, Layer, LoKr
from adapt.formats.factorise import Keep, nearest

Decomposition = Callable[[Tensor, Tensor, Keep], tuple[Layer, Tensor]]
"""The weight before, after, and how many singular values → the layer and ‖what it leaves out‖² (a scalar)."""


def as_lora(before: Tensor, after: Tensor, keep: Keep) -> tuple[Layer, Tensor]:
    """The nearest LoRA of its rank to the difference (Eckart & Young 1936)."""
    return nearest(after - before, keep)


def as_dora(before: Tensor, after: Tensor, keep: Keep) -> tuple[Layer, Tensor]:
    """The lengths of output rows as the fine-tune has them, exactly, and the LoRA that turns rows there: what only stretches
    a row costs no rank."""
    w, end = before.flatten(1), after.flatten(1)
    along = (w * end).sum(1) / end.square().sum(1).clamp(
        min=1e-30
    )  # the point on each row's new line nearest to the old row
    along = torch.where(torch.cosine_similarity(w, end, dim=1) > 0.5, along, 1.0)  # turned far away: the new row itself
    pair, _ = nearest((along[:, None] * end - w).reshape(before.shape), keep)
    lengths = end.norm(dim=1).reshape(-1, *[1] * (after.ndim - 1))
    layer = Dora(pair.down, pair.up, pair.alpha, lengths)
    return layer, (layer.merged(before, 1.0) - after).square().sum()


def as_lokr(before: Tensor, after: Tensor, keep: Keep) -> tuple[Layer, Tensor]:
    """The nearest Kronecker product (Van Loan & Pitsianis 1993), its factors cut as LyCORIS and peft cut them. The larger one is
    itself a product where the rank that is kept makes it smaller so."""
    delta = after - before
    (a, b), (c, d), kernel = factors(delta.shape[0]), factors(delta.shape[1]), tuple(delta.shape[2:])
    parts = (
        delta.reshape(a, b, c, d, -1).transpose(1, 2).reshape(a * c, -1)
    )  # (a c, b d kernel): of rank 1 if it is one
    u, s, v = torch.linalg.svd(parts, full_matrices=False)
    left, right = s[0].sqrt() * u[:, 0].reshape(a, c), s[0].sqrt() * v[0].reshape(b, d, *kernel)
    inside, _ = nearest(right, keep)
    if kernel or inside.rank * (b + d) >= b * d:
        layer = LoKr(alpha=1.0, w1=left.contiguous(), w2=right.contiguous())
    else:
        layer = LoKr(alpha=inside.alpha, w1=left.contiguous(), w2_a=inside.up, w2_b=inside.down)
    return layer, (layer.delta(delta.shape) - delta).square().sum()


def factors(size: int) -> tuple[int, int]:
    """The two whole numbers nearest to each other whose product this is, the smaller first."""
    first = next(n for n in range(int(size**0.5), 0, -1) if size % n == 0)
    return first, size // first


DECOMPOSITIONS: Mapping[str, Decomposition] = {"lora": as_lora, "dora": as_dora, "lokr": as_lokr}
NO_FORM = {
    "loha": "the nearest product of two LoRAs entry by entry has no closed form; it is trained, not extracted",
    "oft": "no rotation of its inputs turns one weight into another in general",
    "boft": "no rotation of its inputs turns one weight into another in general",
    "vera": "its two matrices are random, and two vectors between them say no difference in general",
    "tlora": "two bases differ in the same way at every time",
}
