"""LoRA's own arithmetic with fewer passes over large tensors: what peft's layers compute, and nothing else changes.

peft adds s · B(A x) to the base's output in a multiplication and an addition of that size, and autograd does the same backwards
and adds two gradients of x. Here they are one matrix product each (`addmm`), forwards and backwards: no large tensor is made
or kept besides those of the base. What peft does beside (several adapters, merging, DoRA, dropout) is left to peft's own layer.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.lora.injection import tuned
from adapt.lora.kinds import NAME


class _Linear(torch.autograd.Function):
    """y = W x + b + s · B A x for x (…, in), A (r, in), B (out, r); W and b are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        y = F.linear(x, weight, bias)  # autocast decides its type, and with it that of all that follows
        rows = x.reshape(-1, x.shape[-1]).to(y.dtype)
        inner = rows @ down.to(y.dtype).t()  # (n, r)
        y.view(-1, y.shape[-1]).addmm_(inner, up.to(y.dtype).t(), alpha=scale)
        ctx.save_for_backward(rows, inner, weight, down, up)
        ctx.scale, ctx.shape, ctx.kind = scale, x.shape, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, weight, down, up = ctx.saved_tensors
        out = grad.reshape(-1, grad.shape[-1])  # (n, out)
        through = (out @ up.to(out.dtype)).mul_(ctx.scale)  # (n, r): the gradient of A x
        of_up = (out.t() @ inner).mul_(ctx.scale).to(up.dtype)
        of_down = (through.t() @ rows).to(down.dtype)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (out @ weight.to(out.dtype)).addmm_(through, down.to(out.dtype)).view(ctx.shape).to(ctx.kind)
        return of_x, None, None, of_down, of_up, None


def lean(module: nn.Module) -> int:
    """Every layer of peft's in a module that can be computed so now is; returns how many. peft's own forward stays for the
    others, and in these for all that it does beside."""
    makers = {layer: _maker(layer) for _, layer in tuned(module)}
    found = {layer: maker for layer, maker in makers.items() if maker is not None}
    for layer, maker in found.items():
        layer.forward = MethodType(maker(type(layer).forward), layer)
    return len(found)


def _maker(layer: Any) -> Any:
    return _linear if _is(layer, nn.Linear, "Linear") else _conv if _is(layer, nn.Conv2d, "Conv2d") else None


def _is(layer: Any, base: type[nn.Module], name: str) -> bool:
    from peft.tuners import lora

    plain = type(layer) is getattr(lora, name) and type(layer.base_layer) is base and not layer.lora_variant
    return plain and isinstance(layer.lora_dropout[NAME], nn.Identity)


def _ready(layer: Any, x: Tensor, more: Any) -> bool:
    """One adapter, on, not merged, in one type of numbers or under autocast; nobody looks at the base's layer (EVA), asks for its
    gradient (LoRA-GA) or computes it elsewhere (offloaded weights)."""
    if more or layer.disable_adapters or layer.merged or layer.active_adapters != [NAME]:
        return False
    if layer.base_layer.weight.requires_grad or "forward" in vars(layer.base_layer):
        return False
    if any(_watched(m) for m in (layer.base_layer, layer.lora_A[NAME])):
        return False
    same = x.dtype == layer.base_layer.weight.dtype == layer.lora_A[NAME].weight.dtype
    return same or torch.is_autocast_enabled(x.device.type)


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _linear(usual: Any) -> Any:
    def forward(layer: Any, x: Tensor, *args: Any, **more: Any) -> Tensor:
        if not _ready(layer, x, args or more):
            found: Tensor = usual(layer, x, *args, **more)
            return found
        base, down, up = layer.base_layer, layer.lora_A[NAME], layer.lora_B[NAME]
        done: Tensor = _Linear.apply(x, base.weight, base.bias, down.weight, up.weight, layer.scaling[NAME])  # type: ignore[no-untyped-call]
        return done

    return forward


def _conv(usual: Any) -> Any:
    def forward(layer: Any, x: Tensor, *args: Any, **more: Any) -> Tensor:
        if not _ready(layer, x, args or more):
            found: Tensor = usual(layer, x, *args, **more)
            return found
        inner = layer.lora_A[NAME](x) * layer.scaling[NAME]  # the smaller of the two to multiply
        y: Tensor = layer.base_layer(x)
        return y.add_(layer.lora_B[NAME](inner))

    return forward
