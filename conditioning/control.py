"""Control pictures (edges, colours …) → the part `control`: a map that is added where the denoiser takes its latents in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conditioning.condition import Part
from conditioning.learned import LearnedConditioner, copied, load


class ControlConditioner(LearnedConditioner):
    """Map = W ∗ z, z the control's latents, W a convolution like the denoiser's first, from zero.

    W₀ ∗ x + W ∗ z = [W₀, W] ∗ [x, z]: adding the map is concatenating the control's latents to the noisy ones, with a first
    layer that is wider by W, as in InstructPix2Pix (Brooks et al. 2023, arXiv 2211.09800, section 3.2) and control LoRAs; but the
    denoiser keeps its shape, so that it is any program's, and null is zero, the base itself to the bit.

    Args:
        weight: W (C₀, C, k, k).
        stride, padding: of the denoiser's first layer.
        source: what the control is: `edges`, `colours`, `files`.
    """

    name = "control"

    def __init__(self, weight: Tensor, source: str, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        if weight.ndim != 4:
            raise ValueError(f"the weight of a convolution has four dimensions: {tuple(weight.shape)}")
        self.source, self.stride, self.padding = source, int(stride), int(padding)
        self.weight = nn.Parameter(weight.clone(), requires_grad=False)

    @staticmethod
    def new(shape: Sequence[int], source: str, stride: int = 1, padding: int = 1) -> ControlConditioner:
        """One that does nothing yet; `shape` (C₀, C, k, k)."""
        return ControlConditioner(torch.zeros(*shape), source, stride, padding)

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        return {"weight": self.weight}

    def encode(self, raw: Sequence[Tensor | None]) -> Part:
        """One row a control's latents (C, h, w), all of one size; None is null.

        Raises:
            ValueError: latents of other channels, or of several sizes.
        """
        shapes = {tuple(z.shape) for z in raw if z is not None}
        if len(shapes) > 1 or any(shape[0] != self.weight.shape[1] for shape in shapes):
            raise ValueError(f"controls are latents of one size and {self.weight.shape[1]} channels: {sorted(shapes)}")
        if not shapes:
            return self.null(len(raw))
        like = torch.zeros(shapes.pop()).to(self.weight)
        rows = torch.stack([like if z is None else z.to(self.weight) for z in raw])
        return {"map": F.conv2d(rows, self.weight, stride=self.stride, padding=self.padding)}

    def null(self, rows: int) -> Part:
        """No map: one number a channel, which fits every size."""
        return {"map": self.weight.new_zeros(rows, len(self.weight), 1, 1)}

    # ------------------------------------------------------------------------------------------------ files
    def state(self) -> dict[str, Tensor]:
        return copied(self.learned)

    def having(self, values: Mapping[str, Tensor]) -> ControlConditioner:
        held = {**self.state(), **copied(values)}
        return ControlConditioner(held["weight"], self.source, self.stride, self.padding)

    def told(self) -> dict[str, Any]:
        return {"source": self.source, "stride": self.stride, "padding": self.padding}

    @staticmethod
    def load(folder: str | Path) -> ControlConditioner:
        """Reads what `save` wrote.

        Raises:
            ValueError: something else, damaged, or with values that are not finite.
        """
        return load(
            folder, ControlConditioner.__name__,
            lambda told, held: ControlConditioner(held["weight"], str(told["source"]), told["stride"], told["padding"]),
            "control",
        )  # fmt: skip
