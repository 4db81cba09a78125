"""`down_blocks.0.attn1.to_q` ↔ `down_blocks_0_attn1_to_q`: which underscores are dots, by the words that have their own."""

from __future__ import annotations

import re
from functools import cache

_WORDS = """
    adaLN_modulation add_embedding add_k_proj add_q_proj add_v_proj all_final_layer all_x_embedder cap_embedder
    condition_embedder context_embedder context_refiner conv_in conv_norm_out conv_out conv_shortcut down_blocks
    feed_forward ff_context guidance_embedder image_embedder img_in img_mlp img_mod k_proj linear_1 linear_2 mid_block
    noise_refiner norm1_context norm_out out_proj patch_embedding pos_embed proj_in proj_mlp proj_out q_proj self_attn
    single_transformer_blocks t_embedder text_embedder text_model text_projection time_emb_proj time_embedder
    time_embedding time_proj time_text_embed timestep_embedder to_add_out to_k to_out to_q to_v transformer_blocks
    txt_in txt_mlp txt_mod up_blocks v_proj wi_0 wi_1 x_embedder
"""
WORDS = tuple(_WORDS.split())
"""Parts of module names of diffusers' and transformers' models in which the underscore is no dot."""
_COMPOUND = re.compile(
    r"(?<![a-zA-Z])("
    + "|".join(re.escape(word.replace("_", ".")) for word in sorted(WORDS, key=len, reverse=True))
    + r")(?![a-zA-Z])"
)


def flat(module: str) -> str:
    """`mid_block.attentions.0.proj_in` → `mid_block_attentions_0_proj_in`."""
    return module.replace(".", "_")


@cache
def dotted(name: str) -> str:
    """The reverse of `flat`, for modules of diffusers' and transformers' models."""
    return _COMPOUND.sub(lambda found: found[0].replace(".", "_"), name.replace("_", "."))
