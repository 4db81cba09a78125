"""What a reference picture is told by: the family's own latents, seen from afar."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SIDE = 8
ENCODER = f"latents {SIDE} × {SIDE}"
"""How features are made, for the projector's file."""


def features_of(latents: Tensor) -> Tensor:
    """Scaled latents of one picture (C, h, w) → (C · 8 · 8,): means over 8 × 8 places, whatever its size and shape."""
    return F.adaptive_avg_pool2d(latents.float(), SIDE).flatten()
