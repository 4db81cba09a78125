"""AudioLDM 2: sounds by a UNet over the latents of mel spectrograms, which a vocoder makes heard (Liu et al. 2023, arXiv
2308.05734)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.backbones.mel import Mel
from adapt.backbones.registry import Refusal
from adapt.errors import BackboneError
from adapt.medium import Medium
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class AudioLDM2(Backbone):
    """T5's tokens, and eight states that GPT-2 adds behind CLAP's and T5's. It counts padding: captions are encoded one by one,
    and the null is made as long as the prompt, as its pipeline does."""

    family: ClassVar[str] = "audioldm2"
    denoiser_name: ClassVar[str] = "unet"
    guidance_scale: ClassVar[float] = 3.5
    sampling_steps: ClassVar[int] = 200
    full_precision: ClassVar[tuple[str, ...]] = ("vae", "vocoder")

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        module: Any
        for module in self.modules.get(self.denoiser_name, torch.nn.Module()).modules():
            if type(module).__name__ == "Transformer2DModel":
                module.forward = partial(in_order, module.forward)

    @property
    def text_components(self) -> tuple[str, ...]:
        return ("language_model", "projection_model", "text_encoder", "text_encoder_2")

    @property
    def untrainable(self) -> Refusal | None:
        # A vocoder does not say from which frequencies its bands were made; of these it is published.
        why = "how its spectrograms are made is published for 64 bands at 16 kHz only, and adapt would have to guess"
        return None if self.mel == Mel() else Refusal("of other bands", why, {})

    # ------------------------------------------------------------------------------------------------ media
    @property
    def mel(self) -> Mel:
        config = self.pipeline.vocoder.config
        return Mel(int(config.sampling_rate), int(config.model_in_dim), hop=prod(config.upsample_rates))

    @property
    def scale_factor(self) -> int:
        """Samples a latent."""
        return int(self.pipeline.vae_scale_factor) * self.mel.hop

    @property
    def medium(self) -> Medium:
        return Medium("sound", 1, side=self.resolution, scale=self.scale_factor, rate=self.mel.rate)

    def latent_shape(self, *dims: int) -> tuple[int, ...]:
        return (self.latent_channels, dims[-1] // self.scale_factor, self.mel.bands // self.pipeline.vae_scale_factor)

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (B, 1, N) in [-1, 1] → mean and standard deviation of the scaled latents, each (B, C, frames, bands)."""
        return super().encode_media(self.mel(pixels[:, 0])[:, None])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, frames, bands) → samples (B, 1, N)."""
        spectrogram, vocoder = super().decode(latents)[:, 0], self.pipeline.vocoder
        samples: Tensor = vocoder(spectrogram.to(vocoder.dtype))  # a few more than it has frames for
        return samples[:, None, : spectrogram.shape[1] * self.mel.hop]

    # ------------------------------------------------------------------------------------------------ conditions
    def encode_text(self, captions: Sequence[str]) -> Part:
        if type(self.pipeline.text_encoder_2).__name__ == "VitsModel":
            raise BackboneError("the base speaks: it is told what is said apart from how, which adapt does not do",
                                given=self.reference, allowed="AudioLDM 2 of sounds and of music")  # fmt: skip
        rows = [Condition({self.caption_part: self._encoded(caption)}) for caption in captions]
        return Condition.cat(rows).parts[self.caption_part]

    def _encoded(self, caption: str) -> Part:
        with quiet_libraries():
            tokens, mask, generated = self.pipeline.encode_prompt([caption], self.device, 1, False)
        return {"tokens": tokens, "mask": mask, "generated": generated}  # (1, L, D), (1, L), (1, 8, G)

    @torch.no_grad()
    def null_beside(self, condition: Condition) -> Condition:
        part = condition.parts[self.caption_part]
        rows = [self._null_as_long_as(part, slice(i, i + 1)) for i in range(len(condition))]
        return Condition.cat(rows)

    def _null_as_long_as(self, part: Part, row: slice) -> Condition:
        counted = part["mask"][row][0].bool()
        tokens, mask = part["tokens"][row][:, counted], part["mask"][row][:, counted]
        with quiet_libraries():
            found = self.pipeline.encode_prompt(
                [""], self.device, 1, True, prompt_embeds=tokens, attention_mask=mask,
                generated_prompt_embeds=part["generated"][row],
            )  # fmt: skip
        return Condition(
            {self.caption_part: dict(zip(("tokens", "mask", "generated"), (x[:1] for x in found), strict=True))}
        )

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens, mask = self.tokens_of(condition)
        prediction: Tensor = self.denoiser(
            x_t, t, encoder_hidden_states=condition.parts[self.caption_part]["generated"], encoder_hidden_states_1=tokens,
            encoder_attention_mask_1=mask, return_dict=False,
        )[0]  # fmt: skip
        return prediction


def in_order(forward: Callable[..., Any], x: Tensor, *given: Any, **named: Any) -> Any:
    """A transformer of the UNet, whose blocks leave out the fourth of eight arguments where gradients are checkpointed, so that
    masks come to stand elsewhere (diffusers up to 0.42 at least)."""
    return forward(x, *given[:2], None, *given[2:], **named) if len(given) == 6 else forward(x, *given, **named)
