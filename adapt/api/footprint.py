"""Memory of training one step, counted without weights: networks on the meta device have shapes and no storage.

What is counted: the denoiser's weights, LoRA with its gradients and the two moments of AdamW in fp32, and every tensor that the
backward pass keeps, with and without gradient checkpointing. Not counted: encoders (they can be unloaded), the allocator's
fragments and the kernels' workspace. Attention is counted as fused kernels do it: inputs, output and one number a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.api.families import USUAL, Footprint
from adapt.backbones import Backbone
from adapt.backbones.registry import FAMILIES
from adapt.lora import inject
from adapt.quiet import quiet_libraries
from adapt.types import Sizes
from conditioning import Condition

NF4_BITS = 4.127
"""Bits a weight with double quantisation: 4, and a share of the scales (Dettmers et al. 2023, arXiv 2305.14314, section 3)."""


@cache
def usual() -> Mapping[str, Mapping[str, Any]]:
    """The denoisers of published checkpoints: class, arguments where they differ from the class's own, parameters, and the shapes
    of latents and text states."""
    found: dict[str, dict[str, Any]] = json.loads(USUAL.read_text("utf-8"))
    return found


def on_meta(class_name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A network of diffusers without storage, in bfloat16."""
    with quiet_libraries():
        import diffusers

        with torch.device("meta"):
            network: nn.Module = getattr(diffusers, class_name)(**arguments)
        return network.to(torch.bfloat16).eval()


def stand_in(family: str, network: nn.Module, told: Mapping[str, Any] | None = None) -> Backbone:
    """The family's interface around a network alone: enough to predict.

    Args:
        told: what else its pipeline knows: scales of its autoencoder, small networks.
    """
    from diffusers.configuration_utils import FrozenDict

    kind = FAMILIES[family].load()
    name = kind.denoiser_name
    config = FrozenDict(boundary_ratio=None, expand_timesteps=False)
    known = {"vae_scale_factor": 8, **(told or {}), name: network}
    return kind(SimpleNamespace(components={name: network}, config=config, **known), family)


def count(entry: Mapping[str, Any], rank: int = 16) -> Footprint:
    """Of one of the `usual` denoisers with LoRA of this rank in the family's own layers, at its own size."""
    network = on_meta(entry["class"], entry["arguments"])
    beside = {name: on_meta(made["class"], made["arguments"]) for name, made in entry.get("networks", {}).items()}
    backbone = stand_in(entry["family"], network, {**entry.get("pipeline", {}), **beside})
    parameters = sum(p.numel() for p in network.parameters())
    linear = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Linear))
    injection = inject(network, rank=rank, alpha=rank, dropout=0.0, targets=backbone.lora_targets, seed=0)
    trained = sum(p.numel() for p in injection.parameters.values())
    saved = _saved(backbone, entry)
    network.enable_gradient_checkpointing()  # type: ignore[operator]
    network.train()
    checkpointed = _saved(backbone, entry)
    return Footprint(
        parameters,
        2 * parameters,
        round(linear * NF4_BITS / 8) + 2 * (parameters - linear),
        16 * trained,
        saved,
        checkpointed,
    )


def _saved(backbone: Backbone, entry: Mapping[str, Any], device: str | torch.device = "meta") -> int:
    """Bytes of all storages that the graph of one prediction keeps, without those of parameters."""
    x_t = torch.zeros(1, *entry["latents"], device=device, dtype=torch.bfloat16)
    text = {name: x_t.new_zeros(1, *shape) for name, shape in entry["text"].items() if name not in ("mask", "label")}
    if "label" in entry["text"]:
        text["label"] = torch.zeros(1, dtype=torch.long, device=device)
    if "mask" in entry["text"]:  # lengths are read from it
        text["mask"] = torch.ones(1, *entry["text"]["mask"], dtype=torch.long)
    side = entry["latents"][-1] * 8
    part = entry.get("part", "text")
    numbers = {  # a single one is looked at
        name: torch.tensor([value], device="cpu" if isinstance(value, float) else device)
        for name, value in entry.get("facts", {}).items()
    }
    facts = numbers or backbone.facts([Sizes.whole(side, side)])
    condition = Condition({part: text} if part else {}, facts)
    own = {p.untyped_storage()._cdata for p in backbone.denoiser.parameters()}
    kept: dict[int, tuple[Any, int]] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage, storage.nbytes()
        return x

    t = torch.full((1,), 500.0, device=device)
    with _every_row(), _fused_attention(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        prediction = backbone.predict(x_t, t, condition)
    assert prediction.shape == x_t.shape
    return sum(size for _, size in kept.values())


class _Attention(torch.autograd.Function):
    """What a fused kernel keeps."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty((*q.shape[:-1], v.shape[-1]))
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError("nothing is computed here")


def _attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    attended: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return attended


def _every_row() -> AbstractContextManager[Any]:
    """Rows that are chosen by their times (`nonzero`) are all there: on the meta device nobody can look."""
    import torch.fx.experimental._config as config

    chosen: AbstractContextManager[Any] = config.patch(meta_nonzero_assume_all_nonzero=True)  # type: ignore[attr-defined]
    return chosen


@contextmanager
def _fused_attention() -> Iterator[None]:
    kept = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = kept
