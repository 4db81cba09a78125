"""A full fine-tune as an adapter: what it changed in each weight, as the nearest of a kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from adapt.errors import AdapterError
from adapt.formats import Layer, LoraWeights
from adapt.formats.encoder_names import by_diffusers
from adapt.formats.factorise import Keep
from adapt.lora.decompose import DECOMPOSITIONS
from adapt.lora.text_encoders import inner

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Extracted:
    """Attributes:
    weights: of the kind that was asked for.
    left_out: ‖what the rank leaves out‖ / ‖ΔW‖ over the layers that are in it.
    elsewhere: names of parameters that the fine-tune changed and no adapter can: biases, norms, embeddings.
    """

    weights: LoraWeights
    left_out: float
    elsewhere: tuple[str, ...]


@torch.no_grad()
def extracted(
    tuned: Mapping[str, nn.Module],
    base: Mapping[str, nn.Module],
    keep: Keep,
    progress: Callable[[str], None] = lambda name: None,
    kind: str = "lora",
) -> Extracted:
    """The difference of two models of one architecture, component by component.

    Args:
        tuned, base: networks by component name; components of `tuned` only are compared.
        keep: how many singular values of each layer.
        progress: is told each layer before its singular values are found.
        kind: one of `decompose.DECOMPOSITIONS`.

    Raises:
        AdapterError: other layers or shapes than the base's, or no difference at all.
    """
    found: dict[str, dict[str, Layer]] = {}
    elsewhere, lost, whole = [], 0.0, 0.0
    for component, module in tuned.items():
        theirs, ours = inner(module), inner(base[component])
        changed = _changed(component, theirs, ours)
        for name in changed:
            layer, _, parameter = name.rpartition(".")
            if (
                parameter != "weight"
                or not isinstance(ours.get_submodule(layer), LAYERS)
                or not by_diffusers(component, layer)
            ):
                elsewhere.append(f"{component}.{name}")
                continue
            progress(f"{component}.{layer}")
            ends, start = theirs.get_parameter(name).float(), ours.get_parameter(name).float()
            found.setdefault(component, {})[layer], left_out = DECOMPOSITIONS[kind](start, ends, keep)
            lost, whole = lost + float(left_out), whole + float((ends - start).square().sum())
    if not found:
        raise AdapterError("the two models have the same weights in every layer that LoRA can change")
    return Extracted(LoraWeights(found), math.sqrt(lost / whole), tuple(elsewhere))


def _changed(component: str, tuned: nn.Module, base: nn.Module) -> list[str]:
    """Names of parameters with other values."""
    theirs, ours = dict(tuned.named_parameters()), dict(base.named_parameters())
    shapes = [{name: tuple(p.shape) for name, p in each.items()} for each in (theirs, ours)]
    if shapes[0] != shapes[1]:
        strange = next(
            name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)
        )
        raise AdapterError(
            "the fine-tune is not of this base: a weight has another shape", given=f"{component}.{strange}"
        )
    return [name for name, p in theirs.items() if not torch.equal(p.float(), ours[name].float())]
