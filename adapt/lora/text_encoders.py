"""Text encoders that take an adapter: which of a base's, in which layers, and how it is set up there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from adapt.config import TrainSettings
from adapt.config.network import PATTERNS
from adapt.errors import SettingsError, did_you_mean

PREFIX = "text_encoder"
"""How diffusers' names of text encoders begin."""
ATTENTION: Mapping[str, tuple[str, ...]] = {
    "CLIPText": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "Bert": ("query", "key", "value", "attention.output.dense"),
    "T5": (".q", ".k", ".v", ".o"),
    "UMT5": (".q", ".k", ".v", ".o"),
    "Gemma": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "Llama": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "Qwen": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "Mistral": ("q_proj", "k_proj", "v_proj", "o_proj"),
}
"""Beginning of a class's name → the projections of its attention."""


def inner(module: nn.Module) -> nn.Module:
    """The network whose layers are named alike in every version of transformers: some classes keep it in `text_model`."""
    found = getattr(module, "text_model", None)
    return found if isinstance(found, nn.Module) else module


def is_clip(module: nn.Module) -> bool:
    """Whether diffusers' LoRA file can hold an adapter of it."""
    return type(module).__name__.startswith("CLIPText")


def trained(settings: TrainSettings, modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Names of the text encoders that a run trains.

    Raises:
        SettingsError: a name that the base has no text encoder of; a base without any.
    """
    asked = settings.train_text_encoder
    if not asked:
        return ()
    known = [name for name in modules if name.startswith(PREFIX)]
    if not known:
        raise SettingsError("train_text_encoder: this base has no text encoder", given=asked, next="leave it out")
    if asked == "all":
        return tuple(known)
    if not isinstance(asked, tuple):
        return tuple(name for name in known if is_clip(modules[name])) or (known[0],)
    if strange := [name for name in asked if name not in known]:
        near = did_you_mean(strange[0], known)
        hint = f" (did you mean {near}?)" if near else ""
        raise SettingsError(
            f"train_text_encoder: {strange[0]!r} is no text encoder of this base{hint}", allowed=", ".join(known)
        )
    return tuple(name for name in known if name in asked)


def settings_of(settings: TrainSettings) -> TrainSettings:
    """What stands for a text encoder, where the denoiser has its own: patterns and convolutions are the denoiser's.

    Beside OFT, BOFT and VeRA it is LoRA, whose ranks fit everywhere, and beside T-LoRA, as captions have no time; beside DoRA
    too: transformers (5.23) does not find the lengths in diffusers' file and takes the base's own.
    """
    rank = settings.text_encoder_rank or settings.rank
    alpha = settings.text_encoder_alpha or (settings.alpha if settings.text_encoder_rank is None else None)
    kind = settings.kind if settings.kind in ("lora", "loha", "lokr") else "lora"
    own = {"kind": kind, "rank": rank, "alpha": alpha, "conv_rank": None, "conv_alpha": None}
    return settings.model_copy(update={**own, **{name: {} for name in PATTERNS}})


def targets_of(settings: TrainSettings, module: nn.Module) -> Sequence[str]:
    """Ends of the names of the layers that are trained.

    Raises:
        SettingsError: a class of which adapt does not know where its attention is.
    """
    if settings.text_encoder_targets:
        return settings.text_encoder_targets
    name = type(module).__name__
    found = next((ends for start, ends in ATTENTION.items() if name.startswith(start)), None)
    if found is None:
        raise SettingsError(
            f"where the attention of a {name} stands is not known",
            next="give text_encoder_targets=[…], ends of the names of its linear layers",
        )
    return tuple(end.removeprefix(".") for end in found)
