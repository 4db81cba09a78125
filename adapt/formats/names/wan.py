"""Wan's own names of its layers (Wan-Video/Wan2.1 `model.py`), and diffusers' (its checkpoint converter,
huggingface/diffusers `scripts/convert_wan_to_diffusers.py`)."""

from __future__ import annotations

from adapt.formats.names.native import Names, native

_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_TOLD = "condition_embedder"

WAN = Names(
    (
        *(native(f"blocks.{{}}.self_attn.{own}", f"blocks.{{}}.attn1.{module}") for own, module in _ATTENTION.items()),
        *(native(f"blocks.{{}}.cross_attn.{own}", f"blocks.{{}}.attn2.{module}") for own, module in _ATTENTION.items()),
        native("blocks.{}.cross_attn.k_img", "blocks.{}.attn2.add_k_proj"),
        native("blocks.{}.cross_attn.v_img", "blocks.{}.attn2.add_v_proj"),
        native("blocks.{}.ffn.0", "blocks.{}.ffn.net.0.proj"),
        native("blocks.{}.ffn.2", "blocks.{}.ffn.net.2"),
        native("patch_embedding", "patch_embedding"),
        native("text_embedding.0", f"{_TOLD}.text_embedder.linear_1"),
        native("text_embedding.2", f"{_TOLD}.text_embedder.linear_2"),
        native("time_embedding.0", f"{_TOLD}.time_embedder.linear_1"),
        native("time_embedding.2", f"{_TOLD}.time_embedder.linear_2"),
        native("time_projection.1", f"{_TOLD}.time_proj"),
        native("img_emb.proj.1", f"{_TOLD}.image_embedder.ff.net.0.proj"),
        native("img_emb.proj.3", f"{_TOLD}.image_embedder.ff.net.2"),
        native("head.head", "proj_out"),
    )
)
