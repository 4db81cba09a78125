"""Stable Diffusion XL: a larger UNet, two text encoders, sizes as micro-conditions (Podell et al. 2023, arXiv 2307.01952)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from adapt.backbones.instructed import Instructed
from adapt.backbones.readers import Reader
from adapt.backbones.sources import beside
from adapt.quiet import quiet_libraries
from adapt.types import Sizes
from conditioning import Condition, Part


class StableDiffusionXL(Instructed):
    """Text states of both encoders side by side, the second one's pooled state, and six numbers that are never dropped.
    Inpainting bases have five channels more, InstructPix2Pix four."""

    family: ClassVar[str] = "stable-diffusion-xl"
    denoiser_name: ClassVar[str] = "unet"
    guidance_scale: ClassVar[float] = 5.0
    full_precision: ClassVar[tuple[str, ...]] = ("vae",)

    @property
    def null_kind(self) -> str:
        return "zeros" if self.pipeline.config.get("force_zeros_for_empty_prompt") else "empty"

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, _, pooled, _ = self.pipeline.encode_prompt(
                list(captions), device=self.device, do_classifier_free_guidance=False
            )
        return {"tokens": tokens, "pooled": pooled}  # (B, L, D), (B, P)

    @property
    def readers(self) -> tuple[Reader, ...]:
        found = [
            Reader(self.pipeline, getattr(self.pipeline, f"tokenizer{number}"), encoder, last=2)
            for number in ("", "_2")
            if (encoder := getattr(self.pipeline, f"text_encoder{number}", None)) is not None
        ]
        return tuple(found)

    def facts(self, sizes: Sequence[Sizes], guidance: float | None = None) -> Mapping[str, Tensor]:
        """`time_ids` (B, 6): height and width of the original, top and left of the crop, height and width of the target."""
        rows = [[*known.original, *known.crop, *known.target] for known in sizes]
        return {"time_ids": torch.tensor(rows, dtype=self.dtype, device=self.device)}

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens, mask = self.tokens_of(condition)
        added = {"text_embeds": condition.parts["text"]["pooled"], "time_ids": condition.facts["time_ids"]}
        prediction: Tensor = self.denoiser(
            beside(self, x_t, condition),
            t,
            encoder_hidden_states=tokens,
            encoder_attention_mask=mask,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return prediction
