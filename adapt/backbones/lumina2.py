"""Lumina-Image 2.0: one transformer over text and picture, Gemma as encoder (Qin et al. 2025, arXiv 2503.21758)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part
from conditioning.guidance.arithmetic import Normalise


class Lumina2(Backbone):
    """Its time runs from noise (0) to picture (1), and it predicts picture - noise. Captions follow the pipeline's system
    prompt; the null is bare."""

    family: ClassVar[str] = "lumina2"
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 4.0

    @property
    def scale_factor(self) -> int:
        # The pipeline says 8, whatever its autoencoder does.
        return int(2 ** (len(self.pipeline.vae.config.block_out_channels) - 1))

    @property
    def normalise(self) -> Normalise:
        return by_rows

    def schedule(self, steps: int, dims: Sequence[int]) -> Mapping[str, Any]:
        return {**super().schedule(steps, dims), "sigmas": np.linspace(1.0, 1 / steps, steps)}

    def encode_text(self, captions: Sequence[str]) -> Part:
        system = self.pipeline.system_prompt
        with quiet_libraries():
            tokens, mask = self.pipeline._get_gemma_prompt_embeds(
                [f"{system} <Prompt Start> {caption}" if caption else "" for caption in captions],
                device=self.device, max_sequence_length=self.max_tokens,
            )  # fmt: skip
        return {"tokens": tokens, "mask": mask}  # (B, L, D), (B, L)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens, mask = self.tokens_of(condition)
        towards_the_picture: Tensor = self.denoiser(
            hidden_states=x_t, timestep=1 - t.to(x_t.dtype) / 1000, encoder_hidden_states=tokens,
            encoder_attention_mask=mask, return_dict=False,
        )[0]  # fmt: skip
        return -towards_the_picture


def by_rows(guided: Tensor, conditional: Tensor) -> Tensor:
    """Every row of every channel as long as the conditional prediction's, as in the pipeline."""
    wanted: Tensor = torch.linalg.vector_norm(conditional, dim=-1, keepdim=True)
    found: Tensor = torch.linalg.vector_norm(guided, dim=-1, keepdim=True)
    return guided * (wanted / found)
