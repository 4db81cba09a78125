"""How a picture is seen at one time: cut, resized, recoloured, mirrored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapt.data.augment import Variant
from adapt.data.buckets import Box, Size, crop_box
from adapt.data.decode import fit
from adapt.types import Sizes

__all__ = ["Sizes", "View"]


@dataclass(frozen=True)
class View:
    """How a picture is seen.

    Attributes:
        original: its width and height.
        size: width and height that it is brought to.
        variant: where it is cut, and its colours.
        flip: whether it is mirrored, after it is cut.
    """

    original: Size
    size: Size
    variant: Variant
    flip: bool

    @property
    def box(self) -> Box:
        """The part that is seen."""
        return crop_box(self.original, self.size, self.variant.at)

    @property
    def sizes(self) -> Sizes:
        """The same as numbers."""
        left, top, right, _ = self.box
        scale = (right - left) / self.size[0]
        beside = self.original[0] - right if self.flip else left
        return Sizes(self.original[::-1], (round(top / scale), round(beside / scale)), self.size[::-1])

    def facts(self, timed: bool = False) -> list[object]:
        """What its pixels depend on, besides the picture: equal for views that show the same.

        Args:
            timed: whether the variant's moment counts.
        """
        if timed and self.variant.moment != Variant().moment:
            return [*self.facts(), self.variant.moment]
        plain = Variant()
        same_part = self.box == crop_box(self.original, self.size, plain.at)
        if same_part and self.variant.colour == plain.colour:
            return [list(self.size), self.flip]
        return [list(self.size), self.flip, list(self.box), self.variant.colour.numbers()]

    def placed(self, image: Image.Image) -> NDArray[np.uint8]:
        """A picture of size `original`, cut, resized and mirrored: (height, width, 3) in [0, 255]."""
        pixels = fit(image, *self.size, self.variant.at)
        return pixels[:, ::-1] if self.flip else pixels

    def shown(self, image: Image.Image) -> NDArray[np.uint8]:
        """The same, recoloured: as it is seen."""
        return self.variant.colour.applied(self.placed(image))

    def area(self, mask: Image.Image, height: int, width: int) -> NDArray[np.float32]:
        """A mask of size `original` on a grid of latents: (height, width) in [0, 1], the mean over what each stands for."""
        area = mask.convert("F").resize((width, height), Image.Resampling.BOX, self.box)
        values = (np.asarray(area, np.float32) / 255).clip(0, 1)
        return values[:, ::-1] if self.flip else values
