"""What tells families apart in a file of weights: names of their layers, as published and as diffusers calls them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Mark:
    """Attributes:
    families: rows of the table whose denoisers have these names.
    title: for people.
    published: patterns that names fit in the layout that the model was published in, all of them; () where that is diffusers'.
    diffusers: the same in diffusers' layout.
    absent: patterns that no name fits.
    """

    families: tuple[str, ...]
    title: str
    published: tuple[str, ...]
    diffusers: tuple[str, ...]
    absent: tuple[str, ...] = ()


MARKS = (
    Mark(
        ("stable-diffusion-xl", "kolors"), "Stable Diffusion XL", ("input_blocks.0.0.weight", "label_emb.0.0.weight"),
        ("conv_in.weight", "add_embedding.linear_1.weight", "down_blocks.*"),
    ),
    Mark(
        ("stable-diffusion", "icons"), "Stable Diffusion 1.x or 2.x",
        ("input_blocks.0.0.weight", "time_embed.0.weight", "*.attn2.to_k.weight"),
        ("conv_in.weight", "time_embedding.linear_1.weight", "*block*.transformer_blocks.0.attn2.to_k.weight"),
        absent=("label_emb.*", "add_embedding.*", "class_embedding.*"),
    ),
    Mark(
        ("stable-diffusion-3",), "Stable Diffusion 3", ("joint_blocks.0.x_block.attn.qkv.weight", "y_embedder.mlp.0.weight"),
        ("transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight", "time_text_embed.text_embedder.*"),
    ),
    Mark(
        ("flux",), "Flux.1", ("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight", "vector_in.*"),
        ("single_transformer_blocks.0.proj_mlp.weight", "time_text_embed.text_embedder.linear_1.weight", "x_embedder.weight"),
    ),
    Mark(
        ("flux2", "flux2-klein"), "Flux.2", ("double_blocks.0.img_attn.qkv.weight", "double_stream_modulation_img.lin.weight"),
        ("single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight", "double_stream_modulation_img.linear.weight"),
    ),
    Mark(
        ("chroma",), "Chroma", ("distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight"),
        ("distilled_guidance_layer.in_proj.weight", "single_transformer_blocks.0.proj_mlp.weight"),
    ),
    Mark(
        ("aura-flow",), "AuraFlow", ("double_layers.0.attn.w2q.weight", "cond_seq_linear.weight"),
        ("joint_transformer_blocks.*", "register_tokens", "context_embedder.weight"),
    ),
    Mark(
        ("pixart-alpha", "pixart-sigma"), "PixArt", (),
        ("adaln_single.linear.weight", "caption_projection.linear_1.weight", "pos_embed.proj.weight"),
    ),
    Mark(
        ("sana",), "Sana", ("blocks.0.cross_attn.kv_linear.weight", "blocks.0.mlp.inverted_conv.conv.weight"),
        ("transformer_blocks.0.ff.conv_inverted.weight", "caption_norm.weight"),
    ),
    Mark(
        ("lumina2",), "Lumina-Image 2.0", ("cap_embedder.0.weight", "layers.0.adaLN_modulation.1.weight"),
        ("time_caption_embed.caption_embedder.0.weight", "context_refiner.0.attn.to_q.weight"),
    ),
    Mark(
        ("z-image",), "Z-Image", ("cap_embedder.0.weight", "layers.0.adaLN_modulation.0.weight", "x_embedder.weight"),
        ("all_x_embedder.2-1.weight", "cap_embedder.0.weight"),
    ),
    Mark(
        ("qwen-image",), "Qwen-Image", (),
        ("transformer_blocks.0.img_mod.1.weight", "txt_norm.weight", "img_in.weight"),
    ),
    Mark(
        ("wan",), "Wan", ("patch_embedding.weight", "blocks.0.self_attn.q.weight", "head.head.weight"),
        ("patch_embedding.weight", "blocks.0.attn1.to_q.weight", "condition_embedder.time_proj.weight"),
    ),
    Mark(
        ("ltx-video",), "LTX-Video",
        ("patchify_proj.weight", "adaln_single.linear.weight", "transformer_blocks.0.attn1.q_norm.weight"),
        ("proj_in.weight", "time_embed.linear.weight", "transformer_blocks.0.attn1.norm_q.weight", "scale_shift_table"),
    ),
    Mark(
        ("dit",), "DiT", (), ("transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight", "proj_out_1.weight"),
    ),
)  # fmt: skip
"""A family without a row is taken for what its folder says; whether its weights fit is seen when they are loaded."""


def marked(names: Collection[str]) -> tuple[Mark, bool] | None:
    """The row that a denoiser's names, without a prefix, are of, and whether they are those that it was published with."""
    for mark in MARKS:
        if any(fnmatchcase(name, pattern) for pattern in mark.absent for name in names):
            continue
        for patterns, published in ((mark.published, True), (mark.diffusers, False)):
            if patterns and all(any(fnmatchcase(name, p) for name in names) for p in patterns):
                return mark, published
    return None


def mark_of(family: str) -> Mark | None:
    """The row of a family."""
    return next((mark for mark in MARKS if family in mark.families), None)
