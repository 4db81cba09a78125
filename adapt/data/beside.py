"""How what bases are given beside the noise is made of pictures: what they were before, or they with a hole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from adapt.data.holes import Holes
from conditioning import Part


class Before(NamedTuple):
    """How what pictures were before is encoded.

    Attributes:
        key: what else than pixels and components its values depend on.
        encode: (1, 3, H, W) in [-1, 1] → the part `source`, one row.
        read: a caption and such pixels → what the text encoder makes of both; None: it does not see pictures.
    """

    key: str
    encode: Callable[[Tensor], Part]
    read: Callable[[Sequence[str], Tensor], Part] | None = None


class Holed(NamedTuple):
    """How pictures with holes are encoded.

    Attributes:
        key: as in `Before`.
        encode: (1, 3, H, W) in [-1, 1] and (1, 1, H, W), 1 in the hole → the part `source`, one row.
        holes: how holes are made of pictures without masks. A mask is its picture's only hole.
    """

    key: str
    encode: Callable[[Tensor, Tensor], Part]
    holes: Holes
