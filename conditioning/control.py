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
    """Map = W ∗ z, z the control's pixels, as many of them a place as the latents have, from zero.

    z is the picture cut into squares of `places` × `places` pixels, which become channels (T2I-Adapter, Mou et al. 2023, arXiv
    2302.08453, section 3.2): nothing of it is lost, where an autoencoder that learned pictures blurs lines. With W₀ the
    denoiser's first layer, W₀ ∗ x + W ∗ z = [W₀, W] ∗ [x, z]: adding the map is concatenating z to the noisy latents, with a
    first layer that is wider by W, as in InstructPix2Pix (Brooks et al. 2023, arXiv 2211.09800, section 3.2) and control LoRAs;
    but the denoiser keeps its shape, so that it is any program's, and null is zero, the base itself to the bit.

    Args:
        weight: W (C₀, C, k, k).
        source: what the control is: `edges`, `colours`, `files`.
        stride, padding: of the denoiser's first layer.
        places: pixels a latent, along each side; 0: z are the control's latents (schema 1).
    """

    name = "control"

    def __init__(self, weight: Tensor, source: str, stride: int = 1, padding: int = 1, places: int = 0) -> None:
        super().__init__()
        if weight.ndim != 4:
            raise ValueError(f"the weight of a convolution has four dimensions: {tuple(weight.shape)}")
        if places and weight.shape[1] % places**2:
            raise ValueError(f"{weight.shape[1]} channels are no squares of {places} × {places} pixels")
        self.source, self.stride, self.padding, self.places = source, int(stride), int(padding), int(places)
        self.weight = nn.Parameter(weight.clone(), requires_grad=False)

    @staticmethod
    def new(
        shape: Sequence[int], source: str, stride: int = 1, padding: int = 1, places: int = 0
    ) -> ControlConditioner:
        """One that does nothing yet; `shape` (C₀, C, k, k)."""
        return ControlConditioner(torch.zeros(*shape), source, stride, padding, places)

    @property
    def channels(self) -> int:
        """Of what it is given."""
        return self.weight.shape[1] // (self.places**2 or 1)

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        return {"weight": self.weight}

    def encode(self, raw: Sequence[Tensor | None]) -> Part:
        """One row a control's pixels (C, H, W) in [0, 1], black being nothing, or its latents (C, h, w); all of one size; None is
        null.

        Raises:
            ValueError: of other channels, or of several sizes.
        """
        shapes = {tuple(z.shape) for z in raw if z is not None}
        if len(shapes) > 1 or any(shape[0] != self.channels for shape in shapes):
            kind = "pixels" if self.places else "latents"
            raise ValueError(f"controls are {kind} of one size and {self.channels} channels: {sorted(shapes)}")
        if not shapes:
            return self.null(len(raw))
        like = torch.zeros(shapes.pop()).to(self.weight)
        rows = torch.stack([like if z is None else z.to(self.weight) for z in raw])
        rows = F.pixel_unshuffle(rows, self.places) if self.places else rows
        return {"map": F.conv2d(rows, self.weight, stride=self.stride, padding=self.padding)}

    def null(self, rows: int) -> Part:
        """No map: one number a channel, which fits every size."""
        return {"map": self.weight.new_zeros(rows, len(self.weight), 1, 1)}

    # ------------------------------------------------------------------------------------------------ files
    def state(self) -> dict[str, Tensor]:
        return copied(self.learned)

    def having(self, values: Mapping[str, Tensor]) -> ControlConditioner:
        held = {**self.state(), **copied(values)}
        return ControlConditioner(held["weight"], self.source, self.stride, self.padding, self.places)

    @property
    def schema(self) -> int:
        """2 for pixels, which readers of the first would take for latents."""
        return 2 if self.places else 1

    def told(self) -> dict[str, Any]:
        own = {"places": self.places} if self.places else {}
        return {"source": self.source, "stride": self.stride, "padding": self.padding, **own}

    @staticmethod
    def load(folder: str | Path) -> ControlConditioner:
        """Reads what `save` wrote.

        Raises:
            ValueError: something else, damaged, or with values that are not finite.
        """
        return load(folder, ControlConditioner.__name__, _built, "control")


def _built(told: Mapping[str, Any], held: Mapping[str, Tensor]) -> ControlConditioner:
    where = int(told["stride"]), int(told["padding"]), int(told.get("places", 0))
    return ControlConditioner(held["weight"], str(told["source"]), *where)
