"""OFT, BOFT and GLoRA as kohya and LyCORIS write them: against their formulas, there and back, drawn with, and made LoRA."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.adapter import Adapter
from adapt.cli.main import main
from adapt.errors import AdapterError
from adapt.formats import LoraWeights, read
from adapt.formats.agree import differences
from adapt.formats.diag_oft import DiagBoft, DiagOft
from adapt.formats.exactly import as_lora
from adapt.formats.factorise import Keep
from adapt.formats.glora import GLora
from adapt.formats.layer import KOHYA
from adapt.lora import Applied
from adapt.lora.combine import combined
from adapt.lora.nearest import nearest_weights


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * len(shape) + sum(shape)))


# ----------------------------------------------------------------------------------------- the formulas, in dense matrices
def oft_by_definition(blocks, weight, alpha=None, rescale=None):
    """KohakuBlueleaf/LyCORIS lycoris/modules/diag_oft.py and kohya-ss/sd-scripts networks/oft.py."""
    out = len(weight)
    q = blocks.double() - blocks.double().transpose(-1, -2)
    if alpha and q.norm() > alpha * out:
        q = q * (alpha * out / q.norm())
    one = torch.eye(q.shape[-1]).double()
    turn = torch.block_diag(*((one + each) @ torch.linalg.inv(one - each) for each in q))
    found = torch.einsum("nm,n...->m...", turn, weight.double())
    return found if rescale is None else rescale.double() * found


def boft_by_definition(blocks, weight):
    """comfy/weight_adapter/boft.py: output (c, g, k) stands at (c, k, g) while blocks of b are turned, k = 2^i b / 2."""
    found, out, b = weight.double(), len(weight), blocks.shape[-1]
    for i, layer in enumerate(blocks.double()):
        k = 2**i * b // 2
        order = [c * 2 * k + g * k + n for c in range(out // (2 * k)) for n in range(k) for g in range(2)]
        shuffle = torch.eye(out).double()[order]
        one = torch.eye(b).double()
        q = layer - layer.transpose(-1, -2)
        turn = torch.block_diag(*((one + each) @ torch.linalg.inv(one - each) for each in q))
        found = torch.einsum("op,p...->o...", shuffle.T @ turn @ shuffle, found)
    return found


def glora_by_definition(a1, a2, b1, b2, weight, scale):
    """lycoris/modules/glora.py: W + (W A + B) alpha / r."""
    through = torch.einsum("oi...,ir,rj->oj...", weight.double(), a1.double().flatten(1), a2.double().flatten(1))
    added = torch.einsum("or,ri...->oi...", b1.double().flatten(1), b2.double())
    return weight.double() + scale * (through + added)


W, CONV = randn(24, 20), randn(24, 4, 3, 3)
BLOCKS, LENGTHS = 0.2 * randn(6, 4, 4), 1 + 0.1 * randn(24, 1)
BUTTERFLY = 0.2 * randn(3, 4, 6, 6)
HALVES = [0.3 * randn(*s) for s in ((20, 3), (3, 20), (24, 3), (3, 20))]
CONV_HALVES = [0.3 * randn(*s) for s in ((4, 3, 1, 1), (3, 4, 1, 1), (24, 3, 1, 1), (3, 4, 3, 3))]
CASES = {
    "oft": (DiagOft(BLOCKS, 9.0), W, oft_by_definition(BLOCKS, W)),
    "oft of a convolution": (DiagOft(BLOCKS, 9.0), CONV, oft_by_definition(BLOCKS, CONV)),
    "oft with lengths": (DiagOft(BLOCKS, 9.0, LENGTHS), W, oft_by_definition(BLOCKS, W, rescale=LENGTHS)),
    "boft": (DiagBoft(BUTTERFLY, 9.0), randn(24, 5), boft_by_definition(BUTTERFLY, randn(24, 5))),
    "boft of a convolution": (DiagBoft(BUTTERFLY[:2], 9.0), CONV, boft_by_definition(BUTTERFLY[:2], CONV)),
    "glora": (GLora(*HALVES, 2.0), W, glora_by_definition(*HALVES, W, 2 / 3)),
    "glora of a convolution": (GLora(*CONV_HALVES, 2.0), CONV, glora_by_definition(*CONV_HALVES, CONV, 2 / 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_does_what_its_formula_says_and_half_of_it_at_half_the_scale(name):
    layer, weight, wanted = CASES[name]
    assert layer.fault() is None and layer.fits(weight.shape)
    made = layer.merged(weight, 1.0)
    assert made.shape == weight.shape and float((made - wanted).abs().max()) < 1e-5
    assert float((layer.merged(weight, 0.5) - (weight + wanted) / 2).abs().max()) < 1e-5
    assert torch.equal(layer.merged(weight, 0.0), weight)
    assert float(layer.norm()) > 0.1


def test_a_rotation_keeps_lengths_of_columns():
    for layer in (DiagOft(BLOCKS, 9.0), DiagBoft(BUTTERFLY, 9.0)):
        assert torch.allclose(layer.merged(W, 1.0).norm(dim=0), W.norm(dim=0), rtol=1e-5)
    assert float(DiagOft(torch.zeros(6, 4, 4), 1.0).norm()) == 0


def test_zeros_are_the_base_and_so_is_no_norm():
    assert torch.equal(DiagBoft(torch.zeros(2, 6, 4, 4), 1.0).merged(W, 1.0), W)


# --------------------------------------------------------------------------------------------------------------- in files
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
FLAT = BLOCK.replace(".", "_")
QKV = [f"transformer_blocks.3.attn.to_{x}" for x in "qkv"]
PARTS = {
    "oft": {"oft_blocks": BLOCKS, "alpha": torch.tensor(1e3)},
    "oft with lengths": {"oft_blocks": BLOCKS, "rescale": LENGTHS, "alpha": torch.tensor(0.0)},
    "boft": {"oft_blocks": BUTTERFLY, "alpha": torch.tensor(0.0)},
    "glora": {f"{n}.weight": t for n, t in zip(("a1", "a2", "b1", "b2"), HALVES, strict=True)} | {"alpha": torch.tensor(2.0)},
}  # fmt: skip
NAMED = {  # layer as the file calls it → diffusers' component and layer
    "oft_unet_mid_block_attentions_0_proj_in": ("unet", "mid_block.attentions.0.proj_in"),  # sd-scripts networks/oft.py
    "oft_unet_middle_block_1_proj_in": ("unet", "mid_block.attentions.0.proj_in"),  # the same, of SDXL
    "oft_unet_double_blocks_3_img_mlp_0": ("transformer", "transformer_blocks.3.ff.net.0.proj"),  # networks/oft_flux.py
    f"lora_unet_{FLAT}_attn1_to_q": ("unet", f"{BLOCK}.attn1.to_q"),  # LyCORIS through sd-scripts
    f"lycoris_{FLAT}_attn1_to_q": ("unet", f"{BLOCK}.attn1.to_q"),  # LyCORIS's wrapper
    "diffusion_model.single_blocks.7.linear2": ("transformer", "single_transformer_blocks.7.proj_out"),
}


def save(path, layer, parts, dtype=torch.float32):
    save_file({f"{layer}.{end}": tensor.to(dtype) for end, tensor in parts.items()}, path)
    return path


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("kind", PARTS)
def test_it_is_read_from_every_dialect_and_does_what_the_formula_says(tmp_path, name, kind):
    found = read(save(tmp_path / "a.safetensors", name, PARTS[kind]))
    component, module = NAMED[name]
    assert list(found.modules) == [component] and list(found.modules[component]) == [module]
    layer = found.modules[component][module]
    plain = {"boft": lambda: boft_by_definition(BUTTERFLY, W), "glora": lambda: CASES["glora"][2]}
    wanted = plain.get(kind, lambda: oft_by_definition(BLOCKS, W, rescale=PARTS[kind].get("rescale")))()
    assert float((layer.merged(W, 1.0) - wanted).abs().max()) < 1e-5


def test_alpha_of_an_oft_bounds_how_far_it_turns(tmp_path):
    """kohya: ‖Q‖ ≤ alpha · out. Written, the bound is inside the blocks, and all three programs' rules leave them as they are."""
    large = 5 * BLOCKS
    parts = {"oft_blocks": large, "alpha": torch.tensor(0.05)}
    path = save(tmp_path / "a.safetensors", "oft_unet_mid_block_attentions_0_proj_in", parts)
    layer = read(path).modules["unet"]["mid_block.attentions.0.proj_in"]
    assert float((layer.merged(W, 1.0) - oft_by_definition(large, W, alpha=0.05)).abs().max()) < 1e-5
    assert float((layer.merged(W, 1.0) - oft_by_definition(large, W)).abs().max()) > 0.1
    written = layer.named(KOHYA)["oft_blocks"]
    size = float((written - written.transpose(1, 2)).norm())
    for bound in (layer.alpha * 24, layer.alpha):  # kohya, LyCORIS, A1111; ComfyUI
        assert bound >= size == pytest.approx(0.05 * 24, rel=1e-5)


def test_half_precision_is_read(tmp_path):
    path = save(tmp_path / "a.safetensors", "oft_unet_mid_block_attentions_0_proj_in", PARTS["oft"], torch.float16)
    layer = read(path).modules["unet"]["mid_block.attentions.0.proj_in"]
    assert float((layer.merged(W, 1.0) - CASES["oft"][2]).abs().max()) < 5e-3


def test_an_older_glora_is_read_the_other_way_round(tmp_path):
    a1, a2, b1, b2 = HALVES
    older = {"a1.weight": a2, "a2.weight": a1, "b1.weight": b2, "b2.weight": b1, "alpha": torch.tensor(2.0)}
    found = read(save(tmp_path / "a.safetensors", f"lora_unet_{FLAT}_attn1_to_q", older)).modules["unet"]
    assert float((found[f"{BLOCK}.attn1.to_q"].merged(W, 1.0) - CASES["glora"][2]).abs().max()) < 1e-5


def test_fused_layers_come_apart_where_no_row_is_turned_into_another(tmp_path):
    weight = randn(24, 8)
    halves = [0.3 * randn(*s) for s in ((8, 2), (2, 8), (24, 2), (2, 8))]
    glora = dict(zip(("a1.weight", "a2.weight", "b1.weight", "b2.weight"), halves, strict=True))
    wanted = {
        "oft": oft_by_definition(BLOCKS, weight, rescale=LENGTHS),
        "glora": glora_by_definition(*halves, weight, 1.0),
    }
    parts = {"oft": {"oft_blocks": BLOCKS, "rescale": LENGTHS}, "glora": glora}
    for kind, tensors in parts.items():
        path = save(tmp_path / f"{kind}.safetensors", "lora_unet_joint_blocks_3_x_block_attn_qkv", tensors)
        layers = read(path).modules["transformer"]
        assert sorted(layers) == sorted(QKV)
        made = torch.cat([layers[name].merged(rows, 1.0) for name, rows in zip(QKV, weight.chunk(3), strict=True)])
        assert float((made - wanted[kind]).abs().max()) < 1e-5
        Adapter(read(path)).export(tmp_path / f"{kind}-again.safetensors", "comfyui")
        assert read(tmp_path / f"{kind}-again.safetensors").equals(read(path))
    wide = {"oft_blocks": 0.1 * randn(2, 12, 12)}  # a block of 12 rows, of which q has 8
    for tensors in (wide, PARTS["boft"]):
        path = save(tmp_path / "refused.safetensors", "lora_unet_joint_blocks_3_x_block_attn_qkv", tensors)
        with pytest.raises(AdapterError, match="cannot be taken apart"):
            read(path)


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("format", ["kohya", "comfyui", "simpletuner"])
def test_there_and_back_is_bit_equal(tmp_path, kind, format):
    weights = read(save(tmp_path / "a.safetensors", f"lora_unet_{FLAT}_attn1_to_q", PARTS[kind]))
    path = tmp_path / "b.safetensors"
    Adapter(weights).export(path, format)
    again = read(path)
    assert again.equals(weights) and again.kinds == weights.kinds
    tensors = {name.rpartition(".attn1_to_q.")[2] or name: t for name, t in load_file(path).items()}
    assert sum(tensor.numel() for tensor in tensors.values()) == sum(part.numel() for part in PARTS[kind].values())


def test_a_difference_is_seen():
    ours, theirs = ({"unet": {"a": DiagOft(b, 9.0)}} for b in (BLOCKS, 1.1 * BLOCKS))
    assert differences(LoraWeights(ours), LoraWeights(theirs))[0].relative > 0.01
    assert differences(LoraWeights(ours), LoraWeights(ours)) == []


@pytest.mark.parametrize(
    "parts",
    [
        {"oft_blocks": torch.zeros(6, 4, 5)},
        {"oft_blocks": torch.zeros(4, 4)},
        {"oft_blocks": torch.zeros(2, 3, 6, 4, 4)},
        {"oft_blocks": torch.zeros(0, 4, 4)},
        {"oft_blocks": BLOCKS, "rescale": torch.ones(23, 1)},
        {"oft_blocks": BLOCKS, "rescale": torch.ones(24, 2)},
        {"oft_blocks": torch.zeros(2, 6, 3, 3)},
        {"oft_blocks": torch.zeros(4, 4, 6, 6)},  # 24 outputs do not shuffle that far
        {"oft_blocks": BLOCKS * float("nan")},
        {"oft_blocks": BLOCKS, "alpha": torch.tensor(float("nan"))},
        {"oft_blocks": torch.full((6, 4, 4), 3e38) * randn(6, 4, 4).sign()},
        {"rescale": LENGTHS},
        {"a1.weight": HALVES[0], "a2.weight": HALVES[1], "b1.weight": HALVES[2]},
        {f"{n}.weight": t for n, t in zip(("a1", "a2", "b1", "b2"), [*HALVES[:3], randn(4, 20)], strict=True)},
        {f"{n}.weight": t for n, t in zip(("a1", "a2", "b1", "b2"), [*HALVES[:3], randn(3, 21)], strict=True)},
        {**PARTS["glora"], "bm.weight": randn(3, 3, 3, 3)},
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_none_is_refused(tmp_path, parts):
    path = save(tmp_path / "a.safetensors", "lora_unet_mid_block_attentions_0_proj_in", parts)
    with pytest.raises(AdapterError):
        read(path)


# ---------------------------------------------------------------------------------------------------- drawn with, and LoRA
@pytest.mark.parametrize("name", ["oft", "oft with lengths", "boft", "glora"])
def test_it_is_drawn_with_and_comes_off_bit_for_bit(name):
    layer, weight, wanted = CASES[name]
    base = torch.nn.Linear(weight.shape[1], 24).requires_grad_(False)
    base.weight.data.copy_(weight)
    before = base.weight.clone()
    with Applied({"unet": torch.nn.ModuleDict({"a": base})}, {"unet.a": layer}, 1.0):
        assert float((base.weight - wanted).abs().max()) < 1e-5
    assert torch.equal(base.weight, before)


@pytest.mark.parametrize(("name", "rank"), [("glora", 6), ("glora of a convolution", 24)])
def test_a_glora_is_a_lora_exactly_where_its_base_is_known(name, rank):
    layer, weight, wanted = CASES[name]
    pair = as_lora(layer, weight)
    assert pair.rank == rank and pair.fits(weight.shape)
    assert float((pair.delta() - (wanted - weight)).abs().max()) < 1e-4


def test_with_its_base_each_becomes_a_lora_and_says_what_that_leaves_out():
    base = {"unet": torch.nn.ModuleDict({"a": torch.nn.Linear(20, 24)}).requires_grad_(False)}
    for name in ("oft", "boft", "glora"):
        weights = LoraWeights({"unet": {"a": CASES[name][0]}})
        wanted = CASES[name][0].merged(base["unet"].a.weight, 1.0) - base["unet"].a.weight
        whole, left_out = nearest_weights(base, weights, 20)
        assert left_out < 1e-5 and torch.allclose(whole.modules["unet"]["a"].delta(), wanted, atol=1e-5)
        small, left_out = nearest_weights(base, weights, 2)
        lost = float((small.modules["unet"]["a"].delta() - wanted).norm() / wanted.norm())
        assert left_out == pytest.approx(lost, rel=1e-2) and lost > 0.01
        merged, left_out = combined([(weights, 0.5)], "svd", Keep(), modules=base)
        assert left_out < 1e-5 and torch.allclose(merged.modules["unet"]["a"].delta(), 0.5 * wanted, atol=1e-5)
    exact, left_out = combined([(weights, 0.5)], "linear", Keep(), modules=base)  # the GLoRA
    assert left_out == 0 and torch.allclose(exact.modules["unet"]["a"].delta(), 0.5 * wanted, atol=1e-5)


def test_the_commands_say_what_can_be_done_with_it(tmp_path, make_tiny, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tiny(text_width=768).save_pretrained("wide")
    block = "oft_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to"
    blocks = {f"{block}_{x}.oft_blocks": 0.2 * randn(4, 4, 4, seed=i) for i, x in enumerate("qk")}
    save_file({**blocks, **{f"{block}_{x}.alpha": torch.tensor(0.5) for x in "qk"}}, "a.safetensors")

    def run(*words, code=0):
        assert main([str(word) for word in words]) == code, capsys.readouterr().err
        return capsys.readouterr()

    assert "diag-oft" in run("inspect", "a.safetensors").out
    run(
        "generate",
        "--adapter",
        "a.safetensors:0.8",
        "--base",
        "wide",
        "--prompt",
        "x",
        "--steps",
        1,
        "--output",
        "drawn",
    )
    told = run("export", "a.safetensors", "--base", "wide", "--output", "b.safetensors").err
    assert "neither diffusers nor peft" in told
    assert run("diff", "a.safetensors", "b.safetensors").out == ""
    refused = run("export", "a.safetensors", "--format", "diffusers", "--output", "c.safetensors", code=2).err
    assert "neither diffusers nor peft" in refused and "--nearest" in refused
    assert "neither diffusers nor peft" in run("verify", "a.safetensors", "--base", "wide", code=1).out
    words = ("--nearest", 16, "--base", "wide", "--output", "c.safetensors")
    told = run("export", "a.safetensors", "--format", "diffusers", *words)
    assert "diffusers takes all 2 layers" in told.err
    assert math.isclose(0, float(told.err.split("leaves out ")[1].split(" %")[0]), abs_tol=1e-3)
