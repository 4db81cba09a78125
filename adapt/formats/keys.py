"""The end of a key says what its tensor is, the same way in every dialect; what stands before names the layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.errors import AdapterError
from adapt.formats.kinds import layer_of, tensor_names
from adapt.formats.layer import KOHYA, Layer

if TYPE_CHECKING:
    from torch import Tensor

_PEFTS_LENGTHS = "lora_magnitude_vector"
SEVERAL = tuple(f"oft_blocks.{number}" for number in range(4))
"""kohya's OFT of Flux: one rotation for each layer of diffusers' inside a fused one."""
SPELLINGS: Mapping[str, str] = {
    **{name: name for name in (*tensor_names(KOHYA), "alpha", "lora_mid.weight", *SEVERAL)},
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_A.default.weight": "lora_down.weight",  # peft's state dict, saved as it stands
    "lora_B.default.weight": "lora_up.weight",
    "lora_magnitude_vector": _PEFTS_LENGTHS,
    "lora_magnitude_vector.weight": _PEFTS_LENGTHS,
    "down.weight": "lora_down.weight",  # XLabs, and diffusers before 0.20
    "up.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight",
    "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight",
    "lora_linear_layer.up.weight": "lora_up.weight",
}
"""End of a key → kohya's name of the tensor."""
UNREAD: Mapping[str, str] = {
    "diff": "the whole difference of a weight",
    "diff_b": "a bias",
    "b_norm": "the bias of a norm",
    "w_norm": "the weight of a norm",
    "lora_B.bias": "a bias",
    "lora_up.bias": "a bias",
    "lora_down.bias": "a bias",
    "scale": "the scale of a norm",
    "bm.weight": "GLoRA with a core",
    "oft_diag": "an older OFT",
    "set_weight": "a weight itself",
    "reshape_weight": "a weight of another shape",
}
"""Ends of keys of adapters that change more than adapt applies: refused."""
ZERO_IS_NOTHING = ("diff", "diff_b", "w_norm", "b_norm", "lora_B.bias", "lora_up.bias", "lora_down.bias")
"""Those of them that change nothing where they are all zero, as trainers write them for layers that they did not train."""
LARGEST_KERNEL = 64
"""Places under a convolution: 7 × 7, 3 × 3 × 3. A core says them once for all inputs, and is held for each."""
_END = re.compile(
    r"^(.+?)\.(" + "|".join(re.escape(end) for end in sorted((*SPELLINGS, *UNREAD), key=len, reverse=True)) + r")$"
)


def split_key(key: str) -> tuple[str, str] | None:
    """`lora_unet_x.lora_down.weight` → `lora_unet_x` and `lora_down.weight`; None: no key of an adapter."""
    found = _END.match(key)
    return (found[1], found[2]) if found else None


def grouped(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by layer and by kohya's name of each.

    Raises:
        AdapterError: a key that is none of an adapter, one tensor twice, or a change that adapt does not apply.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = split_key(key)
        if found is None:
            raise AdapterError(
                "the adapter holds a key that is no part of an adapter's layer", given=f"{key} in {path}"
            )
        layer, end = found
        if end in UNREAD:
            if end not in ZERO_IS_NOTHING or bool(tensor.float().any()):
                raise _unread(path, key, UNREAD[end])
            continue
        parts = layers.setdefault(layer, {})
        if SPELLINGS[end] in parts:
            raise AdapterError("the adapter holds a tensor twice, in two spellings", given=f"{key} in {path}")
        parts[SPELLINGS[end]] = tensor
    for layer, parts in layers.items():
        if "weight" in parts and "on_input" not in parts:  # with it, it is (IA)³
            raise _unread(path, f"{layer}.weight", "a weight itself")
    return layers


def _unread(path: Path, key: str, what: str) -> AdapterError:
    return AdapterError(
        f"the adapter changes {what}, which adapt does not apply",
        given=f"{key} in {path}",
        allowed="LoRA, LoCon, DoRA, LoHa, LoKr, OFT, BOFT, GLoRA, (IA)³",
    )


def layer_from(path: Path, label: str, found: Mapping[str, Tensor]) -> Layer:
    """A layer from its tensors by kohya's names; a missing alpha is a factor of 1.

    Raises:
        AdapterError: a part of a layer, shapes that do not fit, values that are not finite.
    """
    told = found["alpha"].flatten().tolist() if "alpha" in found else [None]
    if len(told) != 1:
        raise AdapterError(f"the alpha of {label} is no single number", given=path)
    parts = {name: tensor for name, tensor in found.items() if name != "alpha"}
    alpha = None if told[0] is None else float(told[0])
    return layer_of(
        _with_lengths(_without_core(path, label, parts)), lambda rank: alpha, dialect=KOHYA, label=label, path=path
    )


def _with_lengths(parts: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """peft keeps the lengths of rows as (out,) or (1, out, 1, 1), kohya as (out, 1, …)."""
    lengths, up = parts.get(_PEFTS_LENGTHS), parts.get("lora_up.weight")
    if lengths is None or up is None:
        return parts
    rest = {name: tensor for name, tensor in parts.items() if name != _PEFTS_LENGTHS}
    return {**rest, "dora_scale": lengths.reshape(-1, *[1] * (up.ndim - 1))}


def _without_core(path: Path, label: str, parts: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """LoCon with a core (LyCORIS `use_tucker`): core (r, r, k, k) and A (r, in, 1, 1) are one A of (r, in, k, k)."""
    import torch

    core, down = parts.get("lora_mid.weight"), parts.get("lora_down.weight")
    if core is None or down is None:
        return parts
    if core.ndim < 3 or down.ndim != core.ndim or core.shape[1] != len(down) or down[0, 0].numel() != 1:
        raise AdapterError(f"the core of {label} does not fit", given=path)
    if core[0, 0].numel() > LARGEST_KERNEL:
        raise AdapterError(f"the core of {label} is of no convolution's size", given=f"{tuple(core.shape)} in {path}")
    together = torch.einsum("ij...,jk->ik...", core.float(), down.flatten(1).float())
    rest = {name: tensor for name, tensor in parts.items() if name != "lora_mid.weight"}
    return {**rest, "lora_down.weight": together.to(torch.promote_types(core.dtype, torch.float32))}
