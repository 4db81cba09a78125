"""Tiny pipelines as one file with the names that they were published in: diffusers' maps, the other way round."""

import re

DENOISER = "model.diffusion_model."


def checkpoint_of(pipeline):
    """A Stable Diffusion. Name → tensor; what `from_single_file` makes this pipeline of again."""
    found = {**unet_of(pipeline), **vae_of(pipeline)}
    return tidy({**found, **clip_of(pipeline.text_encoder, "cond_stage_model.transformer.")})


def second_of(pipeline):
    """A Stable Diffusion 2: its text encoder in OpenCLIP's names."""
    found = {**unet_of(pipeline), **vae_of(pipeline)}
    return tidy({**found, **open_clip_of(pipeline.text_encoder, "cond_stage_model.model.")})


def xl_of(pipeline):
    """A Stable Diffusion XL: its second text encoder in OpenCLIP's names."""
    found = {**unet_of(pipeline), **vae_of(pipeline)}
    found |= clip_of(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
    return tidy({**found, **open_clip_of(pipeline.text_encoder_2, "conditioner.embedders.1.model.")})


def joint_of(pipeline, encoders=True):
    """A Stable Diffusion 3 or a Flux.1, as ComfyUI's checkpoints have them."""
    found = {DENOISER + key: value for key, value in transformer_of(pipeline).items()} | vae_of(pipeline)
    names = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"}
    if "Flux" in type(pipeline).__name__:
        names = {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"}
    for component, name in names.items() if encoders else ():
        make = t5_of if name == "t5xxl" else clip_of
        found |= make(getattr(pipeline, component), f"text_encoders.{name}.transformer.")
    return tidy(found)


def transformer_of(pipeline):
    """The transformer alone of a family whose published names diffusers knows, as its authors name it."""
    values, kind = pipeline.transformer.state_dict(), type(pipeline.transformer).__name__
    if kind in FUSED:
        return tidy(of_fused(values, *FUSED[kind]))
    if kind == "ChromaTransformer2DModel":
        return tidy(of_chroma(values))
    if kind in RENAMED:
        return tidy({renamed(key, RENAMED[kind]): value for key, value in fused(values).items()})
    return tidy(of_joint(values, kind))


def tidy(found):
    return {key: value.detach().clone().contiguous() for key, value in found.items()}


# ------------------------------------------------------------------------------------------------ UNets, autoencoder
def unet_of(pipeline):
    from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING

    unet, known = pipeline.unet, DIFFUSERS_TO_LDM_MAPPING["unet"]
    layers, named = unet.config.layers_per_block + 1, dict(known["layers"])
    if unet.config.addition_embed_type:
        named |= known["addition_embed_type"]
    values = unet.state_dict().items()
    return {DENOISER + (named.get(key) or of_unet(key, layers, pipeline)): value for key, value in values}


def vae_of(pipeline, prefix="first_stage_model."):
    from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING

    vae, named, found = pipeline.vae, dict(DIFFUSERS_TO_LDM_MAPPING["vae"]), {}
    for key, value in vae.state_dict().items():
        ours = named.get(key) or of_vae(key, len(vae.config.block_out_channels))
        conv = ".attn_1." in ours and ours.endswith("weight") and "norm" not in ours
        found[prefix + ours] = value[..., None, None] if conv else value
    return found


def of_unet(key, layers, pipeline):
    block, _, rest = re.match(r"((?:down|up)_blocks\.\d+|mid_block)(\.)(.*)", key).groups()
    kind, number, tail = re.match(r"(\w+)\.(\d+)\.(.*)", rest).groups()
    tail = _resnet(tail) if kind == "resnets" else tail
    if block == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{tail}"
    side, index = block.split("_blocks.")
    first = int(index) * layers
    place = first + (layers - 1 if "samplers" in kind else int(number))
    if side == "down":
        place += 1
        return f"input_blocks.{place}.0.op.{tail.removeprefix('conv.')}" if "samplers" in kind else (
            f"input_blocks.{place}.{int(kind == 'attentions')}.{tail}"
        )  # fmt: skip
    if "samplers" in kind:
        attends = "CrossAttn" in pipeline.unet.config.up_block_types[int(index)]
        return f"output_blocks.{place}.{2 if attends else 1}.{tail}"
    return f"output_blocks.{place}.{int(kind == 'attentions')}.{tail}"


def _resnet(tail):
    swaps = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
             "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}  # fmt: skip
    name, _, end = tail.partition(".")
    return f"{swaps[name]}.{end}"


def of_vae(key, blocks):
    key = key.replace("conv_shortcut", "nin_shortcut")
    for number in range(2):
        key = key.replace(f"mid_block.resnets.{number}", f"mid.block_{number + 1}")
    if "mid_block.attentions" in key:
        key = (
            key.replace("mid_block.attentions.0", "mid.attn_1")
            .replace("group_norm", "norm")
            .replace("to_out.0", "proj_out")
        )
        return re.sub(r"to_([qkv])\.", r"\1.", key)
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", key)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", key)


# ------------------------------------------------------------------------------------------------ text encoders
def clip_of(encoder, prefix):
    values = encoder.state_dict().items()
    flat = ("text_model.", "text_projection.")
    return {prefix + (key if key.startswith(flat) else f"text_model.{key}"): value for key, value in values}


def t5_of(encoder, prefix):
    return {prefix + key: value for key, value in encoder.state_dict().items()}


def open_clip_of(encoder, prefix):
    """q, k and v are one tensor; the projection is the other way round."""
    import torch

    values = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    found = {
        "positional_embedding": values["embeddings.position_embedding.weight"],
        "token_embedding.weight": values["embeddings.token_embedding.weight"],
        "ln_final.weight": values["final_layer_norm.weight"],
        "ln_final.bias": values["final_layer_norm.bias"],
    }
    if "text_projection.weight" in values:
        found["text_projection"] = values["text_projection.weight"].T
    swaps = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    for key, value in values.items():
        block = re.match(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", key)
        if block is None or block[2].endswith(("k_proj", "v_proj")):
            continue
        place = f"transformer.resblocks.{block[1]}."
        if block[2].endswith("q_proj"):
            three = [values[key.replace("q_proj", f"{x}_proj")] for x in "qkv"]
            found[f"{place}attn.in_proj_{block[3]}"] = torch.cat(three)
        else:
            found[f"{place}{swaps[block[2]]}.{block[3]}"] = value
    return {prefix + key: value for key, value in found.items()}


# ------------------------------------------------------------------------------------------------ transformers
NORMS = {
    "FluxTransformer2DModel": {
        "attn.norm_q": "img_attn.norm.query_norm.scale", "attn.norm_k": "img_attn.norm.key_norm.scale",
        "attn.norm_added_q": "txt_attn.norm.query_norm.scale", "attn.norm_added_k": "txt_attn.norm.key_norm.scale",
    },
    "SD3Transformer2DModel": {
        "attn.norm_q": "x_block.attn.ln_q.weight", "attn.norm_k": "x_block.attn.ln_k.weight",
        "attn.norm_added_q": "context_block.attn.ln_q.weight", "attn.norm_added_k": "context_block.attn.ln_k.weight",
        "attn2.norm_q": "x_block.attn2.ln_q.weight", "attn2.norm_k": "x_block.attn2.ln_k.weight",
    },
}  # fmt: skip


def of_joint(values, kind):
    """By the table of layers that LoRA files are written with; what has no layer in it by `NORMS`."""
    import torch

    from adapt.formats.names.transformers import FLUX, SD3

    names, found, parts = FLUX if "Flux" in kind else SD3, {}, {}
    blocks = "double_blocks" if "Flux" in kind else "joint_blocks"
    for key, value in values.items():
        module, _, last = key.rpartition(".")
        norm = re.match(r"(single_)?transformer_blocks\.(\d+)\.(attn2?\.norm\w*)", module)
        if norm and norm[1]:
            found[f"single_blocks.{norm[2]}.norm.{'query' if norm[3].endswith('q') else 'key'}_norm.scale"] = value
        elif norm:
            found[f"{blocks}.{norm[2]}.{NORMS[kind][norm[3]]}"] = value
        elif key == "pos_embed.pos_embed":
            found["pos_embed"] = value
        else:
            native, place = names.of_module(module)
            parts.setdefault(f"{native.name}.{last}", {})[place] = (native, value)
    for name, pieces in parts.items():
        native, value = pieces[0]
        turned = native.halves and ("final" in name or value.shape[0] == values["norm_out.linear.bias"].shape[0])
        whole = torch.cat([pieces[place][1] for place in sorted(pieces)])
        found[name] = torch.cat(whole.chunk(2)[::-1]) if turned else whole
    return found


def of_chroma(values):
    """Flux.1's names without modulations, which one small network makes."""
    own = "distilled_guidance_layer."
    swaps = {"linear_1": "in_layer", "linear_2": "out_layer"}
    found = of_joint({key: value for key, value in values.items() if not key.startswith(own)}, "FluxTransformer2DModel")
    for key, value in values.items():
        if key.startswith(own):
            name = re.sub(r"linear_[12]", lambda m: swaps[m[0]], key)
            found[re.sub(r"(norms\.\d+\.)weight", r"\1scale", name)] = value
    return found


def of_fused(values, swaps, together):
    """By parts of names; tensors that the authors have as one are put together, and the last modulation is turned."""
    import torch

    found = {}
    for key, value in values.items():
        name = next((re.sub(ours, authors, key) for ours, authors in swaps if re.match(ours, key)), key)
        parent = next((name[: -len(end)] + whole for end, whole in together if name.endswith(end)), name)
        found.setdefault(parent, []).append(torch.cat(value.chunk(2)[::-1]) if key.startswith("norm_out") else value)
    return {name: torch.cat(pieces) for name, pieces in found.items()}


FUSED = {
    "Flux2Transformer2DModel": (
        [
            (r"x_embedder", "img_in"), (r"context_embedder", "txt_in"), (r"proj_out", "final_layer.linear"),
            (r"norm_out\.linear", "final_layer.adaLN_modulation.1"), (r"(\w+_stream_modulation\w*)\.linear", r"\1.lin"),
            (r"time_guidance_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
            (r"time_guidance_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
            (r"time_guidance_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
            (r"time_guidance_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
            (r"single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj", r"single_blocks.\1.linear1"),
            (r"single_transformer_blocks\.(\d+)\.attn\.to_out", r"single_blocks.\1.linear2"),
            (r"single_transformer_blocks\.(\d+)\.attn\.norm_q.weight", r"single_blocks.\1.norm.query_norm.scale"),
            (r"single_transformer_blocks\.(\d+)\.attn\.norm_k.weight", r"single_blocks.\1.norm.key_norm.scale"),
            (r"transformer_blocks\.(\d+)\.attn\.norm_q.weight", r"double_blocks.\1.img_attn.norm.query_norm.scale"),
            (r"transformer_blocks\.(\d+)\.attn\.norm_k.weight", r"double_blocks.\1.img_attn.norm.key_norm.scale"),
            (r"transformer_blocks\.(\d+)\.attn\.norm_added_q.weight", r"double_blocks.\1.txt_attn.norm.query_norm.scale"),
            (r"transformer_blocks\.(\d+)\.attn\.norm_added_k.weight", r"double_blocks.\1.txt_attn.norm.key_norm.scale"),
            (r"transformer_blocks\.(\d+)\.attn\.to_out\.0", r"double_blocks.\1.img_attn.proj"),
            (r"transformer_blocks\.(\d+)\.attn\.to_add_out", r"double_blocks.\1.txt_attn.proj"),
            (r"transformer_blocks\.(\d+)\.attn\.to_", r"double_blocks.\1.img_attn."),
            (r"transformer_blocks\.(\d+)\.attn\.add_", r"double_blocks.\1.txt_attn."),
            (r"transformer_blocks\.(\d+)\.ff\.linear_in", r"double_blocks.\1.img_mlp.0"),
            (r"transformer_blocks\.(\d+)\.ff\.linear_out", r"double_blocks.\1.img_mlp.2"),
            (r"transformer_blocks\.(\d+)\.ff_context\.linear_in", r"double_blocks.\1.txt_mlp.0"),
            (r"transformer_blocks\.(\d+)\.ff_context\.linear_out", r"double_blocks.\1.txt_mlp.2"),
        ],
        [(f"_attn.{x}{end}.weight", "_attn.qkv.weight") for x in "qkv" for end in ("", "_proj")],
    ),
    "AuraFlowTransformer2DModel": (
        [
            (r"pos_embed\.pos_embed", "positional_encoding"), (r"pos_embed\.proj", "init_x_linear"),
            (r"time_step_proj\.linear_1", "t_embedder.mlp.0"), (r"time_step_proj\.linear_2", "t_embedder.mlp.2"),
            (r"context_embedder", "cond_seq_linear"), (r"proj_out", "final_linear"), (r"norm_out\.linear", "modF.1"),
            (r"single_transformer_blocks\.(\d+)\.norm1\.linear", r"single_layers.\1.modCX.1"),
            (r"single_transformer_blocks\.(\d+)\.attn\.to_out\.0", r"single_layers.\1.attn.w1o"),
            (r"single_transformer_blocks\.(\d+)\.attn\.to_", r"single_layers.\1.attn.w1"),
            (r"single_transformer_blocks\.(\d+)\.ff\.linear_", r"single_layers.\1.mlp.c_fc"),
            (r"single_transformer_blocks\.(\d+)\.ff\.out_projection", r"single_layers.\1.mlp.c_proj"),
            (r"joint_transformer_blocks\.(\d+)\.norm1\.linear", r"double_layers.\1.modX.1"),
            (r"joint_transformer_blocks\.(\d+)\.norm1_context\.linear", r"double_layers.\1.modC.1"),
            (r"joint_transformer_blocks\.(\d+)\.attn\.to_out\.0", r"double_layers.\1.attn.w2o"),
            (r"joint_transformer_blocks\.(\d+)\.attn\.to_add_out", r"double_layers.\1.attn.w1o"),
            (r"joint_transformer_blocks\.(\d+)\.attn\.to_", r"double_layers.\1.attn.w2"),
            (r"joint_transformer_blocks\.(\d+)\.attn\.add_(.)_proj", r"double_layers.\1.attn.w1\2"),
            (r"joint_transformer_blocks\.(\d+)\.ff\.linear_", r"double_layers.\1.mlpX.c_fc"),
            (r"joint_transformer_blocks\.(\d+)\.ff\.out_projection", r"double_layers.\1.mlpX.c_proj"),
            (r"joint_transformer_blocks\.(\d+)\.ff_context\.linear_", r"double_layers.\1.mlpC.c_fc"),
            (r"joint_transformer_blocks\.(\d+)\.ff_context\.out_projection", r"double_layers.\1.mlpC.c_proj"),
        ],
        [],
    ),
}  # fmt: skip
"""diffusers' names and the authors', the first that fits; ends of what is one tensor with them, in its order."""


RENAMED = {
    "WanTransformer3DModel": {
        "condition_embedder.time_embedder.linear_1": "time_embedding.0",
        "condition_embedder.time_embedder.linear_2": "time_embedding.2",
        "condition_embedder.text_embedder.linear_1": "text_embedding.0",
        "condition_embedder.text_embedder.linear_2": "text_embedding.2",
        "condition_embedder.time_proj": "time_projection.1", "attn2": "cross_attn", "attn1": "self_attn",
        "to_out.0": "o", "to_q": "q", "to_k": "k", "to_v": "v", "proj_out": "head.head", "ffn.net.0.proj": "ffn.0",
        "ffn.net.2": "ffn.2", ".norm2.": ".norm3.",
    },
    "LTXVideoTransformer3DModel": {
        "time_embed.": "adaln_single.", "norm_q": "q_norm", "norm_k": "k_norm", "proj_in": "patchify_proj",
    },
    "ZImageTransformer2DModel": {
        "all_final_layer.2-1.": "final_layer.", "all_x_embedder.2-1.": "x_embedder.", "attention.to_out.0": "attention.out",
        "attention.norm_k": "attention.k_norm", "attention.norm_q": "attention.q_norm",
    },
    "QwenImageTransformer2DModel": {},
}  # fmt: skip
"""diffusers' part of a name → the authors'."""


def renamed(key, swaps):
    if key == "scale_shift_table" and "attn1" in swaps:  # Wan's
        return "head.modulation"
    if "attn1" in swaps and key.endswith("scale_shift_table"):
        return key.replace("scale_shift_table", "modulation")
    for theirs, authors in swaps.items():
        key = key.replace(theirs, authors)
    return key


def fused(values):
    """Z-Image's q, k and v as one."""
    import torch

    found = dict(values)
    for key in [key for key in values if key.endswith(".attention.to_q.weight")]:
        found[key.replace("to_q", "qkv")] = torch.cat([found.pop(key.replace("to_q", f"to_{x}")) for x in "qkv"])
    return found
