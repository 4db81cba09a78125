"""Qwen-Image: a flow transformer with two streams and Qwen2.5-VL as encoder (Wu et al. 2025, arXiv 2508.02324)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.backbones.flux import pack, unpack
from adapt.backbones.media import posterior
from adapt.backbones.qwen_processor import read_processor
from adapt.backbones.sources import latents_of, to_pil
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part
from conditioning.guidance.arithmetic import Normalise


class QwenImage(Backbone):
    """The autoencoder is a video's: a picture is one frame, normalised channel by channel. Edit and Edit Plus read the source's
    tokens behind the noise's, and their text encoder sees the picture."""

    family: ClassVar[str] = "qwen-image"
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 4.0
    sampling_steps: ClassVar[int] = 50

    @staticmethod
    def made(folder: Path) -> Mapping[str, Any]:
        return {"processor": read_processor(folder / "processor")} if (folder / "processor").is_dir() else {}

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
        """With a grey picture where the encoder sees pictures and is told of none."""
        if self.edits:
            return self.encode_words(captions, torch.zeros(len(captions), 3, 64, 64))
        with quiet_libraries():
            tokens, mask = self.pipeline.encode_prompt(
                list(captions), device=self.device, max_sequence_length=self.max_tokens
            )
        if mask is None:  # the pipeline says so when every token counts
            mask = tokens.new_ones(tokens.shape[:2], dtype=torch.long)
        return {"tokens": tokens, "mask": mask}  # (B, L, D), (B, L)

    @property
    def source_of_any_size(self) -> bool:
        return self.edits

    @property
    def reads_source(self) -> bool:
        return self.edits

    @torch.no_grad()
    def encode_words(self, captions: Sequence[str], pixels: Tensor) -> Part:
        """Each caption with its picture, as the pipeline shows it to the text encoder: one at a time, because it takes all
        pictures of a call for those of every prompt."""
        with quiet_libraries():
            shown = [self._shown(picture) for picture in to_pil(pixels)]
            rows = [
                self.pipeline.encode_prompt([caption], image=[picture], device=self.device)[0]
                for caption, picture in zip(captions, shown, strict=True)
            ]
        parts = [{"tokens": x, "mask": x.new_ones(x.shape[:2], dtype=torch.long)} for x in rows]
        return Condition.cat([Condition({"text": part}) for part in parts]).parts["text"]

    def _shown(self, picture: Image) -> Image:
        """Edit Plus shows it small; Edit as it is."""
        if self.pipeline_class != "QwenImageEditPlusPipeline":
            return picture
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

        width, height = plus.calculate_dimensions(plus.CONDITION_IMAGE_SIZE, picture.width / picture.height)
        small: Image = self.pipeline.image_processor.resize(picture, height, width)
        return small

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        (tokens, mask), (height, width) = self.tokens_of(condition), x_t.shape[-2:]
        x, shapes = pack(x_t), [(1, height // 2, width // 2)]
        if (source := latents_of(condition, x_t)) is not None:
            x = torch.cat([x, pack(source)], 1)
            shapes.append((1, source.shape[-2] // 2, source.shape[-1] // 2))
        packed: Tensor = self.denoiser(
            hidden_states=x, timestep=t.to(x_t.dtype) / 1000, guidance=None, encoder_hidden_states=tokens,
            encoder_hidden_states_mask=mask, img_shapes=[shapes] * len(x_t), return_dict=False,
        )[0]  # fmt: skip
        return unpack(packed[:, : height // 2 * (width // 2)], height, width)


def by_tokens(guided: Tensor, conditional: Tensor) -> Tensor:
    """Every token of 2 × 2 latents as long as the conditional prediction's, as in the pipeline."""
    a, b = pack(guided), pack(conditional)
    height, width = guided.shape[-2:]
    longer = torch.linalg.vector_norm(b, dim=-1, keepdim=True) / torch.linalg.vector_norm(a, dim=-1, keepdim=True)
    return unpack(a * longer, height, width)
