"""`icons`: the small bundled backbone. Stable Diffusion's pipeline with a MiniLM text encoder."""

from __future__ import annotations

from typing import ClassVar

from adapt.backbones.stable_diffusion import StableDiffusion


class Icons(StableDiffusion):
    """v prediction with zero-terminal SNR, 64 × 64 px.

    LoRA also goes into feed-forward layers and convolutions: with attention alone a drawing style hardly moves.
    """

    family: ClassVar[str] = "icons"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *StableDiffusion.lora_targets,
        *("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
        *("conv1", "conv2", "conv_shortcut", "conv_in", "conv_out"),
    )
    guidance_scale: ClassVar[float] = 3.0
    sampling_steps: ClassVar[int] = 20
