"""Stable Diffusion 1.x and 2.x: a UNet with text by cross-attention (Rombach et al. 2022, arXiv 2112.10752)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from adapt.backbones.instructed import Instructed
from adapt.backbones.readers import Reader
from adapt.backbones.sources import beside
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class StableDiffusion(Instructed):
    """epsilon or v prediction, as the scheduler's configuration says. InstructPix2Pix (Brooks et al. 2023, arXiv 2211.09800) is
    the same network with the source's latents as four more channels; inpainting bases have one more for the hole."""

    family: ClassVar[str] = "stable-diffusion"
    denoiser_name: ClassVar[str] = "unet"

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            if self.edits:  # its pipeline has the older method alone
                return {"tokens": self.pipeline._encode_prompt(list(captions), self.device, 1, False)}
            tokens, _ = self.pipeline.encode_prompt(list(captions), self.device, 1, False)
        return {"tokens": tokens}  # (B, L, D)

    @property
    def readers(self) -> tuple[Reader, ...]:
        encoder = self.pipeline.text_encoder
        return () if encoder is None else (Reader(self.pipeline, self.pipeline.tokenizer, encoder),)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens, mask = self.tokens_of(condition)
        x = beside(self, x_t, condition)
        prediction: Tensor = self.denoiser(
            x, t, encoder_hidden_states=tokens, encoder_attention_mask=mask, return_dict=False
        )[0]
        return prediction
