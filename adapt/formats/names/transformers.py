"""Flux's and Stable Diffusion 3's own names of their layers (black-forest-labs/flux `model.py`; Stability-AI/sd3.5 `mmditx.py`),
and diffusers' (its checkpoint converters: huggingface/diffusers `single_file_utils.py`)."""

from __future__ import annotations

from adapt.formats.names.native import Names, Native, native


def _joint(own: str, text: str, block: str) -> tuple[Native, ...]:
    """Attention and its text side, which both models have."""
    return (
        native(own.format("qkv"), *(f"{block}.attn.to_{x}" for x in "qkv")),
        native(text.format("qkv"), *(f"{block}.attn.add_{x}_proj" for x in "qkv")),
        native(own.format("proj"), f"{block}.attn.to_out.0"),
        native(text.format("proj"), f"{block}.attn.to_add_out"),
    )


_BLOCK, _SINGLE, _TIME = "transformer_blocks.{}", "single_transformer_blocks.{}", "time_text_embed"
_LAST = (
    native("final_layer.adaLN_modulation.1", "norm_out.linear", halves=True),
    native("final_layer.linear", "proj_out"),
)

FLUX = Names(
    (
        *_joint("double_blocks.{{}}.img_attn.{}", "double_blocks.{{}}.txt_attn.{}", _BLOCK),
        native("double_blocks.{}.img_mlp.0", f"{_BLOCK}.ff.net.0.proj"),
        native("double_blocks.{}.img_mlp.2", f"{_BLOCK}.ff.net.2"),
        native("double_blocks.{}.img_mod.lin", f"{_BLOCK}.norm1.linear"),
        native("double_blocks.{}.txt_mlp.0", f"{_BLOCK}.ff_context.net.0.proj"),
        native("double_blocks.{}.txt_mlp.2", f"{_BLOCK}.ff_context.net.2"),
        native("double_blocks.{}.txt_mod.lin", f"{_BLOCK}.norm1_context.linear"),
        native(
            "single_blocks.{}.linear1",
            *(f"{_SINGLE}.attn.to_{x}" for x in "qkv"),
            f"{_SINGLE}.proj_mlp",
            shares=(1, 1, 1, 4),
        ),
        native("single_blocks.{}.linear2", f"{_SINGLE}.proj_out"),
        native("single_blocks.{}.modulation.lin", f"{_SINGLE}.norm.linear"),
        native("img_in", "x_embedder"),
        native("txt_in", "context_embedder"),
        native("time_in.in_layer", f"{_TIME}.timestep_embedder.linear_1"),
        native("time_in.out_layer", f"{_TIME}.timestep_embedder.linear_2"),
        native("vector_in.in_layer", f"{_TIME}.text_embedder.linear_1"),
        native("vector_in.out_layer", f"{_TIME}.text_embedder.linear_2"),
        native("guidance_in.in_layer", f"{_TIME}.guidance_embedder.linear_1"),
        native("guidance_in.out_layer", f"{_TIME}.guidance_embedder.linear_2"),
        *_LAST,
    )
)

SD3 = Names(
    (
        *_joint("joint_blocks.{{}}.x_block.attn.{}", "joint_blocks.{{}}.context_block.attn.{}", _BLOCK),
        native("joint_blocks.{}.x_block.attn2.qkv", *(f"{_BLOCK}.attn2.to_{x}" for x in "qkv")),
        native("joint_blocks.{}.x_block.attn2.proj", f"{_BLOCK}.attn2.to_out.0"),
        native("joint_blocks.{}.x_block.mlp.fc1", f"{_BLOCK}.ff.net.0.proj"),
        native("joint_blocks.{}.x_block.mlp.fc2", f"{_BLOCK}.ff.net.2"),
        native("joint_blocks.{}.x_block.adaLN_modulation.1", f"{_BLOCK}.norm1.linear"),
        native("joint_blocks.{}.context_block.mlp.fc1", f"{_BLOCK}.ff_context.net.0.proj"),
        native("joint_blocks.{}.context_block.mlp.fc2", f"{_BLOCK}.ff_context.net.2"),
        # in the last block it is AdaLN-continuous, of height 2 d; in the others of 6 d
        native("joint_blocks.{}.context_block.adaLN_modulation.1", f"{_BLOCK}.norm1_context.linear", halves=True),
        native("x_embedder.proj", "pos_embed.proj"),
        native("context_embedder", "context_embedder"),
        native("t_embedder.mlp.0", f"{_TIME}.timestep_embedder.linear_1"),
        native("t_embedder.mlp.2", f"{_TIME}.timestep_embedder.linear_2"),
        native("y_embedder.mlp.0", f"{_TIME}.text_embedder.linear_1"),
        native("y_embedder.mlp.2", f"{_TIME}.text_embedder.linear_2"),
        *_LAST,
    )
)
