"""Stable Audio Open: sounds by a transformer over latents in time (Evans et al. 2024, arXiv 2407.14358)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.backbones.media import posterior
from adapt.medium import Medium
from adapt.objectives import Loss, Objective, TimeSampling, Weighting
from adapt.objectives.trigonometric import Trigonometric
from adapt.quiet import quiet_libraries
from adapt.types import Sizes
from conditioning import Condition, Part


class StableAudio(Backbone):
    """Which seconds of how long a sound are heard is a fact of the condition: a token each, and a part of the time's embedding.

    The null is zeros, the seconds' tokens with it: `told` says row by row whether they are there.
    """

    family: ClassVar[str] = "stable-audio"
    guidance_scale: ClassVar[float] = 7.0
    sampling_steps: ClassVar[int] = 100

    @property
    def scale_factor(self) -> int:
        return int(self.pipeline.vae.hop_length)

    @property
    def latent_channels(self) -> int:
        return int(self.config["in_channels"])

    @property
    def medium(self) -> Medium:
        vae = self.pipeline.vae.config
        return Medium(
            "sound", vae.audio_channels, side=self.resolution, scale=self.scale_factor, rate=int(vae.sampling_rate)
        )

    def latent_shape(self, *dims: int) -> tuple[int, ...]:
        return (self.latent_channels, dims[-1] // self.scale_factor)

    @property
    def null_kind(self) -> str:
        return "zeros"

    def objective(
        self,
        sampling: TimeSampling | None = None,
        weighting: Weighting | None = None,
        loss: Loss | None = None,
        *,
        zero_terminal_snr: bool = False,
    ) -> Objective:
        # Whatever scheduler draws with it: the times that the network knows are those of its training.
        return Trigonometric(sampling or TimeSampling(self.time_sampling), weighting, loss)

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (B, channels, N) in [-1, 1] → mean and standard deviation of the latents, each (B, C, N / hop)."""
        vae = self.pipeline.vae
        return posterior(vae.encode(pixels.to(vae.device, vae.dtype)))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, N / hop) → samples (B, channels, N)."""
        samples: Tensor = self.pipeline.vae.decode(latents.to(self.pipeline.vae.dtype), return_dict=False)[0]
        return samples

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens = self.pipeline.encode_prompt(list(captions), self.device, False)
        return {"tokens": tokens, "told": tokens.new_ones(len(tokens), 1, 1)}  # (B, L, D), (B, 1, 1)

    def facts(self, sizes: Sequence[Sizes], guidance: float | None = None) -> Mapping[str, Tensor]:
        """`seconds` (B, 2): at which the sound begins in its file, and how long the file is."""
        rate, most = self.medium.rate, float(self.pipeline.projection_model.config.max_value)
        pairs = [(min(s.crop[1] / rate, most), min(s.original[1] / rate, most)) for s in sizes]
        return {"seconds": torch.tensor(pairs, device=self.device, dtype=torch.float32)}

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        part, seconds = condition.parts["text"], condition.facts["seconds"]
        spans = self.pipeline.projection_model(start_seconds=seconds[:, 0], end_seconds=seconds[:, 1])
        start, end = spans.seconds_start_hidden_states, spans.seconds_end_hidden_states  # (B, 1, D) each
        context = torch.cat([self.whole_tokens_of(condition), start * part["told"], end * part["told"]], 1)
        rotary = get_1d_rotary_pos_embed(
            self.pipeline.rotary_embed_dim, x_t.shape[2] + 1, use_real=True, repeat_interleave_real=False
        )
        prediction: Tensor = self.denoiser(
            x_t, t, encoder_hidden_states=context, global_hidden_states=torch.cat([start, end], 2),
            rotary_embedding=rotary, return_dict=False,
        )[0]  # fmt: skip
        return prediction
