"""A frozen pretrained pipeline behind one small interface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from adapt.backbones.beside import Beside, informed
from adapt.backbones.columns import Span, columns_of
from adapt.backbones.media import OfMedia
from adapt.backbones.tokens import Tokens, fused
from adapt.objectives import Loss, Objective, TimeSampling, Weighting, objective_of
from adapt.objectives.shift import LinearShift, by_size
from adapt.types import Sizes
from conditioning import Condition, Conditioner, Part, Predictor, TextConditioner
from conditioning.guidance.arithmetic import Normalise

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from adapt.backbones.readers import Reader


Shapes = Mapping[str, tuple[int | None, ...]]
"""Tensor name → its shape without the rows; None where any length goes."""


class Backbone(OfMedia):
    """One model family. A subclass says only what is different: one small file each.

    Everything is written with the names of the papers: `x` (B, C, *dims) are scaled latents, one picture a row, never packed
    into tokens: packing is the business of `predict`. `t` (B,) is in the unit of the family's scheduler: 0 … T - 1 for discrete
    diffusion, T σ for a flow. A family whose network wants another (1 - t / T, say) converts inside `predict`.

    Args:
        pipeline: the loaded diffusers pipeline; frozen and put into eval mode here.
        reference: what the user called it (`icons`, a folder, a Hub id).
        config: the denoiser's configuration, where the denoiser was left out.
    """

    caption_part: ClassVar[str] = "text"
    """The part of a Condition that a caption becomes."""
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    time_sampling: ClassVar[str] = "uniform"
    guidance_scale: ClassVar[float] = 7.5
    guidance_offset: ClassVar[float] = 0.0
    """What the family's pipeline calls guidance s is s + offset here, where 1 is always off (Z-Image: 1)."""
    nullable: ClassVar[bool] = True
    """Whether a caption becomes something that can be left out, so that there is something to guide by."""
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
        super().__init__(pipeline, reference, config)
        self.conditioners: dict[str, Conditioner | Beside] = {}  # of what is on it (an adapter, a ControlNet), by part
        self.trained_guidance = 1.0  # of a training row, in distilled families that have it (`embedded_guidance`)
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

    # ------------------------------------------------------------------------------------------------ conditions
    @property
    def reads_source(self) -> bool:
        """Whether its text encoder sees the source too, so that a caption is encoded beside its picture: `encode_words`."""
        return False

    def encode_words(self, captions: Sequence[str], pixels: Tensor) -> Part:
        """Captions and what they edit (B, 3, H, W) in [-1, 1] → the part `caption_part`, one row each."""
        return self.encode_text(captions)

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

    def require_caption(self, caption: str) -> None:
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
