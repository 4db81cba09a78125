"""What a backbone is made of, and who it is."""

from __future__ import annotations

import hashlib
from abc import ABC
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from adapt.backbones.identity import Shapes, contents_of, fingerprint_of, relatives_of
from adapt.backbones.packed import way_of
from adapt.backbones.registry import FAMILIES, Family, Refusal, model_of, refusal_of
from adapt.errors import BackboneError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


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


class Held(ABC):
    """A loaded pipeline, frozen and in eval mode; see `Backbone`."""

    family: ClassVar[str]
    denoiser_name: ClassVar[str] = "transformer"

    def __init__(self, pipeline: DiffusionPipeline, reference: str, config: Mapping[str, Any] | None = None) -> None:
        self.pipeline, self.reference, self._config = pipeline, reference, config
        self.wrapped: nn.Module | None = None
        own = self.modules.get(self.denoiser_name)
        self.quantised = None if own is None else way_of(own)
        """How the denoiser is held in few bits, if it is: `gguf`, `nf4-bnb` …"""
        self._known: dict[str, str] = {}
        self._kin: frozenset[str] = frozenset()
        self.max_tokens = self.entry.max_tokens
        for module in self.modules.values():
            module.requires_grad_(False).eval()

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
        return refusal_of(self.entry, self._configs)

    @property
    def model(self) -> str | None:
        """Which of its family's models it is, where other programs tell them apart (`registry.Model`)."""
        return model_of(self.entry, self._configs)

    @property
    def _configs(self) -> Mapping[str, Mapping[str, Any]]:
        return {self.denoiser_name: self.config, "scheduler": self.scheduler_config, "pipeline": self.pipeline.config}

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

    def require_whole_weights(self, what: str) -> None:
        """Raises `BackboneError` where the denoiser's weights are in few bits, and `what` needs the numbers themselves."""
        if self.quantised is not None:
            raise BackboneError(
                f"{what}: the base's weights are in few bits ({self.quantised})",
                given=self.reference,
                next="the same base in float32, float16 or bfloat16",
            )

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
        """Fingerprints of other bases whose adapters it takes: its `variants`."""
        if self._known:
            return self._kin
        one, *others = self.denoisers.values()
        return frozenset() if others else relatives_of(one, self.variants)

    def variants(self, config: Mapping[str, Any], shapes: Shapes) -> Iterable[tuple[Mapping[str, Any], Shapes]]:
        """Configurations and shapes of the family's other networks that differ from one with these in nothing that an adapter
        changes: in what they take in, say."""
        return ()

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
