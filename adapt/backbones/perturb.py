"""Perturbed networks: what PAG and skip-layer guidance push away from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from adapt.errors import SettingsError
from conditioning import Condition, Predictor

BLOCKS: dict[str, tuple[str, ...]] = {
    "BasicTransformerBlock": ("hidden_states",),
    "JointTransformerBlock": ("encoder_hidden_states", "hidden_states"),
    "FluxTransformerBlock": ("encoder_hidden_states", "hidden_states"),
    "ChromaTransformerBlock": ("encoder_hidden_states", "hidden_states"),
    "AuraFlowJointTransformerBlock": ("encoder_hidden_states", "hidden_states"),
    "Flux2TransformerBlock": ("encoder_hidden_states", "hidden_states"),
    "CogVideoXBlock": ("hidden_states", "encoder_hidden_states"),
    "HiDreamImageTransformerBlock": ("hidden_states", "encoder_hidden_states"),
    "HiDreamImageSingleTransformerBlock": ("hidden_states",),
    "Kandinsky5TransformerDecoderBlock": ("hidden_states",),  # its first input, whatever it is called there
}
"""Transformer blocks that can be left out: diffusers' class, and which of its inputs it gives back, in order."""
KNOWN = ("AttnProcessor", "AttnProcessor2_0", "SanaLinearAttnProcessor2_0")
"""Attention processors whose inside `IdentityAttention` knows: in other layers text and picture may be one sequence."""


class Perturbed:
    """`predict` with some layers perturbed for the length of each call.

    Args:
        predict: the backbone's.
        denoiser: the network behind it.
        kind: `pag`: self-attention looks at each place alone (its map is the identity); `slg`: blocks are left out.
        layers: pieces of dotted names, such as `mid`, `up_blocks.1`, or the number of a transformer block.

    Raises:
        SettingsError: a layer that is not there, or a family that cannot take it.
    """

    def __init__(self, predict: Predictor, denoiser: nn.Module, kind: str, layers: Sequence[str]) -> None:
        choose = _self_attentions if kind == "pag" else _blocks
        there = choose(denoiser)
        if not there:
            raise SettingsError(f"guidance {kind} has no layers to work on in this base", given=type(denoiser).__name__)
        self._predict, self._perturb = predict, _looking_at_itself if kind == "pag" else _left_out
        self._modules = [module for layer in layers for module in _named(there, layer.strip(), kind)]

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        with self._perturb(self._modules):
            return self._predict(x_t, t, condition)


def _self_attentions(denoiser: nn.Module) -> dict[str, nn.Module]:
    """Attention layers that see only the picture, by name: those of which `IdentityAttention` knows the inside."""
    known = {name: m for name, m in denoiser.named_modules() if type(getattr(m, "processor", None)).__name__ in KNOWN}
    return {n: m for n, m in known.items() if not m.is_cross_attention and m.added_kv_proj_dim is None}


def _blocks(denoiser: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in denoiser.named_modules() if type(module).__name__ in BLOCKS}


def _named(there: dict[str, nn.Module], layer: str, kind: str) -> list[nn.Module]:
    """The modules of a layer: a piece of their names, whole numbers only (`blocks.1` is not `blocks.10`)."""
    piece = f"transformer_blocks.{layer}" if layer.isdigit() else layer
    at = r"^" if layer.isdigit() else r"(^|\.)"
    pattern = re.compile(at + re.escape(piece) + (r"(?!\d)" if piece[-1:].isdigit() else ""))
    found = [module for name, module in there.items() if piece and pattern.search(name)]
    if not found:
        names = [re.sub(r"\.(attn\d?|transformer_blocks\.\d+)$", "", name) for name in there]
        some = list(dict.fromkeys(names))[:12]
        raise SettingsError(f"guidance {kind}: no such layer in this base", given=layer, allowed=", ".join(some))
    return found


class IdentityAttention:
    """An attention processor whose map is the identity: each place gets its own value (PAG, eq. 11)."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        x, shape = hidden_states, hidden_states.shape
        if attn.spatial_norm is not None:
            x = attn.spatial_norm(x, temb)
        if x.ndim == 4:
            x = x.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        x = attn.to_out[1](attn.to_out[0](attn.to_v(x)))
        if len(shape) == 4:
            x = x.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            x = x + hidden_states
        seen: Tensor = x / attn.rescale_output_factor
        return seen


@contextmanager
def _looking_at_itself(modules: Sequence[Any]) -> Iterator[None]:
    before = [module.processor for module in modules]
    try:
        for module in modules:
            module.processor = IdentityAttention()
        yield
    finally:
        for module, processor in zip(modules, before, strict=True):
            module.processor = processor


@contextmanager
def _left_out(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Blocks that give back what they were given."""
    try:
        for module in modules:
            module.forward = _through(module)  # on the instance: deleted again below
        yield
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)


def _through(module: nn.Module) -> Callable[..., Any]:
    names = BLOCKS[type(module).__name__]

    def forward(*args: Tensor, **kwargs: Any) -> Any:
        given = dict(zip(("hidden_states", "encoder_hidden_states"), args, strict=False)) | kwargs
        found = tuple(given[name] for name in names)
        return found[0] if len(found) == 1 else found

    return forward
