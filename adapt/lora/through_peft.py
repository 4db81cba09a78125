"""A saved peft folder taken by peft itself: the independent reader that all kinds but LoRA and DoRA are proved with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from adapt.errors import AdapterError
from adapt.formats import Layer
from adapt.lora.boft import without_extension
from adapt.lora.injection import tuned


def load_by_peft(module: nn.Module, folder: Path) -> None:
    """What the card tells users to do: `PeftModel.from_pretrained` puts the layers into `module` itself.

    Raises:
        AdapterError: peft does not take the folder.
    """
    from peft import PeftModel

    without_extension()
    try:
        PeftModel.from_pretrained(module, str(folder))
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise AdapterError(f"peft does not take the adapter: {str(error).splitlines()[0]}") from error


def require_layers(module: nn.Module, layers: Mapping[str, Layer], component: str, reader: str) -> dict[str, Any]:
    """The layers that a library has put into a module, by name.

    Raises:
        AdapterError: not exactly these.
    """
    taken = dict(tuned(module))
    if taken.keys() != layers.keys():
        raise AdapterError(f"{reader} took {len(taken.keys() & layers.keys())} of {len(layers)} layers of {component}")
    return taken


def require_taken(module: nn.Module, layers: Mapping[str, Layer], component: str, reader: str) -> None:
    """Raises `AdapterError` when a library has not put exactly these layers into a module, one with another strength, or one
    without values."""
    taken = require_layers(module, layers, component, reader)
    for name, layer in layers.items():
        if not all(
            abs(scale - layer.scale) <= 1e-9 * abs(layer.scale)
            for scale in getattr(taken[name], "scaling", {}).values()
        ):
            raise AdapterError(f"{reader} takes {component}.{name} with another strength", allowed=layer.alpha)
    if empty := [name for name, parameter in module.named_parameters() if parameter.is_meta]:
        raise AdapterError(f"{reader} found no values for {len(empty)} tensors of {component}", given=empty[0])
