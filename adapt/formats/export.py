"""An adapter's weights as one file of any dialect that is written, read back by this package's strict reader before it counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt import files
from adapt.errors import AdapterError, SettingsError
from adapt.formats.agree import Difference, differences
from adapt.formats.described import Description
from adapt.formats.dialects import WRITTEN, read, write
from adapt.formats.diffusers_lora import write_lora
from adapt.formats.experts import as_first
from adapt.formats.kohya import write_kohya
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family, family_of
from adapt.formats.spec import header, layers_of, model_for, model_of

FORMATS = ("diffusers", "kohya", *sorted(WRITTEN))
TOLERANCE = 1e-6
"""‖ΔW - ΔW'‖ / ‖ΔW‖ that a dialect may cost: the rounding of a strength that goes into the weights."""
HALF_TOLERANCE = 2e-3
"""The same for files in half precision."""


def export(
    path: Path,
    weights: LoraWeights,
    format: str,
    *,
    configs: Mapping[str, Mapping[str, Any]],
    told: Description,
    width: int | None = None,
    backbone: str | None = None,
) -> None:
    """Writes atomically and reads back. What does not hold what was written is set aside as `<name>.refused`.

    Args:
        format: one of `FORMATS`.
        configs: peft's configuration by component.
        told: what the file says about itself.
        width: of the text that the base's cross-attention takes; None: as the layers say.
        backbone: the family that the adapter was made for, where it says so.

    Raises:
        AdapterError: the format cannot express this adapter, or what was written does something else.
    """
    if format not in FORMATS:
        raise SettingsError("unknown format", given=format, allowed=", ".join(FORMATS))
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "diffusers":
        model = model_for(weights.modules, told, backbone, width)
        write_lora(path, weights, configs, header(layers_of(weights.modules), model, told, weights.metadata))
        written = weights
    else:
        written = _write(path, weights, format, told, family_of(weights.modules, width, backbone))
    _prove(path, weights, written)


def _write(path: Path, weights: LoraWeights, format: str, told: Description, family: Family) -> LoraWeights:
    """In another dialect than diffusers'; returns what a reader finds."""
    if format == "kohya":
        return write_kohya(path, weights, told=told, family=family)
    model = model_of(family, weights.modules, told)
    return write(
        path, weights, WRITTEN[format], {}, family,
        lambda layers: header(layers, model, told, weights.metadata, omi=format == "omi"),
    )  # fmt: skip


def _prove(path: Path, weights: LoraWeights, written: LoraWeights) -> None:
    """Raises `AdapterError` when the file does not hold what was written, or that is not what the adapter does."""
    try:
        again = as_first(read(path))
    except AdapterError as error:
        raise _refused(path, f"the exported file cannot be read: {error.message}") from error
    if not written.equals(again):
        found = differences(written, again)
        raise _refused(path, _in(found, "reads differently from what was written"), found)
    if found := differences(weights, again, _tolerance(weights)):
        raise _refused(path, _in(found, "does something else"), found, allowed=_tolerance(weights))


def _in(found: Sequence[Difference], what: str) -> str:
    return f"the exported file {what} in {len(found)} layers"


def _refused(path: Path, what: str, found: Sequence[Difference] = (), allowed: float | None = None) -> AdapterError:
    """Sets the file aside, and says in which layer it differs first."""
    kept = files.set_aside(path)
    return AdapterError(
        f"{what}; it is set aside",
        given=found[0].line if found else path,
        allowed=allowed,
        next=f"please report it with {kept.name}: it is a fault of adapt's writer",
    )


def _tolerance(weights: LoraWeights) -> float:
    layers = (layer for inside in weights.modules.values() for layer in inside.values())
    half = any(tensor.element_size() < 4 for layer in layers for tensor in layer.tensors().values())
    return HALF_TOLERANCE if half else TOLERANCE
