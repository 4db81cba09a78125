"""Files as other tools write them, made from their documented layouts: read right, which is ΔW as their formula defines it."""

# ruff: noqa: E501  (one file a line)

import json

import pytest
import torch
from safetensors.torch import save_file

from adapt.errors import AdapterError
from adapt.formats import read
from adapt.formats.dialects import DIALECTS, dialect_of

D = 16
"""Width of the models; q, k and v of it, the MLP four times."""


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


# ------------------------------------------------------------------------------- what each tool writes for one layer
def plain(down, up, alpha):
    """Names of A, B and alpha → (tensors of a layer, its ΔW)."""

    def layer(out, inside, rank=4, strength=2.0, seed=0):
        a, b = random(rank, inside, seed=seed), random(out, rank, seed=seed + 1)
        found = {down: a, up: b} | ({alpha: torch.tensor(strength)} if alpha else {})
        return found, (strength / rank if alpha else 1.0) * b @ a

    return layer


KOHYA = plain("lora_down.weight", "lora_up.weight", "alpha")  # kohya-ss/sd-scripts networks/lora.py
PEFT = plain("lora_A.weight", "lora_B.weight", None)  # huggingface/peft, no header: alpha is the rank
COMFY = plain("lora_A.weight", "lora_B.weight", "alpha")  # tdrussell/diffusion-pipe
DEFAULT = plain("lora_A.default.weight", "lora_B.default.weight", None)  # peft's state dict as it stands
OLD = plain("lora.down.weight", "lora.up.weight", None)  # huggingface/diffusers#10860
LINEAR = plain("lora_linear_layer.down.weight", "lora_linear_layer.up.weight", None)  # diffusers' text encoders, 0.17
XLABS = plain("down.weight", "up.weight", None)  # XLabs-AI/x-flux LoRALinearLayer
NO_ALPHA = plain(
    "lora_down.weight", "lora_up.weight", None
)  # comfy/weight_adapter/lora.py: a missing alpha is a factor of 1


def loha(out, inside, rank=4, strength=2.0, seed=0):
    """LyCORIS lycoris/modules/loha.py."""
    w = [random(*s, seed=seed + i) for i, s in enumerate(((out, rank), (rank, inside), (out, rank), (rank, inside)))]
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    return {**dict(zip(names, w, strict=True)), "alpha": torch.tensor(strength)}, strength / rank * (w[0] @ w[1]) * (
        w[2] @ w[3]
    )


def lokr(out, inside, rank=2, strength=4.0, seed=0):
    """LyCORIS lycoris/modules/lokr.py, the right factor in two."""
    w1, a, b = random(4, 4, seed=seed), random(out // 4, rank, seed=seed + 1), random(rank, inside // 4, seed=seed + 2)
    found = {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(strength)}
    return found, strength / rank * torch.kron(w1, a @ b)


def whole_lokr(out, inside, seed=0):
    """Both factors whole: the stored alpha means nothing (LyCORIS writes a huge one)."""
    w1, w2 = random(4, 4, seed=seed), random(out // 4, inside // 4, seed=seed + 1)
    return {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(1e10)}, torch.kron(w1, w2)


def convolution(out, inside, rank=4, strength=2.0, seed=0):
    """LoCon: kohya's conv_dim."""
    down, up = random(rank, inside, 3, 3, seed=seed), random(out, rank, 1, 1, seed=seed + 1)
    delta = strength / rank * torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(strength)}, delta


def tucker(out, inside, rank=4, strength=2.0, seed=0):
    """LyCORIS lycoris/modules/locon.py with use_tucker."""
    down, mid, up = (
        random(rank, inside, 1, 1, seed=seed),
        random(rank, rank, 3, 3, seed=seed + 1),
        random(out, rank, 1, 1),
    )
    delta = strength / rank * torch.einsum("or,rskl,si->oikl", up[:, :, 0, 0], mid, down[:, :, 0, 0])
    found = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(strength)}
    return found, delta


BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
FLAT = BLOCK.replace(".", "_")
TE = "text_model.encoder.layers.0"
JOINT, SINGLE = "transformer.transformer_blocks.3", "transformer.single_transformer_blocks.7"
QKV = [f"{JOINT}.attn.to_{x}" for x in "qkv"]
ADDED = [f"{JOINT}.attn.add_{x}_proj" for x in "qkv"]
LINEAR1 = [*(f"{SINGLE}.attn.to_{x}" for x in "qkv"), f"{SINGLE}.proj_mlp"]
# dialect, layer as the file calls it, what it is in diffusers' names, what is written for it, (out, in)
FILES = [
    # kohya-ss/sd-scripts: SD 1.5 and 2.x train a copy of diffusers' UNet (library/original_unet.py)
    ("kohya", f"lora_unet_{FLAT}_attn1_to_q", [f"unet.{BLOCK}.attn1.to_q"], KOHYA, (D, D)),
    ("kohya", f"lora_unet_{FLAT}_ff_net_0_proj", [f"unet.{BLOCK}.ff.net.0.proj"], KOHYA, (8 * D, D)),
    ("kohya", f"lora_unet_{FLAT}_attn2_to_k", [f"unet.{BLOCK}.attn2.to_k"], NO_ALPHA, (D, D)),
    ("kohya", "lora_unet_up_blocks_1_resnets_2_conv1", ["unet.up_blocks.1.resnets.2.conv1"], convolution, (D, D)),
    ("kohya", "lora_unet_down_blocks_0_downsamplers_0_conv", ["unet.down_blocks.0.downsamplers.0.conv"], tucker, (D, D)),
    ("kohya", "lora_unet_mid_block_resnets_0_time_emb_proj", ["unet.mid_block.resnets.0.time_emb_proj"], KOHYA, (D, D)),
    ("kohya", f"lora_te_{TE.replace('.', '_')}_mlp_fc1", ["text_encoder.encoder.layers.0.mlp.fc1"], KOHYA, (D, D)),
    ("kohya", f"lora_te_{TE.replace('.', '_')}_self_attn_q_proj", ["text_encoder.encoder.layers.0.self_attn.q_proj"], KOHYA, (D, D)),
    # SDXL trains Stability's UNet (library/sdxl_original_unet.py)
    ("kohya", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", [f"unet.{BLOCK}.attn1.to_q"], KOHYA, (D, D)),
    ("kohya", "lora_unet_middle_block_1_proj_in", ["unet.mid_block.attentions.0.proj_in"], KOHYA, (D, D)),
    ("kohya", "lora_unet_output_blocks_5_1_transformer_blocks_1_ff_net_2", ["unet.up_blocks.1.attentions.2.transformer_blocks.1.ff.net.2"], KOHYA, (D, 4 * D)),
    ("kohya", "lora_unet_output_blocks_2_2_conv", ["unet.up_blocks.0.upsamplers.0.conv"], convolution, (D, D)),
    ("kohya", "lora_unet_input_blocks_3_0_op", ["unet.down_blocks.0.downsamplers.0.conv"], convolution, (D, D)),
    ("kohya", "lora_unet_input_blocks_4_0_emb_layers_1", ["unet.down_blocks.1.resnets.0.time_emb_proj"], KOHYA, (D, D)),
    ("kohya", "lora_unet_label_emb_0_2", ["unet.add_embedding.linear_2"], KOHYA, (D, D)),
    ("kohya", f"lora_te2_{TE.replace('.', '_')}_mlp_fc2", ["text_encoder_2.encoder.layers.0.mlp.fc2"], KOHYA, (D, D)),
    ("kohya", f"lora_te1_{TE.replace('.', '_')}_self_attn_out_proj", ["text_encoder.encoder.layers.0.self_attn.out_proj"], KOHYA, (D, D)),
    # SDXL with diffusers' names, which ComfyUI and InvokeAI take too
    ("kohya", "lora_unet_up_blocks_0_attentions_1_transformer_blocks_5_attn2_to_out_0", ["unet.up_blocks.0.attentions.1.transformer_blocks.5.attn2.to_out.0"], KOHYA, (D, D)),
    # LyCORIS through kohya's scripts (lycoris/kohya)
    ("kohya", f"lora_unet_{FLAT}_attn1_to_v", [f"unet.{BLOCK}.attn1.to_v"], loha, (D, D)),
    ("kohya", f"lora_unet_{FLAT}_attn1_to_out_0", [f"unet.{BLOCK}.attn1.to_out.0"], lokr, (D, D)),
    ("kohya", f"lora_unet_{FLAT}_ff_net_2", [f"unet.{BLOCK}.ff.net.2"], whole_lokr, (D, 4 * D)),
    # SD3 and Flux train q, k and v as one (networks/lora_sd3.py, lora_flux.py)
    ("kohya", "lora_unet_joint_blocks_3_x_block_attn_qkv", QKV, KOHYA, (3 * D, D)),
    ("kohya", "lora_unet_joint_blocks_3_context_block_attn_qkv", ADDED, KOHYA, (3 * D, D)),
    ("kohya", "lora_unet_joint_blocks_3_x_block_mlp_fc1", [f"{JOINT}.ff.net.0.proj"], KOHYA, (4 * D, D)),
    ("kohya", "lora_unet_double_blocks_3_img_attn_qkv", QKV, KOHYA, (3 * D, D)),
    ("kohya", "lora_unet_double_blocks_3_txt_attn_qkv", ADDED, loha, (3 * D, D)),
    ("kohya", "lora_unet_double_blocks_3_img_attn_qkv", QKV, lokr, (3 * D, D)),
    ("kohya", "lora_unet_single_blocks_7_linear1", LINEAR1, KOHYA, (7 * D, D)),
    ("kohya", "lora_unet_single_blocks_7_linear1", LINEAR1, lokr, (7 * D, D)),
    ("kohya", "lora_unet_single_blocks_7_linear2", [f"{SINGLE}.proj_out"], KOHYA, (D, 5 * D)),
    ("kohya", "lora_te3_encoder_block_0_layer_0_SelfAttention_q", ["text_encoder_3.encoder.block.0.layer.0.SelfAttention.q"], KOHYA, (D, D)),
    # ComfyUI's names: tdrussell/diffusion-pipe, SimpleTuner --lora_format comfyui, ComfyUI's own Train LoRA node
    ("comfyui", "diffusion_model.double_blocks.3.img_attn.qkv", QKV, COMFY, (3 * D, D)),
    ("comfyui", "diffusion_model.single_blocks.7.linear1", LINEAR1, PEFT, (7 * D, D)),
    ("comfyui", "diffusion_model.joint_blocks.3.context_block.mlp.fc2", [f"{JOINT}.ff_context.net.2"], KOHYA, (D, 4 * D)),
    ("comfyui", "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q", [f"unet.{BLOCK}.attn1.to_q"], KOHYA, (D, D)),
    ("comfyui", f"text_encoders.clip_l.transformer.{TE}.mlp.fc1", ["text_encoder.encoder.layers.0.mlp.fc1"], KOHYA, (D, D)),
    ("comfyui", f"text_encoders.clip_g.transformer.{TE}.mlp.fc1", ["text_encoder_2.encoder.layers.0.mlp.fc1"], KOHYA, (D, D)),
    # black-forest-labs/flux: control LoRA
    ("bfl", "double_blocks.3.txt_attn.qkv", ADDED, PEFT, (3 * D, D)),
    ("bfl", "time_in.in_layer", ["transformer.time_text_embed.timestep_embedder.linear_1"], PEFT, (D, D)),
    # XLabs-AI/x-flux
    ("xlabs", "double_blocks.3.processor.qkv_lora1", QKV, XLABS, (3 * D, D)),
    ("xlabs", "double_blocks.3.processor.proj_lora2", [f"{JOINT}.attn.to_add_out"], XLABS, (D, D)),
    ("xlabs", "diffusion_model.single_blocks.7.processor.qkv_lora", LINEAR1[:3], XLABS, (3 * D, D)),
    # OMI, from Nerogar/OneTrainer modules/util/convert/lora (vendored in invoke-ai/InvokeAI)
    ("omi", "transformer.double_blocks.3.img_attn.qkv.1", [QKV[1]], KOHYA, (D, D)),
    ("omi", "transformer.single_blocks.7.linear1.3", [LINEAR1[3]], KOHYA, (4 * D, D)),
    ("omi", "unet.input_blocks.4.1.transformer_blocks.0.attn1.to_q", [f"unet.{BLOCK}.attn1.to_q"], KOHYA, (D, D)),
    ("omi", f"clip_g.{TE}.mlp.fc1", ["text_encoder_2.encoder.layers.0.mlp.fc1"], KOHYA, (D, D)),
    # OneTrainer, older: SD3 and Flux
    ("onetrainer", "lora_transformer_transformer_blocks_3_attn_to_q", [QKV[0]], KOHYA, (D, D)),
    ("onetrainer", "lora_transformer_single_transformer_blocks_7_proj_mlp", [LINEAR1[3]], KOHYA, (4 * D, D)),
    # SimpleTuner: LyCORIS's wrapper around diffusers' models
    ("simpletuner", "lycoris_transformer_blocks_3_attn_to_add_out", [f"{JOINT}.attn.to_add_out"], lokr, (D, D)),
    ("simpletuner", f"lycoris_{FLAT}_attn1_to_q", [f"unet.{BLOCK}.attn1.to_q"], lokr, (D, D)),
    # ostris/ai-toolkit: peft's names without alpha for Flux; LoKr with it
    ("diffusers", f"{JOINT}.attn.to_q", [QKV[0]], PEFT, (D, D)),
    ("dotted", f"{JOINT}.attn.to_q", [QKV[0]], lokr, (D, D)),
    # diffusers before 0.20
    ("dotted", f"unet.{BLOCK}.attn1.to_q", [f"unet.{BLOCK}.attn1.to_q"], OLD, (D, D)),
    ("dotted", f"unet.{BLOCK}.attn1.processor.to_out_lora", [f"unet.{BLOCK}.attn1.to_out.0"], XLABS, (D, D)),
    ("dotted", f"text_encoder.{TE}.self_attn.q_proj", ["text_encoder.encoder.layers.0.self_attn.q_proj"], LINEAR, (D, D)),
    ("older-diffusers", f"{BLOCK}.attn1.processor.to_v_lora", [f"unet.{BLOCK}.attn1.to_v"], XLABS, (D, D)),
    ("dotted", f"unet.{BLOCK}.attn1.to_k", [f"unet.{BLOCK}.attn1.to_k"], DEFAULT, (D, D)),
    # diffusers' model.save_lora_adapter
    ("single-model", "transformer_blocks.3.attn.to_q", [QKV[0]], PEFT, (D, D)),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "layer", "modules", "write", "size"), FILES, ids=[f"{f[0]} {f[1]}" for f in FILES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_others_files_are_read_right(tmp_path, dialect, layer, modules, write, size, dtype):
    """ΔW of all of diffusers' layers, one above another, is what the tool's formula gives for its one."""
    parts, _ = write(*size)
    tensors = {f"{layer}.{end}": tensor.to(dtype) for end, tensor in parts.items()}
    if dtype is torch.float16 and write is whole_lokr:
        tensors[f"{layer}.alpha"] = torch.tensor(1.0, dtype=dtype)  # their 1e10 is infinite in half precision
    save_file(tensors, tmp_path / "any name at all.safetensors")
    assert dialect_of(tensors, tmp_path).name == dialect
    found = read(tmp_path / "any name at all.safetensors")
    layers = {f"{c}.{name}": each for c, inside in found.modules.items() for name, each in inside.items()}
    assert list(layers) == sorted(modules)
    together = torch.cat([layers[name].delta() for name in modules])
    wanted = write(*size)[1]
    assert torch.allclose(together.reshape(wanted.shape), wanted, atol=1e-5 if dtype is torch.float32 else 0.2)


def test_there_are_forty():
    assert len(FILES) >= 55 and {file[0] for file in FILES} == set(DIALECTS) - {"peft"}


def test_t5_is_the_second_encoder_of_flux_and_the_third_of_sd3(tmp_path):
    t5, _ = KOHYA(D, D)
    for block, component in (
        ("single_blocks_7_linear2", "text_encoder_2"),
        ("joint_blocks_3_x_block_mlp_fc1", "text_encoder_3"),
    ):
        names = {f"lora_unet_{block}": KOHYA(D, D)[0], "lora_te3_encoder_block_0_layer_1_DenseReluDense_wi_0": t5}
        save_file(
            {f"{n}.{end}": t for n, parts in names.items() for end, t in parts.items()}, tmp_path / "a.safetensors"
        )
        assert list(read(tmp_path / "a.safetensors").modules[component]) == [
            "encoder.block.0.layer.1.DenseReluDense.wi_0"
        ]


def test_dora_of_others(tmp_path):
    """kohya-style `dora_scale` (LyCORIS, OneTrainer) and peft's `lora_magnitude_vector`, in a fused layer too."""
    parts, delta = KOHYA(3 * D, D)
    lengths = random(3 * D, 1).abs() + 1
    base = random(3 * D, D, seed=9)
    wanted = lengths * (base + delta) / (base + delta).norm(dim=1, keepdim=True)
    for end, told in (("dora_scale", lengths), ("lora_magnitude_vector", lengths.flatten())):
        name = "diffusion_model.double_blocks.3.img_attn.qkv"
        save_file({f"{name}.{k}": v for k, v in (*parts.items(), (end, told))}, tmp_path / "a.safetensors")
        found = read(tmp_path / "a.safetensors").modules["transformer"]
        merged = [found[n.removeprefix("transformer.")].merged(w, 1.0) for n, w in zip(QKV, base.chunk(3), strict=True)]
        assert torch.allclose(torch.cat(merged), wanted, atol=1e-5)


def test_rank_stabilised_files_of_lycoris_say_it_by_alpha_alone(tmp_path):
    """lycoris/modules/locon.py keeps alpha · r / √r as `.alpha` with `rs_lora`: the header's word for it would count twice."""
    parts, _ = KOHYA(D, D, strength=2.0 * 4 / 4**0.5)
    header = {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps({"algo": "locon", "rs_lora": "True"})}
    save_file({f"lora_unet_{FLAT}_attn1_to_q.{k}": v for k, v in parts.items()}, tmp_path / "a.safetensors", header)
    (layer,) = read(tmp_path / "a.safetensors").modules["unet"].values()
    wanted = 2.0 / 4**0.5 * parts["lora_up.weight"] @ parts["lora_down.weight"]
    assert torch.allclose(layer.delta(), wanted, atol=1e-5)


def test_a_single_models_header_says_alpha(tmp_path):
    """`model.save_lora_adapter` writes peft's configuration without the component (diffusers loaders/peft.py)."""
    parts, delta = PEFT(D, D)
    header = {"lora_adapter_metadata": json.dumps({"r": 4, "lora_alpha": 8})}
    save_file({f"transformer_blocks.3.attn.to_q.{k}": v for k, v in parts.items()}, tmp_path / "a.safetensors", header)
    (layer,) = read(tmp_path / "a.safetensors").modules["transformer"].values()
    assert torch.allclose(layer.delta(), 2 * delta, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lora_unet_conv_in.alpha", "unet.conv_in.lora_A.weight"], "mixes dialects"),
        (["diffusion_model.img_in.alpha", "lora_unet_img_in.alpha"], "mixes dialects"),
        (["lora_unet_conv_in.alpha", "model.diffusion_model.out.2.weight"], "no adapter's"),
        (["emb_params"], "textual inversion"),
        (["clip_l", "clip_g"], "textual inversion"),
        (["lora_unet_conv_in.lora_down.weight", "lora_unet_conv_in.lora_A.weight"], "two spellings"),
        (["unet.conv_in.lora.down.weight", "unet.conv_in.lora_down.weight"], "two spellings"),
        (["double_blocks.0.img_attn.norm.key_norm.scale"], "scale of a norm"),
        (["double_blocks.0.nowhere.lora_A.weight", "double_blocks.0.nowhere.lora_B.weight"], "in no model"),
    ],
)
def test_what_is_of_no_one_dialect_is_refused(tmp_path, names, message):
    save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=message):
        read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bool, torch.complex64])
def test_types_that_no_adapter_has_are_refused(tmp_path, dtype):
    parts, _ = KOHYA(D, D)
    tensors = {
        f"lora_unet_conv_in.{end}": tensor if end == "alpha" else tensor.to(dtype) for end, tensor in parts.items()
    }
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="type that no adapter has"):
        read(tmp_path / "a.safetensors")
