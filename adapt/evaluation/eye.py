"""Looks at the pictures of every setting while they are there, and keeps what figures need."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from adapt.backbones import Backbone
from adapt.evaluation.features import Blocks, Inside, Scaling, texture
from adapt.evaluation.quality import Seen
from adapt.evaluation.retrieval import candidates, retrieved


class Eye:
    """Texture and the base's own features, and whether a picture shows its prompt.

    Args:
        backbone: without any adapter, whenever it looks.
        prompts: different ones.
        own: number of each picture's prompt.
        reference: pictures of the style; empty: none.
        height, width: of the drawings, in pixels.
    """

    def __init__(
        self, backbone: Backbone, prompts: Sequence[str], own: Sequence[int], reference: Sequence[Image],
        height: int, width: int,
    ) -> None:  # fmt: skip
        self.backbone, self.prompts, self.own, self.references = backbone, prompts, own, len(reference)
        self._inside = Inside(backbone, height, width)
        self._reference = self._blocks(reference, self._inside.latents(reference)) if reference else None
        self._drawn: list[Blocks] = []
        self._hits: list[Tensor] = []

    def look(self, pictures: Sequence[Image]) -> None:
        """At the pictures of one more setting; the base's come first."""
        latents = self._inside.latents(pictures)
        self._drawn.append(self._blocks(pictures, latents))
        if self.candidates > 1:
            self._hits.append(retrieved(self.backbone, latents, self.own, self.prompts))

    @property
    def candidates(self) -> int:
        """Prompts that a picture is compared with; 1: they cannot be told apart: there is only one, or the base has none."""
        return candidates(self.prompts) if self.backbone.null().parts else 1

    def seen(self) -> Seen:
        """Everything so far."""
        scaling = Scaling.fitted(self._reference or self._drawn[0])
        return Seen(
            torch.stack([scaling(blocks) for blocks in self._drawn]),
            torch.stack(self._hits) if self._hits else None,
            torch.tensor(self.own),
            None if self._reference is None else scaling(self._reference),
        )

    def _blocks(self, pictures: Sequence[Image], latents: Tensor) -> Blocks:
        return [*texture(pictures), self._inside(latents)]
