"""What is trained in a base: settled before step 1, put in, and where it comes from if it does not start new."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from adapt.adapter import Adapter
from adapt.config import TrainSettings
from adapt.formats.kohya import BASES
from adapt.formats.readers import loads_in

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.backbones import Backbone
    from adapt.formats import LoraWeights
    from adapt.lora import Network


def settled_network(settings: TrainSettings, backbone: Backbone) -> dict[str, Any]:
    """`targets`, `alpha` and the names of text encoders filled in from the base.

    Raises:
        SettingsError: targets or patterns that fit no layer of the base; an `init_from` that does not fit the run.
        AdapterError: an `init_from` that cannot be read, or was made for another base.
    """
    from adapt.lora import convolution_ends, layout, text_encoders
    from adapt.lora.warm_start import judge

    targets = settings.targets or backbone.lora_targets
    if settings.conv_rank and not settings.targets:
        targets = tuple(dict.fromkeys((*targets, *convolution_ends(backbone.denoiser))))
    places = layout(backbone.denoiser, settings, targets)
    encoders = text_encoders.trained(settings, backbone.modules)
    own, found = text_encoders.settings_of(settings), {backbone.denoiser_name: places}
    for name in encoders:
        module = text_encoders.inner(backbone.modules[name])
        found[name] = layout(module, own, text_encoders.targets_of(settings, backbone.modules[name]))
    if settings.init_from:
        start = start_of(settings.init_from, backbone, tuple(found))
        for name, layers in start.modules.items():
            judge(layers, found[name], settings if name == backbone.denoiser_name else own)
    several = settings.rank_pattern or settings.conv_rank  # then each layer's alpha is its own rank
    return {
        "targets": targets,
        "alpha": settings.alpha or (None if several else float(settings.rank)),
        "train_text_encoder": encoders or False,
    }


def put_in(backbone: Backbone, settings: TrainSettings, tell: Callable[[str], None] | None = None) -> Network:
    """The adapter inside the base's denoiser and the text encoders that are trained, at its start.

    Args:
        settings: settled ones.
        tell: is told what became of `init_from`.
    """
    from adapt.lora import Network, install, text_encoders
    from adapt.lora.warm_start import begin

    denoiser, own = backbone.denoiser_name, text_encoders.settings_of(settings)
    parts = {denoiser: install(backbone.denoiser, settings, settings.targets or backbone.lora_targets, settings.seed)}
    for name in text_encoders.trained(settings, backbone.modules):
        module = backbone.modules[name]
        targets = text_encoders.targets_of(settings, module)
        parts[name] = install(text_encoders.inner(module), own, targets, settings.seed, scope=f"{name} ")
    rate = settings.text_encoder_learning_rate
    network = Network(denoiser, parts, {} if rate is None else {name: rate for name in parts if name != denoiser})
    if settings.init_from:
        for name, layers in start_of(settings.init_from, backbone, tuple(parts)).modules.items():
            became = begin(parts[name], layers)
            if tell is not None:
                tell(f"{name} starts from {settings.init_from}: {became}")
    return network


def start_of(path: str, backbone: Backbone, trained: Sequence[str]) -> LoraWeights:
    """The adapter that a run starts from.

    Args:
        trained: components that the run trains.

    Raises:
        AdapterError: not there, not readable, made for another base, or for components that this run does not train.
    """
    from adapt.errors import AdapterError
    from adapt.lora import weight_of

    adapter = Adapter.load(path)
    adapter.check(backbone)
    for name, layer in adapter.layers().items():
        weight_of(backbone.modules, name, layer)
    if strange := sorted(set(adapter.weights.modules) - set(trained)):
        encoders = all(name.startswith("text_encoder") for name in strange)
        raise AdapterError(
            "init_from has weights that this run does not train",
            given=", ".join(strange),
            allowed=", ".join(trained),
            next=f"train_text_encoder=[{', '.join(strange)}]" if encoders else None,
        )
    return adapter.weights


def digest_of(settings: TrainSettings) -> str | None:
    """sha256 of the adapter that a run starts from, for `run.json`; None when it starts new."""
    return Adapter.digest_of(settings.init_from) if settings.init_from else None


def text_width(backbone: Backbone) -> int | None:
    """Of the base's cross-attention, where programs that read kohya's format have bases of its kind; else None."""
    width = getattr(backbone.denoiser.config, "cross_attention_dim", None)
    return width if backbone.family == "stable-diffusion" and width in BASES else None


def readers(settings: TrainSettings, backbone: Backbone) -> tuple[str, ...]:
    """Programs that will be able to take the adapter."""
    from adapt.lora import text_encoders

    encoders = text_encoders.trained(settings, backbone.modules)
    clip = all(text_encoders.is_clip(backbone.modules[name]) for name in encoders)
    return loads_in(settings.kind, text_width(backbone) is not None and set(encoders) <= {"text_encoder"}, clip)
