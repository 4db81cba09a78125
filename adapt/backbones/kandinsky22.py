"""Kandinsky 2.2: a UNet that is told what CLIP would see, which a prior of its own says of a text (Razzhigaev et al. 2023, arXiv
2310.03502; Ramesh et al. 2022, arXiv 2204.06125)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adapt.backbones.base import Backbone
from adapt.backbones.class_slot import added
from adapt.backbones.media import posterior
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class Kandinsky22(Backbone):
    """A caption is what the prior draws of it, always from the same noise: so a caption says the same whenever it is read, alone
    or in a batch. The null is what CLIP sees in black. The network also predicts a variance, which nothing here asks for."""

    family: ClassVar[str] = "kandinsky22"
    denoiser_name: ClassVar[str] = "unet"
    media_components: ClassVar[tuple[str, ...]] = ("movq",)
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")
    guidance_scale: ClassVar[float] = 4.0
    sampling_steps: ClassVar[int] = 50

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        if hasattr(self.pipeline, "prior_pipe"):
            self.pipeline.prior_pipe.set_progress_bar_config(disable=True)

    @property
    def text_components(self) -> tuple[str, ...]:
        return ("prior_image_encoder", "prior_prior", "prior_text_encoder")

    @property
    def scale_factor(self) -> int:
        return int(2 ** (len(self.pipeline.movq.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        return int(self.config["in_channels"])

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Backbone`, neither quantised nor scaled."""
        movq = self.pipeline.movq
        return posterior(movq.encode(pixels.to(movq.device, movq.dtype)))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """As in `Backbone`."""
        movq = self.pipeline.movq
        pixels: Tensor = movq.decode(latents.to(movq.dtype), force_not_quantize=True).sample
        return pixels

    def encode_text(self, captions: Sequence[str]) -> Part:
        return {"embedding": torch.cat([self._seen(caption) for caption in captions])}  # (B, D)

    def _seen(self, caption: str) -> Tensor:
        with quiet_libraries():
            found: Tensor = self.pipeline.prior_pipe(
                [caption], generator=torch.Generator().manual_seed(0), return_dict=False
            )[0]
        return found

    @torch.no_grad()
    def null(self, rows: int = 1, kind: str | None = None) -> Condition:
        if kind == "zeros":
            return super().null(rows, kind)
        black: Tensor = self.pipeline.prior_pipe.get_zero_embed(1, self.device)
        return self.assembled({"embedding": black.expand(rows, -1)})

    @property
    def embedder(self) -> nn.Module:
        network: Any = self.modules[self.denoiser_name]
        embedder: nn.Module = network.time_embedding
        return embedder

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        told = {"image_embeds": condition.parts[self.caption_part]["embedding"]}
        with added(self.embedder, condition):
            both: Tensor = self.denoiser(x_t, t, encoder_hidden_states=None, added_cond_kwargs=told, return_dict=False)[
                0
            ]
        return both[:, : x_t.shape[1]]
