"""Where each place of the picture looks: attention maps, as in DAAM (Tang et al. 2022, arXiv 2210.04885).

The network is not touched. Before an attention layer runs, its softmax is computed a second time beside it, from the layer's own
inputs and projections: a picture that is drawn with a `Recorder` is byte for byte the one that is drawn without. (Attention
kernels give no maps away; a processor in their place that does would draw another picture, by rounding.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adapt.backbones.base import Backbone
from adapt.errors import SettingsError
from conditioning import Condition
from conditioning.matching import rows_of

INPUTS = ("hidden_states", "encoder_hidden_states", "attention_mask", "image_rotary_emb")
"""Of diffusers' attention layers, in their order."""


class Look(NamedTuple):
    """One call of an attention layer, as its softmax sees it.

    Attributes:
        query: of the picture's places (B, heads, N, D).
        key: of all that they look at (B, heads, S, D).
        text: which of the S are the text's tokens.
        bias: added to the logits (B, 1, 1, S), or None.
    """

    query: Tensor
    key: Tensor
    text: slice
    bias: Tensor | None = None


def each_head(look: Look) -> Iterator[Tensor]:
    """Head by head, where each place looks: (B, N, S), rows sum to 1, in fp32. Not all heads at once: joint attention at 1024 px
    has 75 MB a head."""
    for head in range(look.query.shape[1]):
        query, key = look.query[:, head].float(), look.key[:, head].float()
        logits = query @ key.mT * query.shape[-1] ** -0.5
        yield (logits if look.bias is None else logits + look.bias[:, 0].float()).softmax(-1)


def seen(look: Look) -> Tensor:
    """Mean over heads: (B, N, L + 1), the L tokens of the text and, last, everything else (the picture itself, in joint
    attention). Rows sum to 1."""
    total = torch.zeros(())
    for place in each_head(look):
        words = place[..., look.text]
        total = total.to(words.device) + torch.cat(
            [words, place.sum(-1, keepdim=True) - words.sum(-1, keepdim=True)], -1
        )
    return total / look.query.shape[1]


# ------------------------------------------------------------------------------------------------ by kind of layer
def _heads(x: Tensor, attn: Any, norm: nn.Module | None) -> Tensor:
    """(B, S, heads · D) → (B, heads, S, D), normalised."""
    x = x.view(*x.shape[:2], attn.heads, -1).transpose(1, 2)
    return x if norm is None else norm(x)


def _cross(attn: Any, x: Tensor, text: Tensor, mask: Tensor | None, **_: Any) -> Look:
    if x.ndim == 4:
        x = x.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
    text = attn.norm_encoder_hidden_states(text) if attn.norm_cross else text
    key = _heads(attn.to_k(text), attn, attn.norm_k)
    return Look(_heads(attn.to_q(x), attn, attn.norm_q), key, slice(0, text.shape[1]), _bias(mask))


def _cross_of_sana(attn: Any, x: Tensor, text: Tensor, mask: Tensor | None, **_: Any) -> Look:
    """Sana normalises all heads at once."""
    query, key = attn.to_q(x), attn.to_k(text)
    query = query if attn.norm_q is None else attn.norm_q(query)
    key = key if attn.norm_k is None else attn.norm_k(key)
    return Look(_heads(query, attn, None), _heads(key, attn, None), slice(0, text.shape[1]), _bias(mask))


def _bias(mask: Tensor | None) -> Tensor | None:
    """(B, 1, S), added to logits → (B, 1, 1, S)."""
    return None if mask is None else mask.view(len(mask), 1, 1, -1)


def _joint(attn: Any, x: Tensor, text: Tensor, **_: Any) -> Look:
    """Stable Diffusion 3: the picture's places first, then the text's."""
    words = _heads(attn.add_k_proj(text), attn, attn.norm_added_k)
    key = torch.cat([_heads(attn.to_k(x), attn, attn.norm_k), words], 2)
    return Look(_heads(attn.to_q(x), attn, attn.norm_q), key, slice(x.shape[1], None))


def _joint_of_flux(
    attn: Any, x: Tensor, text: Tensor | None, mask: Tensor | None, rotary: Any, length: int, **_: Any
) -> Look:
    """Flux: the text first; in single blocks both are one sequence already. Chroma's mask (B, 1, S, S) is added, and the same
    for every place of the picture."""
    from diffusers.models.embeddings import apply_rotary_emb

    query, key = _heads(attn.to_q(x), attn, attn.norm_q), _heads(attn.to_k(x), attn, attn.norm_k)
    if text is None:
        query = query[:, :, length:]
    else:
        key = torch.cat([_heads(attn.add_k_proj(text), attn, attn.norm_added_k), key], 2)
    if rotary is not None:
        query = apply_rotary_emb(query, tuple(angle[length:] for angle in rotary))
        key = apply_rotary_emb(key, rotary)
    return Look(query, key, slice(0, length), None if mask is None else mask[:, :, -1:])


def _parallel_of_flux2(attn: Any, x: Tensor, text: None, rotary: Any, length: int, **_: Any) -> Look:
    """Flux.2's single blocks: one layer makes queries, keys, values and the feed-forward's, of text and picture."""
    from diffusers.models.embeddings import apply_rotary_emb

    query, key = attn.to_qkv_mlp_proj(x)[..., : 2 * attn.inner_dim].chunk(2, -1)
    query, key = (
        apply_rotary_emb(_heads(z, attn, norm), rotary) for z, norm in ((query, attn.norm_q), (key, attn.norm_k))
    )
    return Look(query[:, :, length:], key, slice(0, length))


def _joint_of_aura(attn: Any, x: Tensor, text: Tensor | None, length: int, **_: Any) -> Look:
    """AuraFlow: registers, the text, the picture; without positions. In single blocks all are one sequence already."""
    query, key = _heads(attn.to_q(x), attn, attn.norm_q), _heads(attn.to_k(x), attn, attn.norm_k)
    said = slice(REGISTERS, REGISTERS + length)
    if text is None:
        return Look(query[:, :, said.stop :], key, said)
    return Look(query, torch.cat([_heads(attn.add_k_proj(text), attn, attn.norm_added_k), key], 2), said)


REGISTERS = 8
"""Tokens that AuraFlow's network has before the text's, in diffusers a number of the class."""
KINDS: Mapping[str, Callable[..., Look]] = {
    "AttnProcessor2_0": _cross,
    "SanaAttnProcessor2_0": _cross_of_sana,
    "JointAttnProcessor2_0": _joint,
    "FluxAttnProcessor": _joint_of_flux,
    "Flux2AttnProcessor": _joint_of_flux,
    "Flux2ParallelSelfAttnProcessor": _parallel_of_flux2,
    "AuraFlowAttnProcessor2_0": _joint_of_aura,
}
"""diffusers' attention processor → what its softmax sees: those whose inside is known."""
TOGETHER = ("FluxAttnProcessor", "Flux2AttnProcessor", "Flux2ParallelSelfAttnProcessor", "AuraFlowAttnProcessor2_0")
"""Those in whose layers text and picture always meet."""


def layers_of(denoiser: nn.Module) -> dict[str, nn.Module]:
    """The layers in which places of the picture look at tokens of the text, by name; none, where their inside is not known."""
    return {name: module for name, module in denoiser.named_modules() if _looks_at_text(module)}


def _looks_at_text(module: Any) -> bool:
    kind = type(getattr(module, "processor", None)).__name__
    if kind == "JointAttnProcessor2_0":
        return module.added_kv_proj_dim is not None
    return kind in KINDS and (kind in TOGETHER or bool(module.is_cross_attention))


def require_layers(backbone: Backbone) -> dict[str, nn.Module]:
    """`layers_of` its denoiser.

    Raises:
        SettingsError: there are none, with the reason.
    """
    if backbone.caption_part != "text":
        raise SettingsError("the base is told a class, and no words that anything could look at", given=backbone.family)
    found = layers_of(backbone.modules[backbone.denoiser_name])
    if not found:
        raise SettingsError(
            "in this family words and picture are one sequence, or meet in layers whose inside adapt does not know",
            given=backbone.family,
            allowed="icons, Stable Diffusion 1 to 3.5 and XL, PixArt, Sana, Flux.1 and 2, Chroma, AuraFlow",
        )  # fmt: skip
    return found


# ------------------------------------------------------------------------------------------------ recording
@dataclass
class Sum:
    """Attributes:
    total: of maps (N, L + 1).
    calls: how many there were.
    """

    total: Tensor
    calls: int = 1


class Recorder:
    """`predict`, and what the places of one picture looked at, summed over heads and time steps.

    Args:
        backbone: its prediction is what it would be otherwise, bit for bit.
        condition: one row: of a batch only those rows are recorded that say it, not those of negatives.

    Raises:
        SettingsError: a family whose layers are not known.
    """

    def __init__(self, backbone: Backbone, condition: Condition) -> None:
        self._layers, self._backbone, self.condition = require_layers(backbone), backbone, condition
        self._length = backbone.tokens_of(condition).tokens.shape[1]
        self.sums: dict[str, Sum] = {}

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        rows = rows_of(condition, self.condition)
        if not len(rows):
            return self._backbone.predict(x_t, t, condition)
        with self._listening(rows[:1].to(x_t.device)):
            return self._backbone.predict(x_t, t, condition)

    def maps(self) -> dict[str, Tensor]:
        """Layer → where each place looked (N, L + 1), on the CPU: the mean over heads and time steps. Rows sum to 1; the last
        column is what is not text."""
        return {name: (each.total / each.calls).cpu() for name, each in self.sums.items()}

    @contextmanager
    def _listening(self, rows: Tensor) -> Iterator[None]:
        with ExitStack() as stack:
            for name, layer in self._layers.items():
                handle = layer.register_forward_pre_hook(self._ear(name, rows), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def _ear(self, name: str, rows: Tensor) -> Callable[..., None]:
        def hear(layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
            given = {**dict(zip(INPUTS, args, strict=False)), **kwargs}
            x, text, mask = (_rows(given.get(key), rows) for key in INPUTS[:3])
            look = KINDS[type(layer.processor).__name__]
            found = look(layer, x, text, mask=mask, rotary=given.get(INPUTS[3]), length=self._length)
            self._add(name, seen(found)[0])

        return hear

    def _add(self, name: str, found: Tensor) -> None:
        if name in self.sums:
            self.sums[name] = Sum(self.sums[name].total + found, self.sums[name].calls + 1)
        else:
            self.sums[name] = Sum(found)


def _rows(x: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if x is None else x[rows]
