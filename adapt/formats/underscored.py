"""diffusers' names of layers with underscores for dots, before kohya's names of tensors: `lora_transformer_…` (OneTrainer's older
files for Stable Diffusion 3 and Flux) and `lycoris_…` (SimpleTuner, through LyCORIS's wrapper)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from adapt.errors import AdapterError
from adapt.formats.encoder_names import in_files, in_memory
from adapt.formats.kohya import tensors_of
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family
from adapt.formats.names.words import dotted, flat
from adapt.formats.placing import Place, at, in_diffusers_names

if TYPE_CHECKING:
    from torch import Tensor

ONETRAINER, LYCORIS = re.compile(r"^lora_(transformer|te[123]?)_"), re.compile(r"^lycoris_")
ENCODERS = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2", "text_encoder_3": "lora_te3"}


def placer(names: Iterable[str]) -> Callable[[str], Place | None]:
    """Where a layer of a name belongs."""
    prefixes = {f"{prefix}_": component for component, prefix in ENCODERS.items()} | {"lora_te_": "text_encoder"}

    def place(name: str) -> Place | None:
        for prefix in ("lora_transformer_", "lycoris_"):
            if name.startswith(prefix):
                return in_diffusers_names(dotted(name.removeprefix(prefix)))
        for prefix, component in prefixes.items():
            if name.startswith(prefix):
                return at(component, in_memory(component, dotted(name.removeprefix(prefix))))
        return None

    return place


def said_by_onetrainer(weights: LoraWeights, family: Family) -> dict[str, Tensor]:
    """An adapter in OneTrainer's older names.

    Raises:
        AdapterError: a UNet: there they are kohya's.
    """
    if family.component != "transformer":
        raise AdapterError("OneTrainer's names are kohya's for this family", given=family.title, next="--format kohya")
    return _said(weights, {"transformer": "lora_transformer", **ENCODERS})


def said_by_lycoris(weights: LoraWeights, family: Family) -> dict[str, Tensor]:
    """An adapter in SimpleTuner's names.

    Raises:
        AdapterError: text encoders: it has no names for them.
    """
    return _said(weights, {family.component: "lycoris"})


def _said(weights: LoraWeights, prefixes: dict[str, str]) -> dict[str, Tensor]:
    if strange := set(weights.modules) - set(prefixes):
        raise AdapterError("the format has no name for a component of this adapter", given=", ".join(sorted(strange)))
    return tensors_of(
        {
            f"{prefixes[component]}_{flat(in_files(component, module))}": layer
            for component, layers in weights.modules.items()
            for module, layer in layers.items()
        }
    )
