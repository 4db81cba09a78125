"""Media ↔ latents of a backbone, and the pictures that some are given beside the noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from adapt.backbones.held import Held
from adapt.backbones.registry import SOURCED
from adapt.backbones.sources import HOLE
from adapt.errors import SettingsError
from adapt.medium import Medium
from conditioning import Part

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class OfMedia(Held):
    """What it makes and takes, and how; see `Backbone`."""

    media_components: ClassVar[tuple[str, ...]] = ("vae",)
    """Components that latents depend on; none in pixel space."""

    def __init__(self, pipeline: DiffusionPipeline, reference: str, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(pipeline, reference, config)
        # Of the clips that are made, and learned.
        self.frames, self.fps = self.entry.pace({self.denoiser_name: self.config or {}})
        self.editing = False  # a base that `edits_too` is taught edits

    @property
    def resolution(self) -> int:
        """Side of the pictures that it was made for, in pixels."""
        sample = self.entry.sample_size or self.config.get("sample_size") or self.config["sample_height"]
        return side_of(sample) * self.scale_factor

    @property
    def medium(self) -> Medium:
        """What it makes and takes."""
        return Medium(
            self.entry.medium, side=self.resolution, scale=self.multiple,
            frames=self.frames, frame_scale=self.frame_scale, fps=self.fps,
        )  # fmt: skip

    @property
    def frame_scale(self) -> int:
        """Frames a latent, after the first."""
        return 1

    @property
    def scale_factor(self) -> int:
        """Pixels a latent, along each side."""
        return int(self.pipeline.vae_scale_factor)

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of it, in pixels."""
        return self.scale_factor * self.entry.patch

    @property
    def largest(self) -> int | None:
        """The longest side that it can take, in pixels; None: any."""
        return None

    def require_size(self, height: int, width: int) -> None:
        """Raises `SettingsError` for a picture that the denoiser cannot take."""
        if self.largest is not None and max(height, width) > self.largest:
            raise SettingsError(
                "the base has no positions for pictures of this size",
                given=f"{width}x{height}",
                allowed=f"sides up to {self.largest} px",
            )

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self.pipeline.vae.config.latent_channels)

    @property
    def own_latents(self) -> tuple[int, ...]:
        """(C, *dims) of the latents that it was made for."""
        return self.latent_shape(self.resolution, self.resolution)

    def latent_shape(self, *dims: int) -> tuple[int, ...]:
        """(C, *dims) of the latents of a medium of these dims: height and width in pixels; of a clip, the frames before them
        (`frames` where they are left out)."""
        *frames, height, width = dims
        times = [1 + (n - 1) // self.frame_scale for n in frames or [self.frames]]
        space = (height // self.scale_factor, width // self.scale_factor)
        return (self.latent_channels, *(times if self.entry.medium == "video" else ()), *space)

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] → mean and standard deviation of the scaled latents, each (B, C, *dims)."""
        vae = self.pipeline.vae
        mean, std = posterior(vae.encode(pixels.to(vae.device, vae.dtype)))
        shift, scale = shift_and_scale(vae.config, mean)
        return (mean - shift) * scale, std * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, *dims) → pixels (B, 3, H, W) in about [-1, 1]."""
        vae, given = self.pipeline.vae, latents.to(self.pipeline.vae.dtype)
        shift, scale = shift_and_scale(vae.config, given)
        pixels: Tensor = vae.decode(given / scale + shift, return_dict=False)[0]
        return pixels

    # ------------------------------------------------------------------------------------------------ beside the noise
    @property
    def takes_source(self) -> bool:
        """Whether its task is about a picture that it is given: the part `source` of its conditions."""
        return self.edits or self.fills

    @property
    def edits(self) -> bool:
        """Whether that picture is what is edited, by the words."""
        return self.task in SOURCED or self.editing

    @property
    def fills(self) -> bool:
        """Whether it is shown a picture with a hole, and where the hole is, beside the noise: an inpainting base. A network that
        has no channels for that is a plain one, whatever its pipeline is called."""
        return self.task == "inpainting" and int(self.config["in_channels"]) > self.latent_channels

    @property
    def needs_source(self) -> bool:
        """Whether nothing is drawn without one. To an inpainting base no picture is one hole."""
        return self.takes_source and not self.fills and not self.entry.edits_too

    @property
    def source_key(self) -> str:
        """What else than pixels and components decides what a source becomes, for caches."""
        return self.pipeline_class

    @property
    def source_of_any_size(self) -> bool:
        """Whether what is edited may have another shape than what is drawn: it is tokens of their own."""
        return False

    @torch.no_grad()
    def encode_source(self, pixels: Tensor) -> Part:
        """(B, 3, H, W) in [-1, 1] → the part `source` as the family's pipeline makes it of them, one row a picture: here the
        most likely latents (B, C, h, w). `predict` goes without a part that is missing where its pipeline does, else takes
        it as its null."""
        return {"latents": self.encode_media(pixels)[0]}

    @torch.no_grad()
    def encode_hole(self, pixels: Tensor, hole: Tensor) -> Part:
        """The part `source` of a picture with a hole, as inpainting pipelines make it: the hole is grey in what is encoded.

        Args:
            pixels: (B, 3, H, W) in [-1, 1].
            hole: (B, 1, H, W), 1 where it is filled, else 0.

        Returns:
            The most likely `latents` (B, C, h, w) of what is left, and the `hole` (B, M, h, w), bytes of 0 and 1: Flux.1 Fill's
            are 64 channels, which a cache keeps.
        """
        left = self.encode_media(pixels * (hole < 0.5).to(pixels))[0]
        return {"latents": left, HOLE: self.hole_channels(hole.to(left)).to(torch.uint8)}

    def hole_channels(self, hole: Tensor) -> Tensor:
        """(B, 1, H, W) → what the network is told of it (B, M, h, w): here one pixel of those that a latent stands for."""
        scale = self.scale_factor
        return functional.interpolate(hole, size=(hole.shape[-2] // scale, hole.shape[-1] // scale))

    def blank_source(self, rows: int, *dims: int) -> Part:
        """The part `source` in zeros, beside latents of these dims (h, w): the null of a family that `drops_source`. Where holes
        are filled, everything is one."""
        blank = torch.zeros(rows, self.latent_channels, *dims, device=self.device, dtype=self.dtype)
        if not self.fills:
            return {"latents": blank}
        everything = blank.new_ones(rows, 1, *(side * self.scale_factor for side in dims))
        return {"latents": blank, HOLE: self.hole_channels(everything)}

    @property
    def drops_source(self) -> bool:
        """Whether it knows a null of its source, which rows of a training can have instead."""
        return False

    @property
    def image_guidance_scale(self) -> float | None:
        """How strongly the source guides by itself, below the words (see `ChainedGuidance`), as its pipeline has it; None: it
        does not, and stands on both sides of every guidance."""
        return None


def side_of(sample_size: Any) -> int:
    """`sample_size` of a denoiser's configuration as one side."""
    return int(max(sample_size)) if isinstance(sample_size, list | tuple) else int(sample_size)


def shift_and_scale(vae: Mapping[str, Any], like: Tensor) -> tuple[Any, Any]:
    """What latents (B, C, H, W) of an autoencoder with this configuration are shifted and scaled by: a number for all, or one a
    channel where it tells statistics (Playground 2.5)."""
    scale = vae.get("scaling_factor") or 1.0
    if not (vae.get("latents_mean") and vae.get("latents_std")):
        return vae.get("shift_factor") or 0.0, scale
    mean, std = (torch.tensor(vae[name]).view(1, -1, 1, 1).to(like) for name in ("latents_mean", "latents_std"))
    return mean, scale / std


def posterior(encoded: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what an autoencoder says; those without a posterior are certain."""
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mean, encoded.latent_dist.std
    mean: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent  # AutoencoderTiny, AutoencoderDC
    return mean, torch.zeros_like(mean)
