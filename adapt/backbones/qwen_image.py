"""Qwen-Image: a flow transformer with two streams and Qwen2.5-VL as encoder (Wu et al. 2025, arXiv 2508.02324)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from adapt.backbones.base import Backbone, posterior
from adapt.backbones.flux import pack, unpack
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part
from conditioning.guidance.classifier_free import Normalise


class QwenImage(Backbone):
    """The autoencoder is a video's: a picture is one frame, normalised channel by channel."""

    family: ClassVar[str] = "qwen-image"
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 4.0
    sampling_steps: ClassVar[int] = 50

    @property
    def latent_channels(self) -> int:
        return int(self.pipeline.vae.config.z_dim)

    @property
    def normalise(self) -> Normalise:
        return by_tokens

    def schedule(self, steps: int, dims: Sequence[int]) -> Mapping[str, Any]:
        return {**super().schedule(steps, dims), "sigmas": np.linspace(1.0, 1 / steps, steps)}

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the latents, each (C, 1, 1)."""
        vae = self.pipeline.vae
        mean, std = (torch.tensor(vae.config[name]).view(-1, 1, 1) for name in ("latents_mean", "latents_std"))
        return mean.to(vae.device, vae.dtype), std.to(vae.device, vae.dtype)

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        vae, (mean, std) = self.pipeline.vae, self._statistics()
        found, spread = (x.squeeze(2) for x in posterior(vae.encode(pixels.to(vae.device, vae.dtype).unsqueeze(2))))
        return (found - mean) / std, spread / std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae, (mean, std) = self.pipeline.vae, self._statistics()
        frames: Tensor = vae.decode((latents.to(vae.dtype) * std + mean).unsqueeze(2), return_dict=False)[0]
        return frames.squeeze(2)

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, mask = self.pipeline.encode_prompt(
                list(captions), device=self.device, max_sequence_length=self.max_tokens
            )
        if mask is None:  # the pipeline says so when every token counts
            mask = tokens.new_ones(tokens.shape[:2], dtype=torch.long)
        return {"tokens": tokens, "mask": mask}  # (B, L, D), (B, L)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        (tokens, mask), (height, width) = self.tokens_of(condition), x_t.shape[-2:]
        packed: Tensor = self.denoiser(
            hidden_states=pack(x_t), timestep=t.to(x_t.dtype) / 1000, guidance=None, encoder_hidden_states=tokens,
            encoder_hidden_states_mask=mask, img_shapes=[[(1, height // 2, width // 2)]] * len(x_t), return_dict=False,
        )[0]  # fmt: skip
        return unpack(packed, height, width)


def by_tokens(guided: Tensor, conditional: Tensor) -> Tensor:
    """Every token of 2 × 2 latents as long as the conditional prediction's, as in the pipeline."""
    a, b = pack(guided), pack(conditional)
    height, width = guided.shape[-2:]
    longer = torch.linalg.vector_norm(b, dim=-1, keepdim=True) / torch.linalg.vector_norm(a, dim=-1, keepdim=True)
    return unpack(a * longer, height, width)
