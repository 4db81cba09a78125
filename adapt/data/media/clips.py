"""Clips: so many frames at the base's rate, cut and resized as pictures are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import PIL

from adapt.data.buckets import Size
from adapt.data.decode import VERSION, colour_of
from adapt.data.likeness import difference_hash, sharpness
from adapt.data.look import Look
from adapt.data.media.frames import at_rate, av, pieces, read
from adapt.data.media.pictures import about_size, require_large
from adapt.data.picture import CLIPS, EXTENSIONS
from adapt.errors import DataError
from adapt.medium import Medium

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.data.view import View


class Clips:
    """See `Reader`. A base that is asked for clips of one frame takes pictures as well.

    Raises:
        DataError: PyAV is not installed.
    """

    noun, same, timed = "clips", "shows the same frames", True

    def __init__(self, medium: Medium, background: str) -> None:
        colour_of(background)
        self.medium, self.background = medium, background
        self.extensions = (*CLIPS, *(EXTENSIONS if medium.frames == 1 else ()))
        self.facts: list[object] = ["video", VERSION, av().__version__, PIL.__version__, background,
                                    medium.frames, medium.fps]  # fmt: skip

    def look(self, data: bytes, file: str) -> Look:
        """See `Reader.look`."""
        frames, times = read(data, self.background)
        size, wanted = frames[0].size, self.medium.frames
        require_large(size)
        if (there := len(at_rate(times, self.medium.fps))) < wanted:
            raise DataError(
                f"is too short: {there} frames at {self.medium.fps:g} a second", allowed=f"{wanted} or more",
                next="remove it, or train with fewer frames",
            )  # fmt: skip
        digest = hashlib.sha256(f"{size} {times}".encode())
        for piece in pieces(frames):
            digest.update(piece)
        middle = frames[len(frames) // 2]
        return Look(digest.hexdigest(), size, (), False, difference_hash(middle), sharpness(middle), times[-1], file)

    def about(self, look: Look) -> Iterator[tuple[str, str]]:
        """See `Reader.about`."""
        yield from about_size(look.size, self.medium.side)
        if self.medium.frames > 1 and look.seconds > 2 * self.medium.seconds:
            yield (
                "long",
                f"is {look.seconds:.1f} s: {self.medium.seconds:.1f} s of it are used, others with crop=random",
            )

    def size_of(self, data: bytes) -> Size:
        """See `Reader.size_of`."""
        return read(data, self.background)[0][0].size

    def row(self, data: bytes, view: View) -> Tensor:
        """See `Reader.row`: (3, frames, H, W)."""
        import torch

        frames, times = read(data, self.background)
        numbers, wanted = at_rate(times, self.medium.fps), self.medium.frames
        first = int((len(numbers) - wanted) * view.variant.moment)
        shown = np.stack([view.placed(frames[n]) for n in numbers[first : first + wanted]])  # (T, H, W, 3)
        flat = view.variant.colour.applied(shown.reshape(-1, shown.shape[2], 3)).reshape(shown.shape)
        return torch.from_numpy(np.ascontiguousarray(flat.transpose(3, 0, 1, 2))).float() / 127.5 - 1.0
