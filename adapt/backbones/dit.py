"""DiT: a transformer that is told a class (Peebles & Xie 2022, arXiv 2212.09748)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adapt.backbones.base import Backbone
from adapt.errors import SettingsError
from conditioning import Condition, Part

FEW = 5
"""Names that a message shows."""


class DiT(Backbone):
    """A caption is a class: its number, or one of the names that the base knows; "" is no class, the null of guidance.

    The network drops labels itself in train mode, in every block; that is turned off here, because the Plan drops them. A class
    of one's own goes to every block with the label, so that blocks that are computed again in the backward pass have it too.
    """

    family: ClassVar[str] = "dit"
    caption_part: ClassVar[str] = "label"
    guidance_scale: ClassVar[float] = 4.0
    sampling_steps: ClassVar[int] = 50
    prompt_syntax: ClassVar[str] = "a class number or name"

    def __init__(self, pipeline: Any, reference: str, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(pipeline, reference, config)
        for module in self.modules.get(self.denoiser_name, torch.nn.Module()).modules():
            if hasattr(module, "dropout_prob") and hasattr(module, "num_classes"):
                vars(module)["dropout_prob"] = 0.0
                module.forward = partial(_embedded, module.forward)

    @property
    def scale_factor(self) -> int:
        return int(2 ** (len(self.pipeline.vae.config.block_out_channels) - 1))

    def require_size(self, height: int, width: int) -> None:
        if (height, width) != (self.resolution,) * 2:
            raise SettingsError("DiT makes pictures of one size", given=f"{width}x{height}", allowed=self.resolution)

    def label(self, caption: str) -> int:
        """The number of a class, from its number or name; of "" the null's.

        Raises:
            SettingsError: the base has no such class.
        """
        count, names = int(self.config["num_embeds_ada_norm"]), self.pipeline.labels
        text = caption.strip()
        number = count if not text else names.get(text, int(text) if text.isdecimal() else -1)
        if number < 0 or (text and number >= count):
            few = ", ".join(sorted(names)[:FEW])
            raise SettingsError(
                "the base has no such class", given=caption,
                allowed=f"a number from 0 to {count - 1}" + (f", or a name ({few} …)" if few else ""),
                next="name the folders of your pictures so, or write it into their captions",
            )  # fmt: skip
        return number

    def require_caption(self, caption: str) -> None:
        self.label(caption)

    def encode_text(self, captions: Sequence[str]) -> Part:
        return {"label": torch.tensor([self.label(caption) for caption in captions], device=self.device)}  # (B,)

    def count_tokens(self, caption: str) -> tuple[int, int]:
        return 1, 1

    @property
    def embedder(self) -> nn.Module:
        network: Any = self.modules[self.denoiser_name]
        embedder: nn.Module = network.transformer_blocks[0].norm1.emb
        return embedder

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        label, own = condition.parts["label"]["label"], condition.parts.get("class", {}).get("embedding")
        told = label if own is None else (label, own)
        both: Tensor = self.denoiser(x_t, timestep=t, class_labels=told, return_dict=False)[0]
        return both[:, : x_t.shape[1]]  # the rest is the variance, where the base has learned one


def _embedded(look_up: Callable[..., Tensor], told: Any, *more: Any) -> Tensor:
    """Labels' embeddings; of labels with embeddings of one's own, their sums."""
    label, own = told if isinstance(told, tuple) else (told, None)
    found = look_up(label, *more)
    return found if own is None else found + own.to(found)
