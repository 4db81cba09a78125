"""A tiny Stable Diffusion as one file with the names that it was published in: diffusers' map, the other way round."""

import re


def checkpoint_of(pipeline):
    """Name → tensor; what `from_single_file` makes this pipeline of again."""
    from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING

    unet, vae = pipeline.unet, pipeline.vae
    layers = unet.config.layers_per_block + 1
    named = {"unet": dict(DIFFUSERS_TO_LDM_MAPPING["unet"]["layers"]), "vae": dict(DIFFUSERS_TO_LDM_MAPPING["vae"])}
    found = {}
    for key, value in unet.state_dict().items():
        found["model.diffusion_model." + (named["unet"].get(key) or of_unet(key, layers, pipeline))] = value
    for key, value in vae.state_dict().items():
        ours = named["vae"].get(key) or of_vae(key, len(vae.config.block_out_channels))
        conv = ".attn_1." in ours and ours.endswith("weight") and "norm" not in ours
        found["first_stage_model." + ours] = value[..., None, None] if conv else value
    for key, value in pipeline.text_encoder.state_dict().items():
        ours = key if key.startswith("text_model.") else f"text_model.{key}"
        found["cond_stage_model.transformer." + ours] = value
    return {key: value.contiguous() for key, value in found.items()}


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
