"""DDPM and DDIM in pixel space: a UNet that is told nothing, or a class (Ho et al. 2020, arXiv 2006.11239)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adapt.backbones.base import Backbone
from adapt.backbones.class_slot import added
from adapt.errors import SettingsError
from adapt.types import Sizes
from conditioning import Condition, Part


class DDPM(Backbone):
    """`x` are the pixels. Captions are numbers of classes in bases that have some: a fact that is never dropped, because
    such a base has no null; without classes they are not looked at."""

    family: ClassVar[str] = "ddpm"
    denoiser_name: ClassVar[str] = "unet"
    media_components: ClassVar[tuple[str, ...]] = ()
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
    guidance_scale: ClassVar[float] = 1.0
    nullable: ClassVar[bool] = False
    sampling_steps: ClassVar[int] = 50
    prompt_syntax: ClassVar[str] = "nothing, or a class number"

    @property
    def scale_factor(self) -> int:
        return 1

    @property
    def multiple(self) -> int:
        return int(2 ** (len(self.config["block_out_channels"]) - 1))

    @property
    def latent_channels(self) -> int:
        return int(self.config["in_channels"])

    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = pixels if self.latent_channels == pixels.shape[1] else pixels.mean(1, keepdim=True)
        return x, torch.zeros_like(x)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.expand(-1, 3, -1, -1)

    @property
    def classes(self) -> int:
        """How many it has; 0: it is told nothing."""
        return int(self.config.get("num_class_embeds") or 0)

    def require_caption(self, caption: str) -> None:
        if self.classes:
            self._label(caption)

    def require_prompt(self, prompt: str) -> None:
        if self.classes:
            self._label(prompt)
        elif prompt:
            raise SettingsError("the base is told nothing: it takes no prompt", given=prompt, next="--prompt ''")

    def encode_text(self, captions: Sequence[str]) -> Part:
        if not self.classes:
            return {}
        return {"label": torch.tensor([self._label(c) if c else 0 for c in captions], device=self.device)}  # (B,)

    def _label(self, caption: str) -> int:
        number = int(caption) if caption.strip().isdecimal() else -1
        if not 0 <= number < self.classes:
            raise SettingsError("the base has no such class", given=repr(caption),
                                allowed=f"a number from 0 to {self.classes - 1}")  # fmt: skip
        return number

    def count_tokens(self, caption: str) -> tuple[int, int]:
        return 1, 1

    def assembled(self, part: Part, sizes: Sequence[Sizes] | None = None, guidance: float | None = None) -> Condition:
        return Condition({}, part)

    @property
    def embedder(self) -> nn.Module:
        network: Any = self.modules[self.denoiser_name]
        embedder: nn.Module = network.time_embedding
        return embedder

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        with added(self.embedder, condition):
            prediction: Tensor = self.denoiser(x_t, t, class_labels=condition.facts.get("label"), return_dict=False)[0]
        return prediction
