"""The numbers of a file of weights, in a type that can be computed with: 8-bit floats are widened, with their scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adapt.checkpoints.header import header, require_gguf
from adapt.errors import BackboneError
from adapt.progress import say
from adapt.quiet import quiet_libraries

EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
SCALES = ("scale_weight", "weight_scale")
"""What ComfyUI calls the scale of a weight in 8 bits, beside it: one number, or one a row."""
REMARKS = ("scaled_fp8", "scale_input", "input_scale", "comfy_quant", *SCALES)
"""Last parts of names that say how weights are packed, or how inputs might be."""


def values_of(file: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Name → tensor. Of GGUF those of diffusers, packed as they are.

    Args:
        dtype: what 8-bit floats become; all else is as in the file.

    Raises:
        BackboneError: it cannot be read, or is packed in a way that nothing here reads.
    """
    header(file)  # whole?
    if file.suffix == ".gguf":
        return _of_gguf(file)
    try:
        values = load_file(file)
    except (OSError, SafetensorError) as error:
        raise BackboneError("weights that cannot be read", given=file, next="download it again") from error
    _require_readable(file, values)
    packed = {str(v.dtype).removeprefix("torch.") for v in values.values() if v.dtype in EIGHT_BITS}
    if packed:
        say(f"{file.name}: weights in {', '.join(sorted(packed))}, held in {str(dtype).removeprefix('torch.')}")
    return dict(_widened(values, dtype))


def _of_gguf(file: Path) -> dict[str, Tensor]:
    require_gguf(file)
    from diffusers.models.model_loading_utils import load_gguf_checkpoint

    try:
        with quiet_libraries():
            found: dict[str, Tensor] = load_gguf_checkpoint(str(file))
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BackboneError(f"the GGUF file cannot be read: {reason}", given=file) from error
    return found


def _require_readable(file: Path, values: Mapping[str, Tensor]) -> None:
    """Raises `BackboneError` for weights in whole numbers: what they mean stands in no standard."""
    packed = (n for n, v in values.items() if n.endswith(".weight") and v.ndim > 1 and not v.is_floating_point())
    if found := next(packed, None):
        raise BackboneError(
            "weights packed in a way that adapt does not read",
            given=f"{file}, {found} in {str(values[found].dtype).removeprefix('torch.')}",
            allowed="float32, float16, bfloat16, float8, GGUF, and diffusers folders in NF4, int8 or of torchao",
        )


def _widened(values: Mapping[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for name, value in values.items():
        head, _, last = name.rpartition(".")
        if last in REMARKS:
            continue
        if value.dtype not in EIGHT_BITS:
            yield name, value
            continue
        scale = next((s for kind in SCALES if (s := values.get(f"{head}.{kind}")) is not None), None)
        wide = value.to(dtype if scale is None else torch.float32)
        yield name, wide if scale is None or last != "weight" else (wide * _over_rows(scale, wide)).to(dtype)


def _over_rows(scale: Tensor, weight: Tensor) -> Tensor:
    """() or (1,) or (rows,) or (rows, 1) → what multiplies a weight (rows, …)."""
    return scale.float().reshape(-1, *[1] * (weight.ndim - 1))
