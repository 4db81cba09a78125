"""A frozen pretrained pipeline behind one small interface."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapt.backbones.beside import Beside, informed
from adapt.backbones.columns import Span, columns_of
from adapt.backbones.identity import contents_of, fingerprint_of, relatives_of
from adapt.backbones.packed import way_of
from adapt.backbones.registry import FAMILIES, SOURCED, Family, Refusal, refusal_of
from adapt.backbones.sources import HOLE
from adapt.backbones.tokens import Tokens, fused
from adapt.errors import BackboneError, SettingsError
from adapt.medium import Medium
from adapt.objectives import Loss, Objective, TimeSampling, Weighting, objective_of
from adapt.objectives.shift import LinearShift, by_size
from adapt.types import Sizes
from conditioning import Condition, Conditioner, Part, Predictor, TextConditioner
from conditioning.guidance.classifier_free import Normalise

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from adapt.backbones.readers import Reader


@dataclass(frozen=True)
class Expert:
    """One of several denoisers, each for its own times.

    Attributes:
        component: its name.
        low, high: the shares of noise that it predicts, from `low` on and below `high`; the noisiest one's is up to 1.
    """

    component: str
    low: float
    high: float


Shapes = Mapping[str, tuple[int | None, ...]]
"""Tensor name → its shape without the rows; None where any length goes."""


class Backbone(ABC):
    """One model family. A subclass says only what is different: one small file each.

    Everything is written with the names of the papers: `x` (B, C, *dims) are scaled latents, one picture a row, never packed
    into tokens: packing is the business of `predict`. `t` (B,) is in the unit of the family's scheduler: 0 … T - 1 for discrete
    diffusion, T σ for a flow. A family whose network wants another (1 - t / T, say) converts inside `predict`.

    Args:
        pipeline: the loaded diffusers pipeline; frozen and put into eval mode here.
        reference: what the user called it (`icons`, a folder, a Hub id).
        config: the denoiser's configuration, where the denoiser was left out.
    """

    family: ClassVar[str]
    denoiser_name: ClassVar[str] = "transformer"
    media_components: ClassVar[tuple[str, ...]] = ("vae",)
    """Components that latents depend on; none in pixel space."""
    caption_part: ClassVar[str] = "text"
    """The part of a Condition that a caption becomes."""
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    time_sampling: ClassVar[str] = "uniform"
    guidance_scale: ClassVar[float] = 7.5
    first_layer: ClassVar[str] = "conv_in"
    """What takes `input_widths` in."""
    guidance_offset: ClassVar[float] = 0.0
    """What the family's pipeline calls guidance s is s + offset here, where 1 is always off (Z-Image: 1)."""
    sampling_steps: ClassVar[int] = 30
    prompt_syntax: ClassVar[str] = "plain text"
    full_precision: ClassVar[tuple[str, ...]] = ()
    """Components that stay in float32 whatever the base is held in: some VAEs (SDXL's) overflow in float16."""
    axes: ClassVar[tuple[int, ...]] = ()
    """Axes of x in the order in which its pipeline lays them, so that a seed draws the same noise here and there; (): as here."""
    listeners: Sequence[Callable[[Tensor], None]] = ()
    """Told t (B,) before each prediction."""
    asked: Condition | None = None
    """What the prediction that is being made, or the last one that is followed back, is asked for."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if "predict" in cls.__dict__:
            cls.predict = _telling(cls.__dict__["predict"])  # type: ignore[method-assign]

    def __init__(self, pipeline: DiffusionPipeline, reference: str, config: Mapping[str, Any] | None = None) -> None:
        self.pipeline, self.reference, self._config = pipeline, reference, config
        self.wrapped: nn.Module | None = None
        own = self.modules.get(self.denoiser_name)
        self.quantised = None if own is None else way_of(own)
        """How the denoiser is held in few bits, if it is: `gguf`, `nf4-bnb` …"""
        self._known: dict[str, str] = {}
        self._kin: frozenset[str] = frozenset()
        self.max_tokens = self.entry.max_tokens
        self.editing = False  # a base that `edits_too` is taught edits
        self.frames, self.fps = self.entry.frames, self.entry.fps  # of the clips that are made, and learned
        self.conditioners: dict[str, Conditioner | Beside] = {}  # of what is on it (an adapter, a ControlNet), by part
        self.trained_guidance = 1.0  # of a training row, in distilled families that have it (`embedded_guidance`)
        for module in self.modules.values():
            module.requires_grad_(False).eval()
        self.text = TextConditioner(self.encode_text, self.null_kind)
        self.listeners = []

    @staticmethod
    def load(
        reference: str = "icons",
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        without: Sequence[str] = (),
        revision: str | None = None,
        variant: str | None = None,
    ) -> Backbone:
        """Loads `icons`, a local diffusers folder or a Hub id; the family is found from `model_index.json`.

        Args:
            reference: `icons`, a folder, `owner/name`, `owner/name@revision`, `owner/name@revision:variant`.
            revision: of a Hub id: a branch, a tag or a commit; the same as behind its `@`.
            variant: of the weights files, `fp16` say; the same as behind a colon.
            without: components that are left out, so that captions are encoded without a denoiser in memory, say.

        Raises:
            BackboneError: when it is not there, is no diffusers folder, needs pickles, or is of an unknown family.
        """
        from adapt.loading import load
        from adapt.source import composed

        return load(composed(reference, revision, variant), dtype=dtype, device=device, without=without)

    @staticmethod
    def made(folder: Path) -> Mapping[str, Any]:
        """Components of a pipeline's folder that are not loaded by diffusers, by name."""
        return {}

    # ------------------------------------------------------------------------------------------------ what it is made of
    @property
    def entry(self) -> Family:
        """The family's row of the table."""
        return FAMILIES[self.family]

    @property
    def pipeline_class(self) -> str:
        """The diffusers class of the pipeline."""
        return type(self.pipeline).__name__

    @property
    def task(self) -> str:
        """What is done with it: `text-to-image`, `class` …"""
        return self.entry.pipelines.get(self.pipeline_class, "text-to-image")

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
    def input_widths(self) -> tuple[int, ...]:
        """Channels that the networks of the family's tasks take in, where that is all that they differ in."""
        return ()

    @property
    def needs_source(self) -> bool:
        """Whether nothing is drawn without one. To an inpainting base no picture is one hole."""
        return self.takes_source and not self.fills and not self.entry.edits_too

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Every network, by diffusers' component name."""
        return {name: c for name, c in self.pipeline.components.items() if isinstance(c, nn.Module)}

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        """The networks that predict, by name: one, or several for different times (`Wan`'s two experts)."""
        return {self.denoiser_name: self.modules[self.denoiser_name]}

    @property
    def experts(self) -> Mapping[str, Expert]:
        """What users call each of several denoisers → it, the noisiest first; none where one is for all times."""
        return {}

    def takes(self, name: str, t: Tensor) -> Tensor:
        """Which rows (B,) of these times (B,) the denoiser of this name predicts, bool."""
        return torch.ones_like(t, dtype=torch.bool)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What `predict` calls, of all denoisers."""
        return (self.denoiser, *(network for name, network in self.denoisers.items() if name != self.denoiser_name))

    @property
    def denoiser(self) -> nn.Module:
        """What `predict` calls: the network itself, or what Accelerate wrapped it in (`wrapped`)."""
        return self.wrapped if self.wrapped is not None else self.modules[self.denoiser_name]

    @property
    def config(self) -> Any:
        """The denoiser's configuration, whatever wraps it, and when it was left out."""
        return self.modules[self.denoiser_name].config if self.denoiser_name in self.modules else self._config

    @property
    def text_components(self) -> tuple[str, ...]:
        """Components that text states depend on."""
        return tuple(sorted(name for name in self.modules if name.startswith("text_encoder")))

    @property
    def idle(self) -> tuple[str, ...]:
        """Layers among them that change no prediction: they never have a gradient, and get no LoRA."""
        return ()

    @property
    def untrainable(self) -> Refusal | None:
        """Why this base can be drawn with but not be trained; None: it can."""
        told = {self.denoiser_name: self.config, "scheduler": self.scheduler_config, "pipeline": self.pipeline.config}
        return refusal_of(self.entry, told)

    @property
    def loader(self) -> str:
        """Which library loads an adapter of this family: diffusers by its pipeline's `load_lora_weights`, or peft."""
        return "diffusers" if hasattr(self.pipeline, "load_lora_weights") else "peft"

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The pipeline's scheduler configuration with its `_class_name`."""
        scheduler = self.pipeline.scheduler
        return {**scheduler.config, "_class_name": type(scheduler).__name__}

    @property
    def device(self) -> torch.device:
        return next(self._present.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in: not that of layers which a network keeps in float32 whatever it is held in (Wan's norms)."""
        network = self.modules.get(self.denoiser_name, self._present)
        wide = tuple(getattr(network, "_keep_in_fp32_modules", None) or ())
        floating = ((n, p.dtype) for n, p in network.named_parameters() if p.is_floating_point())
        held = next((dtype for name, dtype in floating if not any(word in name for word in wide)), None)
        return held or next(p.dtype for p in network.parameters() if p.is_floating_point())

    @property
    def _present(self) -> nn.Module:
        """The denoiser; where it was left out, what is there."""
        return self.denoiser if self.denoiser_name in self.modules else next(iter(self.modules.values()))

    # ------------------------------------------------------------------------------------------------ times
    def objective(
        self,
        sampling: TimeSampling | None = None,
        weighting: Weighting | None = None,
        loss: Loss | None = None,
        *,
        zero_terminal_snr: bool = False,
    ) -> Objective:
        """The objective it was trained with; `sampling` defaults to the family's. The rest as in `objective_of`."""
        return objective_of(
            self.scheduler_config, sampling or TimeSampling(self.time_sampling), weighting, loss,
            zero_terminal_snr=zero_terminal_snr, own_dims=self.own_latents[1:], patch=self.entry.patch,
        )  # fmt: skip

    def schedule(self, steps: int, dims: Sequence[int]) -> Mapping[str, Any]:
        """What the family's scheduler is told beside the number of steps, for latents of these dims.

        `mu`, where its times shift with the size; subclasses add `sigmas` where their pipelines do. A scheduler that the
        user chose takes of it what it knows.
        """
        if not self.scheduler_config.get("use_dynamic_shifting"):
            return {}
        shift = by_size(self.scheduler_config, dims, self.entry.patch)
        return {"mu": shift.mu(dims)} if isinstance(shift, LinearShift) else {}

    def listen(self, listener: Callable[[Tensor], None]) -> Callable[[], None]:
        """`listener` is told t (B,) before each prediction, until what is returned is called."""
        self.listeners = [*self.listeners, listener]

        def stop() -> None:
            self.listeners = [each for each in self.listeners if each is not listener]

        return stop

    @property
    def normalise(self) -> Normalise | None:
        """What the family's pipeline does to a guided prediction; None: nothing."""
        return None

    def require_whole_weights(self, what: str) -> None:
        """Raises `BackboneError` where the denoiser's weights are in few bits, and `what` needs the numbers themselves."""
        if self.quantised is not None:
            raise BackboneError(
                f"{what}: the base's weights are in few bits ({self.quantised})",
                given=self.reference,
                next="the same base in float32, float16 or bfloat16",
            )

    # ------------------------------------------------------------------------------------------------ who it is
    def remember(self) -> None:
        """Its digests from here on are those of what it holds now: what is quantised has other shapes and bytes."""
        self._kin = self.kin()
        self._known = {"": self.fingerprint(), **{name: self.content_key(name) for name in self.denoisers}}

    def fingerprint(self) -> str:
        """Digest of the denoisers' class, configuration and shapes: equal for bases that can take the same adapter."""
        if self._known:
            return self._known[""]
        return fingerprint_of(*self.denoisers.values())

    def kin(self) -> frozenset[str]:
        """Fingerprints of other bases whose adapters it takes: those of the family's other tasks, whose networks differ in what
        they take in (`input_widths`)."""
        if self._known:
            return self._kin
        one, *others = self.denoisers.values()
        return frozenset() if others else relatives_of(one, self.first_layer, self.input_widths)

    def content_key(self, component: str) -> str:
        """Digest of a component's class, configuration and weights (64 values of each tensor); of several, joined by `+`."""
        if not component:
            return "0" * 16  # pixels, and captions that nothing encodes
        if "+" in component:
            return hashlib.sha256(" ".join(map(self.content_key, component.split("+"))).encode()).hexdigest()[:16]
        if component in self._known:
            return self._known[component]
        told = f" {self.max_tokens} tokens" if self.max_tokens and component in self.text_components else ""
        return contents_of(self.modules[component], f"{self.dtype}{told}")

    # ------------------------------------------------------------------------------------------------ media
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

    # ------------------------------------------------------------------------------------------------ conditions
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

    @property
    def reads_source(self) -> bool:
        """Whether its text encoder sees the source too, so that a caption is encoded beside its picture: `encode_words`."""
        return False

    def encode_words(self, captions: Sequence[str], pixels: Tensor) -> Part:
        """Captions and what they edit (B, 3, H, W) in [-1, 1] → the part `caption_part`, one row each."""
        return self.encode_text(captions)

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

    @abstractmethod
    def encode_text(self, captions: Sequence[str]) -> Part:
        """Captions → the part `caption_part`, one row a caption; with gradients, where encoders are trained."""

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Text encoders whose states can be weighted and put one after the other; none where prompts are plain text."""
        return ()

    def count_tokens(self, caption: str) -> tuple[int, int]:
        """Tokens of a caption, and how many the encoder reads."""
        reader = getattr(self.pipeline, self.entry.tokenizer, None)
        tokenizer = reader or self.pipeline.tokenizer
        tokens = tokenizer(caption, truncation=False, verbose=False).input_ids
        return len(tokens), int((reader and self.max_tokens) or tokenizer.model_max_length)

    def columns(self, caption: str) -> Sequence[Span]:
        """Of each token that the denoiser is given of a caption, the characters that it is about; (0, 0): none (start, end,
        padding). Padding on the right may be left out.

        Raises:
            SettingsError: a tokenizer that does not say it.
        """
        return columns_of(self.pipeline, self.entry.tokenizer, caption, self.max_tokens)

    def require_caption(self, caption: str) -> None:  # noqa: B027 - most families take any caption
        """Raises `SettingsError` for a caption that the family cannot be taught with: a class that there is not."""

    def require_prompt(self, prompt: str) -> None:
        """Raises `SettingsError` for a prompt that the family cannot be asked for."""
        self.require_caption(prompt)

    @property
    def null_kind(self) -> str:
        """What an empty condition is, as the family's pipeline has it: `empty` encodes "", `zeros`, `label`."""
        return "empty"

    @property
    def embedded_guidance(self) -> float | None:
        """The guidance that a distilled family draws with, a fact of the condition; None: it has none."""
        return None

    @property
    def embedder(self) -> nn.Module | None:
        """What embeds times, in families in which a class of one's own is added to that; None where classes are tokens."""
        return None

    @cached_property
    def slots(self) -> Mapping[str, Shapes]:
        """Parts that the denoiser takes → their tensors' shapes without the rows; a token axis with a mask is None."""
        part = self.null(1).parts.get(self.caption_part)
        if part is None:
            return {}
        free = {"tokens": (None,), "mask": (None,)} if "mask" in part else {}
        return {
            self.caption_part: {k: (*free.get(k, ()), *x.shape[1 + len(free.get(k, ())) :]) for k, x in part.items()}
        }

    @torch.no_grad()
    def condition(
        self, captions: Sequence[str], sizes: Sequence[Sizes] | None = None, guidance: float | None = None
    ) -> Condition:
        """One row a caption.

        Args:
            sizes: of each picture, for the facts; None: whole pictures of the base's own size.
            guidance: embedded guidance; None: the one that it draws with.
        """
        return self.assembled(
            self.text.encode(captions), sizes, self.embedded_guidance if guidance is None else guidance
        )

    def assembled(self, part: Part, sizes: Sequence[Sizes] | None = None, guidance: float | None = None) -> Condition:
        """An encoded caption part with its facts.

        Args:
            sizes: as in `condition`.
            guidance: embedded guidance; None: the one that it is trained with.
        """
        rows = len(next(iter(part.values()))) if part else len(sizes or ())
        known = [Sizes.whole(self.resolution, self.resolution)] * rows if sizes is None else sizes
        return Condition({self.caption_part: part} if part else {}, self.facts(known, guidance))

    def facts(self, sizes: Sequence[Sizes], guidance: float | None = None) -> Mapping[str, Tensor]:
        """Micro-conditions, one row a picture: what is never dropped. Nothing in most families.

        Args:
            sizes: what was cut out of what.
            guidance: embedded guidance; None: `trained_guidance`.
        """
        return {}

    @torch.no_grad()
    def null(self, rows: int = 1, kind: str | None = None) -> Condition:
        """The condition that says nothing, with the facts of whole pictures.

        Args:
            kind: `empty` or `zeros`; None: as the family was trained with.
        """
        text = self.text if kind in (None, self.null_kind) else TextConditioner(self.encode_text, str(kind))
        return self.assembled(text.null(rows))

    def null_beside(self, condition: Condition) -> Condition:
        """The null that a drawing of this condition keeps away from, one row each; in some pipelines it depends on the prompt."""
        return self.null(len(condition) or 1)

    def tokens_of(self, condition: Condition) -> Tokens:
        """The text tokens, then those of every other part that has some (an image prompt's, a class's): the one place where
        parts are fused, called inside `predict`. Tokens of a part without a mask all count."""
        return fused(condition.parts, self.caption_part)

    def whole_tokens_of(self, condition: Condition) -> Tensor:
        """The same (B, L, D) for a network that cannot look away from a token: those that do not count are zeros."""
        tokens, mask = self.tokens_of(condition)
        return tokens if mask is None else tokens * mask[..., None].to(tokens)

    # ------------------------------------------------------------------------------------------------ the denoiser
    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """x_t (B, C, *dims), t (B,), B conditions → prediction (B, C, *dims), which a scheduler's step takes."""

    def perturbed(self, kind: str, layers: Sequence[str]) -> Predictor:
        """`predict` through a network that sees structure badly; see `perturb`.

        Raises:
            SettingsError: a layer that is not there, or a family that cannot take it.
        """
        from adapt.backbones.perturb import Perturbed

        return Perturbed(self.predict, self.modules[self.denoiser_name], kind, layers)


def _telling(predict: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A family's `predict`, which says its times to those who listen first and keeps in sight what it is asked for; and what
    stands beside it has its say."""

    @wraps(predict)
    def told(self: Backbone, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        for listener in self.listeners:
            listener(t)
        self.asked = condition
        try:
            with informed(self, condition):
                return predict(self, x_t, t, condition)
        finally:
            if not torch.is_grad_enabled():
                self.asked = None

    return told


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
