"""Layers whose weights are held in few bits: GGUF's, bitsandbytes', torchao's, quanto's. What they stand for, and how wide.

A packed layer computes W x with a W that is made anew in every pass. Its weight is no tensor that anything could be added to.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

WAYS = {"GGUFParameter": "gguf", "Params4bit": "nf4-bnb", "Int8Params": "int8-bnb"}
"""Class of a weight → what it is called here; else it is its package."""


def is_packed(module: nn.Module) -> bool:
    """Whether a layer's weight is in few bits."""
    weight = module._parameters.get("weight")
    if not isinstance(module, nn.Linear) or weight is None:
        return False
    return type(weight) not in (nn.Parameter, Tensor) or not weight.is_floating_point()


def packed_layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Its packed layers by name."""
    for name, module in network.named_modules():
        if is_packed(module):
            assert isinstance(module, nn.Linear)
            yield name, module


def way_of(network: nn.Module) -> str | None:
    """How a network is packed: `gguf`, `nf4-bnb`, `int8-bnb`, `torchao`, `quanto`; None: it is not."""
    first = next(packed_layers(network), None)
    if first is None:
        return None
    kind = type(first[1].weight)
    return WAYS.get(kind.__name__) or ("quanto" if "quanto" in kind.__module__ else kind.__module__.partition(".")[0])


def shape_of(module: nn.Module) -> tuple[int, ...]:
    """Of a layer's weight, as it computes."""
    if is_packed(module):
        return (int(module.out_features), int(module.in_features))  # type: ignore[arg-type]
    return tuple(module.get_parameter("weight").shape)


def unpacked(module: nn.Module) -> Tensor:
    """The numbers that a packed layer computes with, (out, in)."""
    weight: Any = module.get_parameter("weight").detach()
    kind = type(weight).__name__
    if kind == "GGUFParameter":
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        found = dequantize_gguf_tensor(weight)
    elif kind == "Params4bit":
        found = import_module("bitsandbytes.functional").dequantize_4bit(weight.data, weight.quant_state)
    elif kind == "Int8Params":
        found = weight.CB.float() * (weight.SCB / 127)[:, None]
    else:
        found = weight.dequantize()
    return torch.as_tensor(found).reshape(shape_of(module))


def stored(parameter: Any) -> Tensor:
    """A parameter's numbers as they lie in memory, for digests."""
    if hasattr(parameter, "as_tensor"):
        plain: Tensor = parameter.as_tensor()
        return plain
    if _is_wrapper(parameter):
        return torch.as_tensor(getattr(parameter, parameter.__tensor_flatten__()[0][0]))
    return torch.as_tensor(parameter.data)


@torch.no_grad()
def recast(network: nn.Module, dtype: torch.dtype) -> None:
    """Packed layers compute in `dtype`: scales and biases become it, and what a package keeps as the type of its outputs."""
    for _, module in packed_layers(network):
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = dtype  # type: ignore[assignment]
        if _is_wrapper(module.weight):
            module.weight = nn.Parameter(_rebuilt(module.weight, dtype), requires_grad=False)
        if module.bias is not None:
            module.bias.data = module.bias.data.to(dtype)


def _is_wrapper(parameter: Tensor) -> bool:
    """Whether it is made of other tensors, by torch's own protocol."""
    return type(parameter) not in (nn.Parameter, Tensor) and hasattr(parameter, "__tensor_flatten__")


def _rebuilt(weight: Any, dtype: torch.dtype) -> Tensor:
    """The same numbers with scales in another type, on the device of its parts: quanto's says meta, as diffusers loads it."""
    names, told = weight.__tensor_flatten__()
    parts = [(name, getattr(weight, name)) for name in names]
    wide = {name: part.to(dtype) if part.is_floating_point() else part for name, part in parts}
    told = {key: dtype if isinstance(value, torch.dtype) else value for key, value in told.items()}
    made: Tensor = type(weight).__tensor_unflatten__(wide, told, weight.size(), weight.stride())
    return made
