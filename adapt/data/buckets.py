"""Aspect buckets: sizes of about one area, so that a picture keeps its aspect and the pictures of a batch have one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]
"""Width and height in pixels."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the picture that is cut."""
CENTRE = (0.5, 0.5)
COARSE = 64
"""Pixels: the widest step between sizes that is chosen without being asked for (kohya's `bucket_reso_steps`)."""


@dataclass(frozen=True)
class Buckets:
    """The sizes that pictures are brought to at one resolution.

    Attributes:
        sizes: at least one.
    """

    sizes: tuple[Size, ...]

    def nearest(self, picture: Size) -> Size:
        """The size that cuts least off a picture; of equal ones the larger, then the wider."""
        return min(self.sizes, key=lambda size: (cut_by(picture, size), -size[0] * size[1], -size[0]))

    def cut_away(self, picture: Size) -> float:
        """Share of a picture that is cut off, 0 … 1."""
        return cut_by(picture, self.nearest(picture))

    def enlarged(self, picture: Size) -> float:
        """How many times a picture is enlarged; 1 and less: it is not."""
        width, height = self.nearest(picture)
        return max(width / picture[0], height / picture[1])

    @property
    def largest(self) -> Size:
        """The size of most pixels."""
        return max(self.sizes, key=lambda size: size[0] * size[1])


def square(side: int) -> Buckets:
    """One bucket: every picture is cut square."""
    return Buckets(((side, side),))


def buckets(resolution: int, step: int, aspect: float = 2.0) -> Buckets:
    """All sizes of an area of at most resolution², kohya's rule: no bucket needs more memory than the square.

    For every width that is a multiple of `step` the largest height that is one too, and each of these turned by 90°; sizes
    that lie within another are left out.

    Args:
        resolution: side of the square bucket in pixels; a multiple of `step`.
        step: pixels; sides are multiples of it.
        aspect: longest side in shortest ones, 1 or more.

    Returns:
        Buckets from the highest to the widest; the square is one of them.
    """
    found, tallest = {(resolution, resolution)}, resolution
    for width in range(resolution - step, 0, -step):
        height = min(resolution * resolution // width, int(aspect * width)) // step * step
        if height > tallest:
            found |= {(width, height), (height, width)}
            tallest = height
    return Buckets(tuple(sorted(found, key=lambda size: (size[0] / size[1], size))))


def default_step(resolution: int, scale_factor: int) -> int:
    """An eighth of the side, at most 64 pixels, as a multiple of the base's scale factor that divides the side."""
    wanted = max(scale_factor, min(COARSE, resolution // 8))
    return next(n for n in range(wanted // scale_factor * scale_factor, 0, -scale_factor) if resolution % n == 0)


def cut_by(picture: Size, size: Size) -> float:
    """Share of a picture outside of the largest part that has the aspect of `size`, 0 … 1."""
    one, other = picture[0] * size[1], picture[1] * size[0]
    return 1 - min(one, other) / max(one, other)


def cut_away(picture: Size, shelves: Sequence[Buckets]) -> float:
    """Share of a picture that is cut off at the resolution where it loses most."""
    return max(shelf.cut_away(picture) for shelf in shelves)


def crop_box(picture: Size, size: Size, at: tuple[float, float] = CENTRE) -> Box:
    """The largest part of a picture that has the aspect of `size`.

    Args:
        at: where it lies in the room that is left, across and down: 0 is left or top, 1 right or bottom.
    """
    scale = min(picture[0] / size[0], picture[1] / size[1])
    width, height = min(size[0] * scale, picture[0]), min(size[1] * scale, picture[1])  # rounding may lead outside
    left, top = (picture[0] - width) * at[0], (picture[1] - height) * at[1]
    return left, top, min(left + width, picture[0]), min(top + height, picture[1])
