"""Captions made of tags: their order shuffled behind a kept beginning, some left out.

A caption has a fixed number of variants, and variant k is a function of (seed, caption, k) alone. So all of them can be
encoded before step 1, the text encoder can leave, and a resumed run meets the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adapt.data.captions import holds


@dataclass(frozen=True)
class Tags:
    """How the tags of captions are varied.

    Attributes:
        seed: the run's.
        shuffle: whether their order changes.
        keep: so many first tags stay in front, always.
        dropout: probability that a tag that may move is left out, in [0, 1].
        variants: how many of each caption there are, 1 or more.
        separator: what stands between tags.
        fence: text that fences off what stays in front and at the end (kohya's `keep_tokens_separator`); a caption that
            holds it does not ask `keep`.
        trigger: tags that hold this word stay in front as well, before the others and besides `keep`.
    """

    seed: int
    shuffle: bool = True
    keep: int = 0
    dropout: float = 0.0
    variants: int = 8
    separator: str = ","
    fence: str | None = None
    trigger: str | None = None


@dataclass(frozen=True)
class Parts:
    """The tags of one caption: in front, free to move, at the end."""

    first: tuple[str, ...]
    free: tuple[str, ...]
    last: tuple[str, ...] = ()


def wordings(caption: str, tags: Tags) -> tuple[str, ...]:
    """The `tags.variants` variants of a caption, each to be drawn as often as another; some may be equal.

    They come in pairs of opposite orders: over an even number of them, every tag stands before every other one as often as
    behind it.
    """
    parts = parts_of(caption, tags)
    if not parts.free or not (tags.shuffle or tags.dropout):
        return (_joined((*parts.first, *parts.free, *parts.last), tags),) * tags.variants
    draws = _draws(tags.seed, caption, tags.variants, len(parts.free))
    return tuple(arranged(parts, tags, order, kept) for order, kept in draws)


def plain(caption: str, tags: Tags) -> str:
    """The caption in its own order with nothing left out, fences taken away."""
    if not tags.fence or tags.fence not in caption:
        return caption
    parts = parts_of(caption, tags)
    return _joined((*parts.first, *parts.free, *parts.last), tags)


def parts_of(caption: str, tags: Tags) -> Parts:
    """Which tags stay and which may move."""
    fenced = tags.fence is not None and tags.fence in caption
    pieces = [_split(piece, tags) for piece in (caption.split(tags.fence) if fenced else ["", caption])]
    first, middle, last = pieces[0], pieces[1], tuple(tag for piece in pieces[2:] for tag in piece)
    named = tuple(tag for tag in middle if tags.trigger and holds(tag, tags.trigger))
    rest, keep = tuple(tag for tag in middle if tag not in named), 0 if fenced else tags.keep
    return Parts((*first, *named, *rest[:keep]), rest[keep:], last)


def arranged(parts: Parts, tags: Tags, order: Sequence[float], kept: Sequence[float]) -> str:
    """One variant: free tags in the order of their draws, without those whose second draw lies below `dropout`.

    Args:
        order: even draws in [0, 1], one for each free tag.
        kept: as many again.
    """
    places = sorted(range(len(parts.free)), key=lambda i: order[i]) if tags.shuffle else range(len(parts.free))
    moved = (parts.free[i] for i in places if kept[i] >= tags.dropout)
    return _joined((*parts.first, *moved, *parts.last), tags)


def _draws(seed: int, caption: str, variants: int, count: int) -> Iterator[tuple[list[float], list[float]]]:
    """Two rows of even draws for each variant: those of variant k do not depend on how many there are."""
    digest = hashlib.sha256(f"{seed}/tags/{caption}".encode()).digest()
    key = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")]
    pairs = np.random.Generator(np.random.Philox(key=key)).random((-(-variants // 2), 3, count))
    for variant in range(variants):
        order, *kept = pairs[variant // 2]
        second = variant % 2
        yield (1 - order if second else order).tolist(), kept[second].tolist()


def _split(text: str, tags: Tags) -> tuple[str, ...]:
    return tuple(tag for part in text.split(tags.separator) if (tag := part.strip()))


def _joined(parts: Sequence[str], tags: Tags) -> str:
    return f"{tags.separator.strip()} ".join(parts)
