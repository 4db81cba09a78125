"""Captions → the part `text`, by the frozen text encoder of a family."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from conditioning.condition import Part

TextEncoder = Callable[[Sequence[str]], Part]
"""Captions → tensors such as `tokens` (B, L, D), `mask` (B, L), `pooled` (B, P)."""


class TextConditioner:
    """Captions → tokens.

    Args:
        encoder: the family's encoder.
        null: what an empty condition is: `"empty"` encodes "" (Stable Diffusion), `"zeros"` fills with zeros
            (SDXL, Stable Audio).

    Raises:
        ValueError: for another `null`.
    """

    name = "text"

    def __init__(self, encoder: TextEncoder, null: str = "empty") -> None:
        if null not in ("empty", "zeros"):
            raise ValueError(f"null is 'empty' or 'zeros', not {null!r}")
        self.encoder, self.kind = encoder, null

    def encode(self, raw: Sequence[str]) -> Part:
        return self.encoder(list(raw))

    def null(self, rows: int) -> Part:
        part = self.encoder([""])
        if self.kind == "zeros":
            part = {key: x if key == "mask" else x.new_zeros(x.shape) for key, x in part.items()}
        return {key: x.expand(rows, *x.shape[1:]) for key, x in part.items()}
