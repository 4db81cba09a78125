"""Kandinsky 5: pictures and clips by a flow transformer with cross-attention (Arkhipkin et al. 2025, arXiv 2511.14993)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.backbones.media import posterior
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class Kandinsky5Image(Backbone):
    """Qwen2.5-VL's tokens behind the pipeline's instruction, and CLIP's pooled state. The network has no mask: it is shown each
    row's own tokens and no padding, so that a row is told the same alone and in a batch."""

    family: ClassVar[str] = "kandinsky5-image"
    axes: ClassVar[tuple[int, ...]] = (0, 2, 3, 1)
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("to_query", "to_key", "to_value"),
        *("self_attention.out_layer", "cross_attention.out_layer"),
    )
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 3.5
    sampling_steps: ClassVar[int] = 50

    @property
    def scale_factor(self) -> int:
        vae = getattr(self.pipeline, "vae", None)  # without it: as all published ones
        return 8 if vae is None else int(2 ** (len(vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Backbone`; its pipelines leave the autoencoder's shift out."""
        vae = self.pipeline.vae
        mean, std = posterior(vae.encode(pixels.to(vae.device, vae.dtype)))
        return mean * vae.config.scaling_factor, std * vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """As in `Backbone`."""
        vae = self.pipeline.vae
        pixels: Tensor = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        return pixels

    def encode_text(self, captions: Sequence[str]) -> Part:
        rows = [Condition({self.caption_part: self._encoded(caption)}) for caption in captions]
        return Condition.cat(rows).parts[self.caption_part]

    def _encoded(self, caption: str) -> Part:
        with quiet_libraries():
            tokens, pooled, _ = self.pipeline.encode_prompt(
                [caption], max_sequence_length=self.max_tokens, device=self.device
            )
        mask = tokens.new_ones(tokens.shape[:2], dtype=torch.long)
        return {"tokens": tokens, "mask": mask, "pooled": pooled}  # (1, L, D), (1, L), (1, P)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self._by_frames(x_t.unsqueeze(2), t, condition).squeeze(2)

    def _by_frames(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """As `predict`, of clips (B, C, T, H, W). Rows go together where all tokens count, else one by one."""
        tokens, mask = self.tokens_of(condition)
        pooled = condition.parts[self.caption_part]["pooled"]
        if mask is None or bool(mask.all()):
            return self._alike(x_t, t, tokens, pooled)
        rows = [slice(i, i + 1) for i in range(len(x_t))]
        counted = mask.bool()
        return torch.cat([self._alike(x_t[i], t[i], tokens[i][:, counted[i][0]], pooled[i]) for i in rows])

    def _alike(self, x_t: Tensor, t: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        laid, (_, rows, columns) = x_t.movedim(1, -1), self.config["patch_size"]
        if self.config["visual_cond"]:  # the places of a first frame that is given, which there is none of
            laid = torch.cat([laid, torch.zeros_like(laid), torch.zeros_like(laid[..., :1])], -1)
        count = partial(torch.arange, device=x_t.device)
        said: Tensor = self.denoiser(
            hidden_states=laid, encoder_hidden_states=tokens, pooled_projections=pooled, timestep=t.to(x_t.dtype),
            visual_rope_pos=[count(x_t.shape[2]), count(x_t.shape[3] // rows), count(x_t.shape[4] // columns)],
            text_rope_pos=count(tokens.shape[1]), scale_factor=self._spread(*x_t.shape[3:]),
            sparse_params=self._sparse(laid), return_dict=False,
        )  # fmt: skip
        return said.movedim(-1, 1)

    def _spread(self, height: int, width: int) -> tuple[float, float, float]:
        """By how much positions (frames, rows, columns) are drawn together."""
        return (1.0, 1.0, 1.0)

    def _sparse(self, laid: Tensor) -> Any:
        """What each place looks at, where that is not everything."""
        return None


class Kandinsky5(Kandinsky5Image):
    """Clips."""

    family: ClassVar[str] = "kandinsky5"
    axes: ClassVar[tuple[int, ...]] = (0, 2, 3, 4, 1)
    guidance_scale: ClassVar[float] = 5.0

    @property
    def frame_scale(self) -> int:
        return int(self.pipeline.vae.config.temporal_compression_ratio)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self._by_frames(x_t, t, condition)

    def _spread(self, height: int, width: int) -> tuple[float, float, float]:
        near = all(480 <= side * self.scale_factor <= 854 for side in (height, width))
        return (1.0, 2.0, 2.0) if near else (1.0, 3.16, 3.16)

    def _sparse(self, laid: Tensor) -> Any:
        return self.pipeline.get_sparse_params(laid, laid.device) if self.config["attention_type"] == "nabla" else None
