"""A frozen pretrained pipeline behind one small interface."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from adapt.objectives import Loss, Objective, TimeSampling, Weighting, objective_of
from conditioning import Condition, Part, TextConditioner

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Backbone(ABC):
    """One model family. A subclass says only what is different: one small file each.

    Args:
        pipeline: the loaded diffusers pipeline; frozen and put into eval mode here.
        reference: what the user called it (`icons`, a folder, a Hub id).
    """

    family: ClassVar[str]
    pipeline_class: ClassVar[str]
    denoiser_name: ClassVar[str] = "transformer"
    null_text: ClassVar[str] = "empty"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    time_sampling: ClassVar[str] = "uniform"
    guidance_scale: ClassVar[float] = 7.5
    sampling_steps: ClassVar[int] = 30
    full_precision: ClassVar[tuple[str, ...]] = ()
    """Components that stay in float32 whatever the base is held in: some VAEs (SDXL's) overflow in float16."""

    def __init__(self, pipeline: DiffusionPipeline, reference: str) -> None:
        self.pipeline, self.reference = pipeline, reference
        self.wrapped: nn.Module | None = None
        for module in self.modules.values():
            module.requires_grad_(False).eval()
        self.text = TextConditioner(self.encode_text, self.null_text)

    @staticmethod
    def load(
        reference: str = "icons", *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> Backbone:
        """Loads `icons`, a local diffusers folder or a Hub id; the family is found from `model_index.json`.

        Raises:
            BackboneError: when it is not there, is no diffusers folder, needs pickles, or is of an unknown family.
        """
        from adapt.loading import load

        return load(reference, dtype=dtype, device=device)

    # ------------------------------------------------------------------------------------------------ what it is made of
    @property
    def modules(self) -> dict[str, nn.Module]:
        """Every network, by diffusers' component name."""
        return {name: c for name, c in self.pipeline.components.items() if isinstance(c, nn.Module)}

    @property
    def denoiser(self) -> nn.Module:
        """What `predict` calls: the network itself, or what Accelerate wrapped it in (`wrapped`)."""
        return self.wrapped if self.wrapped is not None else self.modules[self.denoiser_name]

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The pipeline's scheduler configuration with its `_class_name`."""
        scheduler = self.pipeline.scheduler
        return {**scheduler.config, "_class_name": type(scheduler).__name__}

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    def objective(
        self,
        sampling: TimeSampling | None = None,
        weighting: Weighting | None = None,
        loss: Loss | None = None,
        *,
        zero_terminal_snr: bool = False,
    ) -> Objective:
        """The objective it was trained with; `sampling` defaults to the family's. The rest as in `objective_of`."""
        sampling, dims = (
            sampling or TimeSampling(self.time_sampling),
            self.latent_shape(self.resolution, self.resolution),
        )
        return objective_of(
            self.scheduler_config, sampling, weighting, loss, zero_terminal_snr=zero_terminal_snr, own_dims=dims[1:]
        )

    def fingerprint(self) -> str:
        """Digest of the denoiser's class, configuration and shapes: equal for bases that can take the same adapter."""
        denoiser: Any = self.modules[self.denoiser_name]
        config = {k: v for k, v in denoiser.config.items() if not k.startswith("_")}
        shapes = {name: list(p.shape) for name, p in _base_state(denoiser)}
        text = json.dumps([type(denoiser).__name__, config, shapes], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def content_key(self, component: str) -> str:
        """Digest of a component's class, configuration and weights (64 values of each tensor)."""
        module = self.modules[component]
        digest = hashlib.sha256(f"{type(module).__name__} {module.config} {self.dtype}".encode())
        for name, p in _base_state(module):
            values = p.detach().flatten()[:: max(1, p.numel() // 64)].float().cpu()
            digest.update(name.encode() + values.numpy().tobytes())
        return digest.hexdigest()[:16]

    # ------------------------------------------------------------------------------------------------ pictures
    @property
    @abstractmethod
    def resolution(self) -> int:
        """Side of the pictures that it was made for, in pixels."""

    @property
    @abstractmethod
    def scale_factor(self) -> int:
        """Pixels a latent, along each side."""

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """Channels of a latent."""

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """(C, *dims) of the latents of a picture of height × width pixels."""
        return (self.latent_channels, height // self.scale_factor, width // self.scale_factor)

    @abstractmethod
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] → mean and standard deviation of the scaled latents, each (B, C, *dims)."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, *dims) → pixels (B, 3, H, W) in about [-1, 1]."""

    # ------------------------------------------------------------------------------------------------ conditions
    @abstractmethod
    def encode_text(self, captions: Sequence[str]) -> Part:
        """Captions → the part `text`, one row a caption."""

    @abstractmethod
    def count_tokens(self, caption: str) -> tuple[int, int]:
        """Tokens of a caption, and how many the encoder reads."""

    def condition(self, captions: Sequence[str]) -> Condition:
        """One row a caption."""
        return Condition({"text": self.text.encode(captions)})

    def null(self, rows: int = 1) -> Condition:
        """The condition that says nothing, as the family was trained with."""
        return Condition({"text": self.text.null(rows)})

    # ------------------------------------------------------------------------------------------------ the denoiser
    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """x_t (B, C, *dims), t (B,), B conditions → prediction (B, C, *dims), which a scheduler's step takes."""


def _base_state(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters of the pretrained model: without an injected adapter and without peft's `base_layer` in the names."""
    named = ((name.replace(".base_layer.", "."), p) for name, p in module.named_parameters())
    return sorted((name, p) for name, p in named if not any(mark in name for mark in (".lora_", ".hada_", ".lokr_")))
