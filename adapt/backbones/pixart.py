"""PixArt-α and Σ: diffusion transformers with T5 by cross-attention (Chen et al. 2023, arXiv 2310.00426; 2024, 2403.04692)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.quiet import quiet_libraries
from adapt.types import Sizes
from conditioning import Condition, Part


class PixArtAlpha(Backbone):
    """The network also predicts a variance, which is not trained here. α at 1024 px is told size and shape of its pictures."""

    family: ClassVar[str] = "pixart-alpha"
    guidance_scale: ClassVar[float] = 4.5
    sampling_steps: ClassVar[int] = 20

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, mask, _, _ = self.pipeline.encode_prompt(
                list(captions), False, device=self.device, max_sequence_length=self.max_tokens
            )
        return {"tokens": tokens, "mask": mask}  # (B, L, D), (B, L)

    def facts(self, sizes: Sequence[Sizes], guidance: float | None = None) -> Mapping[str, Tensor]:
        """`resolution` (B, 2), height and width, and `aspect_ratio` (B, 1), height / width; only where they are read."""
        if not self.modules[self.denoiser_name].use_additional_conditions:
            return {}
        told = [known.target for known in sizes]
        found = {"resolution": [[float(h), float(w)] for h, w in told], "aspect_ratio": [[h / w] for h, w in told]}
        return {name: torch.tensor(v, dtype=self.dtype, device=self.device) for name, v in found.items()}

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens, mask = self.tokens_of(condition)
        added = {name: condition.facts.get(name) for name in ("resolution", "aspect_ratio")}
        both: Tensor = self.denoiser(
            x_t, encoder_hidden_states=tokens, encoder_attention_mask=mask, timestep=t, added_cond_kwargs=added,

        return_dict=False,
        )[0]  # fmt: skip
        return both[:, : x_t.shape[1]]


class PixArtSigma(PixArtAlpha):
    """Longer captions, the autoencoder of Stable Diffusion XL, and nothing told of sizes."""

    family: ClassVar[str] = "pixart-sigma"
    full_precision: ClassVar[tuple[str, ...]] = ("vae",)
