"""LTX-Video: clips by a flow transformer over strongly compressed latents (HaCohen et al. 2024, arXiv 2501.00103)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.backbones.by_channel import ByChannel
from adapt.objectives.shift import LinearShift
from adapt.quiet import quiet_libraries
from adapt.types import Sizes
from conditioning import Condition, Part


class LTXVideo(ByChannel, Backbone):
    """Frames a second are a fact of the condition: positions are told in seconds. From 0.9.1 on the decoder is told a time."""

    family: ClassVar[str] = "ltx-video"
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 3.0
    sampling_steps: ClassVar[int] = 50
    decoder_time: ClassVar[float] = 0.0

    @property
    def scale_factor(self) -> int:
        return int(self.pipeline.vae_spatial_compression_ratio)

    @property
    def frame_scale(self) -> int:
        return int(self.pipeline.vae_temporal_compression_ratio)

    def schedule(self, steps: int, dims: Sequence[int]) -> Mapping[str, Any]:
        config = self.scheduler_config
        names = {"few": "base_image_seq_len", "many": "max_image_seq_len", "low": "base_shift", "high": "max_shift"}
        said = {ours: config[theirs] for ours, theirs in names.items() if config.get(theirs) is not None}
        return {"mu": LinearShift(**said, patch=1).mu(dims), "sigmas": np.linspace(1.0, 1 / steps, steps)}

    def statistics(self) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        return vae.latents_mean, vae.latents_std / vae.config.scaling_factor

    def decoder_told(self, latents: Tensor) -> tuple[Any, ...]:
        """From 0.9.1 on a time (B,): its pipeline's own, at which latents are as they are; before, none."""
        timed = self.pipeline.vae.config.timestep_conditioning
        return (latents.new_full((len(latents),), self.decoder_time) if timed else None,)

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, mask, _, _ = self.pipeline.encode_prompt(
                list(captions), do_classifier_free_guidance=False, max_sequence_length=self.max_tokens,
                device=self.device,
            )  # fmt: skip
        return {"tokens": tokens, "mask": mask}  # (B, L, D), (B, L)

    def facts(self, sizes: Sequence[Sizes], guidance: float | None = None) -> Mapping[str, Tensor]:
        """`fps` (B,)."""
        rates = [self.fps if size.fps is None else size.fps for size in sizes]
        return {"fps": torch.tensor(rates, device=self.device, dtype=torch.float32)}

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        (tokens, mask), (frames, height, width) = self.tokens_of(condition), x_t.shape[2:]
        places = self._places(frames, height, width, condition.facts["fps"]).to(x_t.device)
        packed: Tensor = self.denoiser(
            hidden_states=x_t.flatten(2).transpose(1, 2), encoder_hidden_states=tokens, encoder_attention_mask=mask,
            timestep=t, num_frames=frames, height=height, width=width, video_coords=places, return_dict=False,
        )[0]  # fmt: skip
        return packed.transpose(1, 2).view(x_t.shape)

    def _places(self, frames: int, height: int, width: int, fps: Tensor) -> Tensor:
        """Second, row and column (in pixels) of each latent, (B, 3, frames · height · width)."""
        grid = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
        places = torch.stack(grid).flatten(1).float()[None].repeat(len(fps), 1, 1)
        places[:, 0] *= self.frame_scale / fps[:, None].cpu()
        places[:, 1:] *= self.scale_factor
        return places
