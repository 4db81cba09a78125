"""Stable Diffusion 1.x and 2.x: a UNet with text by cross-attention (Rombach et al. 2022, arXiv 2112.10752)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class StableDiffusion(Backbone):
    """epsilon or v prediction, as the scheduler's configuration says."""

    family: ClassVar[str] = "stable-diffusion"
    pipeline_class: ClassVar[str] = "StableDiffusionPipeline"
    denoiser_name: ClassVar[str] = "unet"

    @property
    def resolution(self) -> int:
        return int(self.pipeline.unet.config.sample_size) * self.scale_factor

    @property
    def scale_factor(self) -> int:
        return int(self.pipeline.vae_scale_factor)

    @property
    def latent_channels(self) -> int:
        return int(self.pipeline.vae.config.latent_channels)

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        shift, scale = vae.config.get("shift_factor") or 0.0, vae.config.scaling_factor
        return (posterior.mean - shift) * scale, posterior.std * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        unscaled = latents.to(vae.dtype) / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0.0)
        pixels: Tensor = vae.decode(unscaled, return_dict=False)[0]
        return pixels

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, _ = self.pipeline.encode_prompt(list(captions), self.device, 1, False)
        return {"tokens": tokens}  # (B, L, D)

    def count_tokens(self, caption: str) -> tuple[int, int]:
        tokenizer = self.pipeline.tokenizer
        return len(tokenizer(caption, truncation=False, verbose=False).input_ids), int(tokenizer.model_max_length)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens = condition.parts["text"]["tokens"]
        prediction: Tensor = self.denoiser(x_t, t, encoder_hidden_states=tokens, return_dict=False)[0]
        return prediction
