"""What is trained in a base: settled before step 1, put in, and where it comes from if it does not start new."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from adapt import files
from adapt.adapter import Adapter
from adapt.config import TrainSettings
from adapt.formats.kohya import BASES
from adapt.formats.readers import loads_in

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.backbones import Backbone
    from adapt.formats import Layer
    from adapt.lora import Injection


def settled_network(settings: TrainSettings, backbone: Backbone) -> dict[str, Any]:
    """`targets` and `alpha` filled in from the base.

    Raises:
        SettingsError: targets or patterns that fit no layer of the base; an `init_from` that does not fit the run.
        AdapterError: an `init_from` that cannot be read, or was made for another base.
    """
    from adapt.lora import convolution_ends, layout
    from adapt.lora.warm_start import judge

    targets = settings.targets or backbone.lora_targets
    if settings.conv_rank and not settings.targets:
        targets = tuple(dict.fromkeys((*targets, *convolution_ends(backbone.denoiser))))
    places = layout(backbone.denoiser, settings, targets)
    if settings.init_from:
        judge(start_of(settings.init_from, backbone), places, settings)
    several = settings.rank_pattern or settings.conv_rank  # then each layer's alpha is its own rank
    return {"targets": targets, "alpha": settings.alpha or (None if several else float(settings.rank))}


def put_in(backbone: Backbone, settings: TrainSettings, tell: Callable[[str], None] | None = None) -> Injection:
    """The adapter inside the base's denoiser, at its start.

    Args:
        tell: is told what became of `init_from`.
    """
    from adapt.lora import install
    from adapt.lora.warm_start import begin

    injection = install(backbone.denoiser, settings, settings.targets or backbone.lora_targets, settings.seed)
    if settings.init_from:
        start = begin(injection, start_of(settings.init_from, backbone))
        if tell is not None:
            tell(f"starting from {settings.init_from}: {start}")
    return injection


def start_of(path: str, backbone: Backbone) -> Mapping[str, Layer]:
    """The layers of the adapter that a run starts from.

    Raises:
        AdapterError: not there, not readable, made for another base, or for more than its denoiser.
    """
    from adapt.errors import AdapterError
    from adapt.lora import weight_of

    adapter = Adapter.load(path)
    adapter.check(backbone)
    for name, layer in adapter.layers().items():
        weight_of(backbone.modules, name, layer)
    if set(adapter.weights.modules) != {backbone.denoiser_name}:
        raise AdapterError(
            "init_from has weights that this run does not train",
            given=", ".join(sorted(adapter.weights.modules)),
            allowed=backbone.denoiser_name,
        )
    return adapter.weights.modules[backbone.denoiser_name]


def digest_of(settings: TrainSettings) -> str | None:
    """sha256 of the adapter that a run starts from, for `run.json`; None when it starts new."""
    return files.digest(Adapter.locate(settings.init_from)) if settings.init_from else None


def text_width(backbone: Backbone) -> int | None:
    """Of the base's cross-attention, where programs that read kohya's format have bases of its kind; else None."""
    width = getattr(backbone.denoiser.config, "cross_attention_dim", None)
    return width if backbone.family == "stable-diffusion" and width in BASES else None


def readers(settings: TrainSettings, backbone: Backbone) -> tuple[str, ...]:
    """Programs that will be able to take the adapter."""
    return loads_in(settings.kind, text_width(backbone) is not None)
