"""CogVideoX 1.0 and 1.5: clips by a transformer in which text and frames attend to each other, told by velocities (Yang et al.
2024, arXiv 2408.06072)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.errors import SettingsError
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part

_SIDES = ("sample_height", "sample_width")


class CogVideoX(Backbone):
    """Its autoencoder takes latents back by twos after the first: frames are 1 + 8 n. 1.5 joins two latents into a token, and
    is told the first twice so that they are even. The small one has a table of positions."""

    family: ClassVar[str] = "cogvideox"
    axes: ClassVar[tuple[int, ...]] = (0, 2, 1, 3, 4)
    guidance_scale: ClassVar[float] = 6.0
    sampling_steps: ClassVar[int] = 50

    @property
    def scale_factor(self) -> int:
        return int(self.pipeline.vae_scale_factor_spatial)

    @property
    def frame_scale(self) -> int:
        return 2 * int(self.pipeline.vae_scale_factor_temporal)

    @property
    def joined(self) -> int:
        """Latents in time that are one token."""
        return int(self.config["patch_size_t"] or 1)

    def latent_shape(self, *dims: int) -> tuple[int, ...]:
        channels, pairs, *space = super().latent_shape(*dims)
        return (channels, 2 * (pairs - 1) + self.joined, *space)

    def require_size(self, height: int, width: int) -> None:
        """1.5 has positions up to its own size, in each direction."""
        most = [int(self.config[name]) * self.scale_factor for name in _SIDES]
        if self.joined > 1 and (height > most[0] or width > most[1]):
            raise SettingsError("the base has no positions for clips of this size", given=f"{width}x{height}",
                                allowed=f"up to {most[1]}x{most[0]}")  # fmt: skip

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, T, H, W) in [-1, 1] → mean and standard deviation of the scaled latents, each (B, C, *dims)."""
        mean, std = (self._even(x) for x in super().encode_media(pixels))
        return mean, std

    def _even(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :1]] * (self.joined - 1) + [x], 2)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, *dims) → pixels (B, 3, T, H, W) in about [-1, 1]."""
        return super().decode(latents[:, :, self.joined - 1 :])

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, _ = self.pipeline.encode_prompt(
                list(captions), do_classifier_free_guidance=False, max_sequence_length=self.max_tokens,
                device=self.device,
            )  # fmt: skip
        return {"tokens": tokens}  # (B, L, D)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        prediction: Tensor = self.denoiser(
            hidden_states=x_t.transpose(1, 2), encoder_hidden_states=self._seated(condition), timestep=t,
            image_rotary_emb=self._rotary(x_t), return_dict=False,
        )[0]  # fmt: skip
        return prediction.transpose(1, 2)

    def _seated(self, condition: Condition) -> Tensor:
        """All tokens (B, L, D). The small one has a table with places for so many: others take those of the caption's end."""
        tokens, own = self.whole_tokens_of(condition), condition.parts[self.caption_part]["tokens"].shape[1]
        if self.config["use_rotary_positional_embeddings"]:
            return tokens
        more = tokens.shape[1] - own
        return torch.cat([tokens[:, : own - more], tokens[:, own:]], 1)

    def _rotary(self, x_t: Tensor) -> tuple[Tensor, Tensor] | None:
        from diffusers.models.embeddings import get_3d_rotary_pos_embed
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

        config, patch, (frames, height, width) = self.config, int(self.config["patch_size"]), x_t.shape[2:]
        if not config["use_rotary_positional_embeddings"]:
            return None
        grid, own = (height // patch, width // patch), [int(config[side]) // patch for side in _SIDES]
        if self.joined > 1:
            told = {"crops_coords": None, "grid_type": "slice", "max_size": own}
        else:
            told = {"crops_coords": get_resize_crop_region_for_grid(grid, own[1], own[0])}
        rotary: tuple[Tensor, Tensor] = get_3d_rotary_pos_embed(
            config["attention_head_dim"], grid_size=grid, temporal_size=frames // self.joined, device=x_t.device, **told
        )
        return rotary
