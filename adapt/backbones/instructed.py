"""UNets that edit: InstructPix2Pix (Brooks et al. 2023, arXiv 2211.09800)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.backbones.identity import Shapes, widened
from conditioning import Part


class Instructed(Backbone):
    """Families with pipelines of that kind: the source's latents are more channels behind the noise's, zeros are their null, and
    they guide below the words."""

    def variants(self, config: Mapping[str, Any], shapes: Shapes) -> Iterable[tuple[Mapping[str, Any], Shapes]]:
        """Plain, edited, filled."""
        plain = self.latent_channels
        return widened(config, shapes, "conv_in", (plain, 2 * plain, 2 * plain + 1))

    @property
    def drops_source(self) -> bool:
        return self.edits

    @property
    def image_guidance_scale(self) -> float | None:
        return 1.5 if self.edits else None

    @property
    def source_key(self) -> str:
        return f"{self.pipeline_class} {'scaled' if self._scales else 'unscaled'}"

    @property
    def _scales(self) -> bool:
        """CosXL Edit is given latents with the autoencoder's scale."""
        return bool(getattr(self.pipeline, "is_cosxl_edit", False))

    @torch.no_grad()
    def encode_source(self, pixels: Tensor) -> Part:
        """The latents as the autoencoder says them, without its scale; CosXL Edit has it."""
        scale = 1.0 if self._scales else self.pipeline.vae.config.scaling_factor
        return {"latents": self.encode_media(pixels)[0] / scale}
