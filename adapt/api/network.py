"""What is trained in a base: settled before step 1, put in, and where it comes from if it does not start new."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from adapt.adapter import Adapter
from adapt.api.assistant import put_on as put_on_assistant
from adapt.api.classes import grown, own_layers, put_in_classes, put_on
from adapt.api.controls import put_in_control
from adapt.api.experts import taught as taught_denoisers
from adapt.api.image_prompts import put_in_image_prompts
from adapt.config import TrainSettings
from adapt.config.network import ONE_SIZE
from adapt.errors import SettingsError
from adapt.formats.names.families import BACKBONES, WIDTHS
from adapt.formats.readers import loads_in

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.backbones import Backbone
    from adapt.lora import Injection, Network
    from adapt.lora.taught import Taught
    from adapt.lora.words import NewWords
    from conditioning import ClassConditioner


def settled_network(settings: TrainSettings, backbone: Backbone) -> dict[str, Any]:
    """`targets`, `alpha` and the names of text encoders filled in from the base.

    Raises:
        SettingsError: targets or patterns that fit no layer of the base; an `init_from` that does not fit the run.
        AdapterError: an `init_from` that cannot be read, or was made for another base.
    """
    from adapt.lora import convolution_ends, layout, text_encoders
    from adapt.lora.warm_start import judge

    if settings.grow_from:
        return _as_grown(settings, backbone)
    targets = settings.targets or backbone.lora_targets
    if settings.conv_rank and not settings.targets:
        targets = tuple(dict.fromkeys((*targets, *convolution_ends(backbone.denoiser))))
    idle = _idle(backbone, targets)
    own_ranks = {name: rank for name, rank in settings.rank_pattern.items() if name not in idle}
    settings = settings.model_copy(update={"rank_pattern": {**idle, **own_ranks}})
    denoisers = taught_denoisers(settings, backbone)
    encoders = text_encoders.trained(settings, backbone.modules)
    own = text_encoders.settings_of(settings)
    found = {name: layout(backbone.denoisers[name], settings, targets) for name in denoisers}
    for name in encoders:
        module = text_encoders.inner(backbone.modules[name])
        found[name] = layout(module, own, text_encoders.targets_of(settings, backbone.modules[name]))
    if settings.init_from:
        start = start_of(settings.init_from, backbone, tuple(found))
        for name, layers in start.weights.modules.items():
            judge(layers, found[name], settings if name in denoisers else own)
        _require_same_words(start, settings)
        _require_no_conditioners(start)
    if words := _words(backbone, settings):
        words.words.remove()  # they fit
    several = own_ranks or settings.conv_rank or settings.kind in ONE_SIZE  # alpha is each layer's own, or nobody's
    return {
        "targets": targets,
        "alpha": settings.alpha or (None if several else float(settings.rank)),
        "train_text_encoder": encoders or False,
        "rank_pattern": settings.rank_pattern,
    }


def _as_grown(settings: TrainSettings, backbone: Backbone) -> dict[str, Any]:
    """What is known of the network of an adapter that learns further classes, and how it learned: its learning rate is the
    further classes' too, unless one was given."""
    told = grown(str(settings.grow_from), backbone).facts.training
    known = {name: told[name] for name in ("kind", "rank", "alpha") if told.get(name) is not None}
    alike = told.get("optimizer") == settings.optimizer  # others have rates of another size
    if alike and told.get("learning_rate") and "learning_rate" not in settings.model_fields_set:
        known["learning_rate"] = told["learning_rate"]
    return {"targets": backbone.lora_targets, "train_text_encoder": False, **known}


def _idle(backbone: Backbone, targets: Sequence[str]) -> dict[str, int]:
    """Rank 0 for layers that would never have a gradient, as `rank_pattern` has it."""
    from adapt.lora.layout import targeted

    found = targeted(backbone.denoiser, targets)
    return {f"^{re.escape(name)}": 0 for name in backbone.idle if name in found}


def put_in(
    backbone: Backbone,
    settings: TrainSettings,
    tell: Callable[[str], None] | None = None,
    labels: Sequence[str] = (),
) -> Network:
    """The adapter inside the base's denoiser and the text encoders that are trained, at its start.

    Args:
        settings: settled ones.
        tell: is told what became of `init_from`.
        labels: the classes, where some are taught.
    """
    from adapt.api.offload import bring_adapter
    from adapt.lora import Network, install, text_encoders
    from adapt.lora.lean import lean
    from adapt.lora.warm_start import begin

    denoisers, own = taught_denoisers(settings, backbone), text_encoders.settings_of(settings)
    parent = grown(settings.grow_from, backbone) if settings.grow_from else None
    taught = _taught(backbone, settings, labels, parent)
    if parent is not None:
        classes = cast("ClassConditioner", taught["class"].conditioner)
        return Network(denoisers[0], {denoisers[0]: put_on(parent, backbone, classes)}, taught=taught)
    assistant = put_on_assistant(settings, backbone)
    parts = {name: _install(backbone, settings, name) for name in denoisers}
    for name in text_encoders.trained(settings, backbone.modules):
        module = backbone.modules[name]
        targets = text_encoders.targets_of(settings, module)
        parts[name] = install(text_encoders.inner(module), own, targets, settings.seed, scope=f"{name} ")
    if settings.offload_weights or settings.shard:
        for part in parts.values():
            bring_adapter(part.parameters.values(), backbone.device)
    if not settings.compile:  # compilers join peft's steps by themselves
        for part in parts.values():
            lean(part.module)
    rates, until = _paces(settings, [name for name in parts if name not in denoisers])
    words = _words(backbone, settings)
    network = Network(denoisers[0], parts, rates, words, until, taught, denoisers[1:], settings.shard, assistant)
    if settings.init_from:
        start = start_of(settings.init_from, backbone, tuple(parts))
        for name, layers in start.weights.modules.items():
            became = begin(parts[name], layers)
            if tell is not None:
                tell(f"{name} starts from {settings.init_from}: {became}")
        if network.words is not None:
            network.words.take(start.words)
    return network


def _install(backbone: Backbone, settings: TrainSettings, name: str) -> Injection:
    """The adapter of one denoiser; where there are several, at home in the rows that it predicts."""
    from adapt.lora import install
    from adapt.lora.own_rows import OwnRows

    scope = "" if name == backbone.denoiser_name else f"{name} "
    targets = settings.targets or backbone.lora_targets
    part = install(backbone.denoisers[name], settings, targets, settings.seed, scope=scope)
    clock = part.dice.clock
    if settings.kind == "tlora":
        clock.share_of = backbone.objective().share
    if backbone.experts:
        part.then.append(backbone.listen(OwnRows(part.dice, partial(backbone.takes, name))))
    elif settings.kind == "tlora":
        part.then.append(backbone.listen(clock))
    return part


def _taught(
    backbone: Backbone, settings: TrainSettings, labels: Sequence[str], parent: Adapter | None
) -> dict[str, Taught]:
    """Conditioners that are taught, by the part of the condition that they make; `parent` is the adapter that grows."""
    own = own_layers(parent, backbone, labels, settings) if parent else None
    found = {
        "class": put_in_classes(backbone, settings, labels, parent.classes if parent else None, own),
        "image": put_in_image_prompts(backbone, settings),
        "control": put_in_control(backbone, settings),
    }
    return {part: each for part, each in found.items() if each is not None}


def _words(backbone: Backbone, settings: TrainSettings) -> NewWords | None:
    """The new words of a run, at their start."""
    from adapt.lora.words import teach

    if not settings.new_tokens:
        return None
    return teach(backbone.pipeline, settings.new_tokens, settings.new_token_vectors, settings.seed)


def _paces(settings: TrainSettings, encoders: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Learning rates of their own, and steps before which they learn, of text encoders and new words."""
    from adapt.lora.network import WORDS

    rates: dict[str, float | None] = dict.fromkeys(encoders, settings.text_encoder_learning_rate)
    rates[WORDS] = settings.new_token_learning_rate
    until = dict.fromkeys(encoders, settings.text_encoder_stop * settings.steps)
    until[WORDS] = settings.new_token_stop * settings.steps
    return {name: rate for name, rate in rates.items() if rate is not None}, until


def _require_same_words(start: Adapter, settings: TrainSettings) -> None:
    """Raises `SettingsError` when a run would lose words that its start has, or gives them more or fewer vectors."""
    for word, found in start.words.items():
        count = len(next(iter(found.values())))
        if word not in settings.new_tokens or count != settings.new_token_vectors:
            raise SettingsError(
                f"init_from has the word {word}, which this run would not teach",
                given=f"new_tokens={settings.new_tokens}, new_token_vectors={settings.new_token_vectors}",
                next=f"new_tokens='{{{word}: }}' new_token_vectors={count}",
            )


def _require_no_conditioners(start: Adapter) -> None:
    """Raises `SettingsError` when a run would lose what its start has learned beside layers and words."""
    if start.conditioners:
        classes = "grow_from teaches it further classes; " if start.classes else ""
        raise SettingsError(
            f"init_from has learned conditioners ({', '.join(sorted(start.conditioners))}), which this run would not go on with",
            given=start.name,
            next=f"{classes}leave init_from out",
        )


def start_of(path: str, backbone: Backbone, trained: Sequence[str]) -> Adapter:
    """The adapter that a run starts from.

    Args:
        trained: components that the run trains.

    Raises:
        AdapterError: not there, not readable, made for another base, or for components that this run does not train.
    """
    from adapt.errors import AdapterError
    from adapt.lora import weight_of

    adapter = Adapter.load(path).as_trained()
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
    return adapter


def digest_of(settings: TrainSettings) -> str | None:
    """sha256 of the adapter that a run starts from, of the one that its teacher wears and of the assistant, for `run.json`; None
    without any."""
    given = (settings.init_from or settings.grow_from, settings.distill_adapter, settings.assistant)
    worn = dict.fromkeys(path for path in given if path)
    return " ".join(Adapter.digest_of(path) for path in worn) or None


def text_width(backbone: Backbone) -> int | None:
    """Of the base's cross-attention, where programs that read kohya's format have bases of its kind; else None."""
    width = getattr(backbone.denoiser.config, "cross_attention_dim", None)
    return width if backbone.entry.kohya is not None and width in WIDTHS else None


def known_to_uis(backbone: Backbone) -> str | None:
    """What programs that read kohya's format know it as (`formats/names/families.py`); None: they have no bases of its kind."""
    if backbone.entry.kohya is None:
        return None
    if backbone.denoiser_name == "unet":
        return WIDTHS.get(text_width(backbone) or 0)
    return BACKBONES.get(backbone.family)


def readers(settings: TrainSettings, backbone: Backbone) -> tuple[str, ...]:
    """Programs that will be able to take the adapter."""
    from adapt.lora import text_encoders

    encoders = text_encoders.trained(settings, backbone.modules)
    clip = all(text_encoders.is_clip(backbone.modules[name]) for name in encoders)
    named = set(encoders) <= set(backbone.entry.kohya or ()) and not (settings.new_tokens or settings.taught_parts)
    if settings.boft_factors > 1:
        return "adapt", "peft with its CUDA extension"  # without, peft makes one factor of them and cannot load it
    return loads_in(settings.kind, known_to_uis(backbone) if named else None, clip and backbone.loader == "diffusers")
