"""Rows of an adapter's layer: models whose own code computes q, k and v with one weight have one adapter there for three of
diffusers' layers. Splitting and joining are exact: rows of a low-rank product are the same product with fewer rows above."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

from adapt.errors import AdapterError
from adapt.formats.diag_oft import DiagOft
from adapt.formats.dora import Dora
from adapt.formats.glora import GLora
from adapt.formats.ia3 import Ia3
from adapt.formats.layer import Layer, shaped
from adapt.formats.loha import LoHa
from adapt.formats.lokr import LoKr
from adapt.formats.lora_weights import Pair
from adapt.formats.relative import Relative

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rows(Layer):
    """Rows of a layer that cannot be said as a layer of its kind: a Kronecker product cut inside a block.

    Attributes:
        whole: the layer.
        start, stop: its rows, of the weight's.
    """

    kind: ClassVar[str] = "rows of a lokr"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {}
    forms: ClassVar[tuple[frozenset[str], ...]] = ()
    whole: Layer
    start: int
    stop: int
    alpha: float = 1.0

    @property
    def rank(self) -> int:
        return self.whole.rank

    @property
    def scale(self) -> float:
        return self.whole.scale

    @property
    def size(self) -> tuple[int, int]:
        return self.stop - self.start, self.whole.size[1]

    def times(self, scale: float) -> Self:
        return replace(self, whole=self.whole.times(scale))

    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        return shaped(self.whole.delta()[self.start : self.stop], shape)

    def tensors(self) -> dict[str, Tensor]:
        return self.whole.tensors()

    def misfit(self) -> str | None:
        return self.whole.misfit()


def cut(layer: Layer, shares: Sequence[int]) -> list[Layer | None]:
    """A layer in parts, from top to bottom; None for a part that it does nothing to.

    Args:
        shares: heights of the parts, relative to each other.

    Raises:
        AdapterError: its height does not divide so, or it is a DoRA that measures input columns over all parts.
    """
    unit, left_over = divmod(layer.size[0], sum(shares))
    if left_over:
        raise AdapterError("a fused layer does not divide into its parts", given=f"{layer.size[0]} rows into {shares}")
    ends = [0]
    for share in shares:
        ends.append(ends[-1] + share * unit)
    spans = list(pairwise(ends))
    if isinstance(layer, Pair) and (ranks := _ranks(layer, spans)):
        return _unblocked(layer, spans, ranks)
    return [None if isinstance(layer, Pair) and _untouched(layer, *span) else rows_of(layer, *span) for span in spans]


def _untouched(layer: Pair, start: int, stop: int) -> bool:
    return not isinstance(layer, Dora) and bool(layer.up.any()) and not bool(layer.up[start:stop].any())


def _ranks(layer: Pair, spans: Sequence[tuple[int, int]]) -> list[int] | None:
    """Ranks of the parts where each has columns of its own (as `joined` makes it); None where they share them."""
    used = [layer.up[start:stop].flatten(1).any(0) for start, stop in spans]
    equal = [layer.rank // len(spans)] * len(spans)
    if _in_blocks(used, equal):
        return equal
    there = [number for number, columns in enumerate(used) if columns.any()]
    if len(there) < 2:
        return None
    starts = [0, *(int(used[number].nonzero()[0]) for number in there[1:]), layer.rank]
    ranks = [0] * len(spans)
    for number, (start, stop) in zip(there, pairwise(starts), strict=True):
        ranks[number] = stop - start
    return ranks if min(ranks) >= 0 and _in_blocks(used, ranks) else None


def _in_blocks(used: Sequence[Tensor], ranks: Sequence[int]) -> bool:
    """Whether each part uses its own columns only."""
    if sum(ranks) != len(used[0]):
        return False
    ends = [0]
    for rank in ranks:
        ends.append(ends[-1] + rank)
    return not any(bool(u[:a].any()) or bool(u[b:].any()) for u, (a, b) in zip(used, pairwise(ends), strict=True))


def _unblocked(layer: Pair, spans: Sequence[tuple[int, int]], ranks: Sequence[int]) -> list[Layer | None]:
    found: list[Layer | None] = []
    column = 0
    for (start, stop), rank in zip(spans, ranks, strict=True):
        part = rows_of(layer, start, stop)
        assert isinstance(part, Pair)
        columns = slice(column, column + rank)
        alpha = layer.alpha * rank / layer.rank
        own = replace(part, down=part.down[columns].contiguous(), up=part.up[:, columns].contiguous(), alpha=alpha)
        found.append(own if rank else None)
        column += rank
    return found


def rows_of(layer: Layer, start: int, stop: int) -> Layer:
    """The rows `start` to `stop` of what a layer does.

    Raises:
        AdapterError: a DoRA that measures input columns.
    """
    if isinstance(layer, Dora):
        if not layer.by_rows:
            raise AdapterError("a DoRA of input columns over fused layers cannot be taken apart")
        return replace(layer, up=layer.up[start:stop], magnitude=layer.magnitude[start:stop])
    if isinstance(layer, Pair):
        return replace(layer, up=layer.up[start:stop])
    if isinstance(layer, LoHa):
        if layer.t1 is None:
            return replace(layer, w1_a=layer.w1_a[start:stop], w2_a=layer.w2_a[start:stop])
        return replace(layer, w1_a=layer.w1_a[:, start:stop], w2_a=layer.w2_a[:, start:stop])
    if isinstance(layer, LoKr):
        block = layer.factors[1][0]
        if start % block == 0 and stop % block == 0:
            return _with_left(layer, _left(layer)[start // block : stop // block])
    if isinstance(layer, Rows):
        return replace(layer, start=layer.start + start, stop=layer.start + stop)
    return _rows_of_relative(layer, start, stop) if isinstance(layer, Relative) else Rows(layer, start, stop)


def _rows_of_relative(layer: Relative, start: int, stop: int) -> Layer:
    if isinstance(layer, GLora):
        return replace(layer, b1=layer.b1[start:stop])
    if isinstance(layer, Ia3):
        return layer.rows(start, stop)
    if type(layer) is DiagOft:
        block = layer.blocks.shape[1]
        if start % block == 0 and stop % block == 0:
            rescale = None if layer.rescale is None else layer.rescale[start:stop]
            return replace(layer, blocks=layer.blocks[start // block : stop // block], rescale=rescale)
    raise AdapterError(f"a {layer.kind} over fused layers turns rows of one into another, and cannot be taken apart")


def joined(parts: Sequence[Layer | None], shares: Sequence[int]) -> Layer:
    """The reverse of `cut`.

    LoRA: parts with the same A share it; others stand in blocks, and the rank is the sum of theirs.

    Raises:
        AdapterError: parts of several kinds or heights, a DoRA with a part missing, or LoKr with different right factors: no
            layer of the kind does what they do.
    """
    there = [part for part in parts if part is not None]
    kinds = {type(part) for part in there}
    units = {part.size[0] / share for part, share in zip(parts, shares, strict=True) if part is not None}
    if len(kinds) != 1 or len(units) != 1:
        raise AdapterError("layers that the format holds in one are of several kinds or do not fit")
    heights = [int(units.copy().pop() * share) for share in shares]
    if all(isinstance(part, Rows) for part in there):
        return _whole(there)
    if len(there) == 1 == len(parts):
        return there[0]
    if kinds == {Pair}:
        return _joined_pairs(parts, heights)
    if len(there) < len(parts):
        raise AdapterError(
            f"the format holds q, k and v in one layer, and the {there[0].kind} has only some of them",
            next="export the nearest plain LoRA: --nearest RANK",
        )
    joining: Mapping[type[Layer], Callable[[Any], Layer]] = {
        Dora: _joined_doras, LoHa: _joined_lohas, LoKr: _joined_lokrs, DiagOft: _joined_ofts, GLora: _joined_gloras,
        Ia3: _joined_factors,
    }  # fmt: skip
    if (kind := kinds.pop()) not in joining:
        raise AdapterError(
            f"a {there[0].kind} of several layers is none of them together", next="--nearest RANK --base BASE"
        )
    return joining[kind](there)


def _whole(parts: Sequence[Layer]) -> Layer:
    first = parts[0]
    assert isinstance(first, Rows)
    together = sum(part.size[0] for part in parts) == first.whole.size[0]
    if together and all(isinstance(p, Rows) and p.whole.equals(first.whole) for p in parts):
        return first.whole
    raise AdapterError("rows of different LoKr layers cannot be joined", next="export with --nearest RANK")


def _joined_pairs(parts: Sequence[Layer | None], heights: Sequence[int]) -> Pair:
    import torch

    pairs = [part for part in parts if isinstance(part, Pair)]
    first = pairs[0]
    ups = [_up_at(pair, first.scale) for pair in pairs]
    zeros = iter(ups)
    if all(pair.down.equal(first.down) for pair in pairs[1:]):
        rows = [
            next(zeros) if part is not None else first.up.new_zeros(height, *first.up.shape[1:])
            for part, height in zip(parts, heights, strict=True)
        ]
        return Pair(first.down, torch.cat(rows), first.alpha)
    rank, column = sum(pair.rank for pair in pairs), 0
    up = ups[0].new_zeros(sum(heights), rank, *first.up.shape[2:])
    row = 0
    for part, height in zip(parts, heights, strict=True):
        if isinstance(part, Pair):
            up[row : row + height, column : column + part.rank] = next(zeros)
            column += part.rank
        row += height
    return Pair(torch.cat([pair.down for pair in pairs]), up, first.scale * rank)


def _up_at(pair: Pair, scale: float) -> Tensor:
    """B as it is with another scale; untouched where the scale is the same."""
    return pair.up if pair.scale == scale else (pair.up.float() * (pair.scale / scale))


def _joined_doras(parts: Sequence[Dora]) -> Dora:
    import torch

    if not all(part.by_rows for part in parts):
        raise AdapterError("a DoRA of input columns cannot be joined with others")
    pair = _joined_pairs(parts, [part.size[0] for part in parts])
    return Dora(pair.down, pair.up, pair.alpha, torch.cat([part.magnitude for part in parts]))


def _joined_lohas(parts: Sequence[LoHa]) -> LoHa:
    import torch

    first = parts[0]
    if any(part.t1 is not None for part in parts):
        raise AdapterError("LoHa with cores cannot be joined", next="export with --nearest RANK")
    scales = [part.scale / first.scale for part in parts]
    lefts = [p.w1_a if s == 1 else p.w1_a * s for p, s in zip(parts, scales, strict=True)]
    rights = [part.w2_a for part in parts]
    if all(part.w1_b.equal(first.w1_b) and part.w2_b.equal(first.w2_b) for part in parts[1:]):
        return replace(first, w1_a=torch.cat(lefts), w2_a=torch.cat(rights))
    below = (torch.cat([part.w1_b for part in parts]), torch.cat([part.w2_b for part in parts]))
    rank = sum(part.rank for part in parts)
    above = [torch.block_diag(*side) for side in (lefts, rights)]  # type: ignore[no-untyped-call]
    return LoHa(above[0], below[0], above[1], below[1], first.scale * rank)


def _joined_lokrs(parts: Sequence[LoKr]) -> LoKr:
    import torch

    first = parts[0]
    same = [name for name in first.tensors() if name not in ("w1", "w1_a")]
    fitting = all(
        part.tensors().keys() == first.tensors().keys()
        and part.scale == first.scale
        and all(part.tensors()[name].equal(first.tensors()[name]) for name in same)
        for part in parts[1:]
    )
    if not fitting:
        raise AdapterError(
            "the format holds q, k and v in one layer, and a Kronecker product of three is none",
            next="export the nearest plain LoRA: --nearest RANK",
        )
    return _with_left(first, torch.cat([_left(part) for part in parts]))


def _joined_ofts(parts: Sequence[DiagOft]) -> DiagOft:
    import torch

    if len({part.blocks.shape[1] for part in parts}) > 1 or len({part.rescale is None for part in parts}) > 1:
        raise AdapterError("OFT of several block sizes cannot be joined", next="--nearest RANK --base BASE")
    lengths = [part.rescale for part in parts if part.rescale is not None]
    blocks = torch.cat([part.blocks for part in parts])
    return DiagOft(blocks, sum(part.alpha for part in parts), torch.cat(lengths) if lengths else None)


def _joined_gloras(parts: Sequence[GLora]) -> GLora:
    import torch

    first = parts[0]
    shared = ("a1", "a2", "b2")
    if any(p.alpha != first.alpha or not all(p.tensors()[n].equal(first.tensors()[n]) for n in shared) for p in parts):
        raise AdapterError("different GLoRAs cannot be joined into one", next="--nearest RANK --base BASE")
    return replace(first, b1=torch.cat([part.b1 for part in parts]))


def _joined_factors(parts: Sequence[Ia3]) -> Ia3:
    import torch

    first = parts[0]
    if len({part.by_columns for part in parts}) > 1 or (first.by_columns and not all(p.equals(first) for p in parts)):
        raise AdapterError("different (IA)³ cannot be joined into one", next="--nearest RANK --base BASE")
    if first.by_columns:
        return first
    return replace(first, factors=torch.cat([part.factors.flatten() for part in parts]))


def _left(layer: LoKr) -> Tensor:
    """The tensor with the rows of the left factor."""
    return layer.tensors()["w1" if layer.w1 is not None else "w1_a"]


def _with_left(layer: LoKr, rows: Tensor) -> LoKr:
    return replace(layer, w1=rows) if layer.w1 is not None else replace(layer, w1_a=rows)


def halves_swapped(layer: Layer) -> Layer:
    """The lower half of the rows above the upper one."""
    import torch

    middle = layer.size[0] // 2
    upper, lower = rows_of(layer, 0, middle), rows_of(layer, middle, layer.size[0])
    if isinstance(layer, Rows) or isinstance(upper, Rows):
        raise AdapterError("a LoKr over shift and scale cannot be reordered", next="export with --nearest RANK")
    moved = {
        name: torch.cat(
            [lower.tensors()[name], tensor], dim=1 if isinstance(layer, LoHa) and layer.t1 is not None else 0
        )
        for name, tensor in upper.tensors().items()
        if tensor.shape != layer.tensors()[name].shape
    }
    return replace(layer, **moved)  # type: ignore[type-var]
