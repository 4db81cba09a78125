"""Flux.2: a flow transformer of double and single blocks, on latents 16 px wide (Black Forest Labs 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.backbones.columns import NOTHING, Span, spans_of
from adapt.backbones.media import posterior
from adapt.backbones.sources import latents_of
from adapt.errors import SettingsError
from adapt.quiet import quiet_libraries
from adapt.types import Sizes
from conditioning import Condition, Part

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Flux2(Backbone):
    """Dev: three layers of Mistral's states side by side, and the embedded guidance as a fact. 2 × 2 places of the autoencoder
    are one latent of four times the channels, normalised channel by channel; a latent is one token of the network. A picture
    that is edited stands behind the noise, at places of its own."""

    family: ClassVar[str] = "flux2"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("attn.to_qkv_mlp_proj", "attn.to_out"),  # of single blocks, in which attention and feed-forward are one layer
    )
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 1.0
    sampling_steps: ClassVar[int] = 50

    # ------------------------------------------------------------------------------------------------ latents
    @property
    def scale_factor(self) -> int:
        return int(self.pipeline.vae_scale_factor) * 2

    @property
    def latent_channels(self) -> int:
        config = self.pipeline.vae.config
        return int(config.latent_channels * prod(config.patch_size))

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the latents, each (C, 1, 1)."""
        vae = self.pipeline.vae
        std = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)
        return vae.bn.running_mean.view(-1, 1, 1), std.view(-1, 1, 1)

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        vae, (mean, std) = self.pipeline.vae, self._statistics()
        found, spread = (joined(x) for x in posterior(vae.encode(pixels.to(vae.device, vae.dtype))))
        return (found - mean) / std, spread / std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae, (mean, std) = self.pipeline.vae, self._statistics()
        pixels: Tensor = vae.decode(parted(latents.to(vae.dtype) * std + mean), return_dict=False)[0]
        return pixels

    def schedule(self, steps: int, dims: Sequence[int]) -> Mapping[str, Any]:
        """Its shift grows with the size and depends on the number of steps, whatever the scheduler's configuration says."""
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        shift = {"mu": compute_empirical_mu(prod(dims), steps)} if super().schedule(steps, dims) else {}
        return {**shift, "sigmas": np.linspace(1.0, 1 / steps, steps)}

    # ------------------------------------------------------------------------------------------------ conditions
    @property
    def embedded_guidance(self) -> float | None:
        return 4.0 if self.config["guidance_embeds"] else None

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, _ = self.pipeline.encode_prompt(
                list(captions), device=self.device, max_sequence_length=self.max_tokens
            )
        return {"tokens": tokens}  # (B, L, 3 D); the network sees the padding too

    def _conversation(self, caption: str) -> str:
        """What its encoder reads."""
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        messages = format_input([caption], self.pipeline.system_message)[0]
        return str(self.pipeline.tokenizer.apply_chat_template(messages, tokenize=False))

    def columns(self, caption: str) -> Sequence[Span]:
        """Of the conversation only the caption's characters; padding may stand before it."""
        reader, text, limit = self.pipeline.tokenizer, self._conversation(caption), int(self.max_tokens or 512)
        first = text.rfind(caption)
        if first < 0:
            raise SettingsError("the tokenizer's template changes the words", given=caption)
        spans = [
            (max(a - first, 0), min(b - first, len(caption))) if a < first + len(caption) and b > first else NOTHING
            for a, b in spans_of(reader, text, limit, special=False)
        ]
        return [NOTHING] * (limit - len(spans)) + spans if reader.padding_side == "left" else spans

    def facts(self, sizes: Sequence[Sizes], guidance: float | None = None) -> Mapping[str, Tensor]:
        """`guidance` (B,), in networks that take it."""
        if self.embedded_guidance is None:
            return {}
        value = self.trained_guidance if guidance is None else guidance
        return {"guidance": torch.full((len(sizes),), value, device=self.device)}

    @property
    def source_of_any_size(self) -> bool:
        return True

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens, (height, width) = self.whole_tokens_of(condition), x_t.shape[-2:]
        x, where = x_t.flatten(2).mT, places(height, width, 1, like=x_t)
        if (source := latents_of(condition, x_t)) is not None:
            x = torch.cat([x, source.flatten(2).mT], 1)
            rows, columns = source.shape[-2:]
            where = torch.cat([where, places(rows, columns, 1, x_t, picture=10)])
        packed: Tensor = self.denoiser(
            hidden_states=x, timestep=t.to(x_t.dtype) / 1000, guidance=condition.facts.get("guidance"),
            encoder_hidden_states=tokens, txt_ids=places(1, 1, tokens.shape[1], like=x_t),
            img_ids=where, return_dict=False,
        )[0][:, : height * width]  # fmt: skip
        return packed.mT.reshape(*x_t.shape[:2], height, width)


class Flux2Klein(Flux2):
    """Smaller, with Qwen3 as encoder and classifier-free guidance. The step-distilled variant is drawn without guidance, in four
    steps."""

    family: ClassVar[str] = "flux2-klein"
    guidance_scale: ClassVar[float] = 4.0

    def __init__(self, pipeline: DiffusionPipeline, reference: str, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(pipeline, reference, config)
        if pipeline.config.get("is_distilled"):
            self.guidance_scale, self.sampling_steps = 1.0, 4  # type: ignore[misc]

    def _conversation(self, caption: str) -> str:
        told = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        return str(self.pipeline.tokenizer.apply_chat_template([{"role": "user", "content": caption}], **told))


def joined(x: Tensor) -> Tensor:
    """2 × 2 places (B, C, 2 H, 2 W) → one latent (B, 4 C, H, W)."""
    return torch.nn.functional.pixel_unshuffle(x, 2)


def parted(latents: Tensor) -> Tensor:
    """(B, 4 C, H, W) → (B, C, 2 H, 2 W)."""
    return torch.nn.functional.pixel_shuffle(latents, 2)


def places(rows: int, columns: int, length: int, like: Tensor, picture: int = 0) -> Tensor:
    """Where each token stands: (rows · columns · length, 4) of picture, row, column, number in the text; whole numbers."""
    found = torch.cartesian_prod(*(torch.arange(n, device=like.device) for n in (1, rows, columns, length)))
    return found + found.new_tensor([picture, 0, 0, 0])
