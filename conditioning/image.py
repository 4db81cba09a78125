"""Reference pictures → the part `image`: tokens beside the text's, made of an encoder's features by a projector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conditioning.condition import Part
from conditioning.learned import LearnedConditioner, copied, load


class ImageConditioner(LearnedConditioner):
    """Tokens = null + up(gelu(down(features))): an IP-Adapter's projector (Ye et al. 2023, arXiv 2308.06721, section 3.2.2),
    whose tokens stand beside the text's. Features come in as tensors: which encoder made them is told by `encoder`.

    `up` starts at zero, so that every picture is null at first.

    Args:
        down: (H, F); up: (n · D, H); empty: the null that is learned (n, D).
        encoder: what the features are: a name for those who make them.

    Raises:
        ValueError: shapes that do not fit.
    """

    name = "image"

    def __init__(self, down: Tensor, up: Tensor, empty: Tensor, encoder: str) -> None:
        super().__init__()
        if empty.ndim != 2 or down.ndim != 2 or up.shape != (empty.numel(), len(down)):
            raise ValueError(f"projector and null do not fit: {[tuple(x.shape) for x in (down, up, empty)]}")
        self.encoder = encoder
        self.down = nn.Parameter(down.clone(), requires_grad=False)
        self.up = nn.Parameter(up.clone(), requires_grad=False)
        self.empty = nn.Parameter(empty.clone(), requires_grad=False)

    @staticmethod
    def new(features: int, empty: Tensor, encoder: str, *, width: int = 512, seed: int = 0) -> ImageConditioner:
        """One that has learned nothing: every picture is null.

        Args:
            features: numbers that a picture comes as.
            empty: what null starts as (n, D).
            width: of the layer between.
            seed: of `down`.
        """
        draw = torch.randn(width, features, generator=torch.Generator().manual_seed(seed))
        return ImageConditioner(draw / features**0.5, torch.zeros(empty.numel(), width), empty.float(), encoder)

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        return {"down": self.down, "up": self.up, "null": self.empty}

    def encode(self, raw: Sequence[Tensor | None]) -> Part:
        """One row a picture's features (F,); None is null.

        Raises:
            ValueError: features of another length.
        """
        wrong = {x.numel() for x in raw if x is not None} - {self.down.shape[1]}
        if wrong:
            raise ValueError(f"features of {sorted(wrong)} numbers; this projector takes {self.down.shape[1]}")
        told = [self.empty if x is None else self.empty + self._moved(x) for x in raw]
        return {"tokens": torch.stack(told)}

    def _moved(self, features: Tensor) -> Tensor:
        hidden = F.gelu(F.linear(features.flatten().to(self.down), self.down))
        return F.linear(hidden, self.up).view(self.empty.shape)

    def null(self, rows: int) -> Part:
        return {"tokens": self.empty.expand(rows, *self.empty.shape)}

    # ------------------------------------------------------------------------------------------------ files
    def state(self) -> dict[str, Tensor]:
        return copied(self.learned)

    def having(self, values: Mapping[str, Tensor]) -> ImageConditioner:
        held = {**self.state(), **copied(values)}
        return ImageConditioner(held["down"], held["up"], held["null"], self.encoder)

    def told(self) -> dict[str, Any]:
        return {"encoder": self.encoder}

    @staticmethod
    def load(folder: str | Path) -> ImageConditioner:
        """Reads what `save` wrote.

        Raises:
            ValueError: something else, damaged, or with values that are not finite.
        """
        return load(
            folder, ImageConditioner.__name__,
            lambda told, held: ImageConditioner(held["down"], held["up"], held["null"], str(told["encoder"])),
            "image projector",
        )  # fmt: skip
