"""(IA)³ of LyCORIS, and kohya's OFT of Flux with a rotation for each part of a fused layer: by their formulas, there and back."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.adapter import Adapter
from adapt.errors import AdapterError
from adapt.formats import LoraWeights, read
from adapt.formats.agree import differences
from adapt.formats.ia3 import Ia3
from adapt.lora import Applied
from adapt.lora.nearest import nearest_weights


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * len(shape) + sum(shape)))


LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k"
MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
CASES = {  # KohakuBlueleaf/LyCORIS lycoris/modules/ia3.py: (1 + v) times the weight, along `on_input`
    "outputs": (randn(24), 0, randn(24, 20), (24, 1)),
    "inputs": (randn(20), 1, randn(24, 20), (1, 20)),
    "outputs of a convolution": (randn(1, 24, 1, 1), 0, randn(24, 4, 3, 3), (24, 1, 1, 1)),
    "inputs of a convolution": (randn(1, 4, 1, 1), 1, randn(24, 4, 3, 3), (1, 4, 1, 1)),
}


def save(path, layer, factors, on_input):
    save_file({f"{layer}.weight": factors, f"{layer}.on_input": torch.tensor(on_input)}, path)
    return path


@pytest.mark.parametrize("name", CASES)
def test_it_does_what_its_formula_says(tmp_path, name):
    factors, on_input, weight, along = CASES[name]
    layer = read(save(tmp_path / "a.safetensors", LAYER, factors, on_input)).modules["unet"][MODULE]
    assert isinstance(layer, Ia3) and layer.fits(weight.shape) and not layer.fits((23, 21))
    for scale in (1.0, 0.5, 0.0):
        wanted = weight * (1 + scale * factors.reshape(along))
        assert torch.allclose(layer.merged(weight, scale), wanted, atol=1e-6)
    assert float(layer.norm()) == pytest.approx(float(factors.norm()))


@pytest.mark.parametrize("format", ["kohya", "comfyui", "simpletuner"])
@pytest.mark.parametrize("name", ["outputs", "inputs"])
def test_there_and_back_is_bit_equal(tmp_path, name, format):
    factors, on_input, *_ = CASES[name]
    path = save(tmp_path / "a.safetensors", LAYER, factors, on_input)
    Adapter(read(path)).export(tmp_path / "b.safetensors", format)
    assert read(tmp_path / "b.safetensors").equals(read(path)) and len(load_file(tmp_path / "b.safetensors")) == 2
    assert differences(read(tmp_path / "b.safetensors"), read(path)) == []


@pytest.mark.parametrize("on_input", [0, 1])
def test_in_a_fused_layer_and_out_again(tmp_path, on_input):
    weight, factors = randn(24, 8), randn(8 if on_input else 24)
    path = save(tmp_path / "a.safetensors", "lora_unet_joint_blocks_3_x_block_attn_qkv", factors, on_input)
    layers = read(path).modules["transformer"]
    names = [f"transformer_blocks.3.attn.to_{x}" for x in "qkv"]
    made = torch.cat([layers[name].merged(rows, 1.0) for name, rows in zip(names, weight.chunk(3), strict=True)])
    assert torch.allclose(made, weight * (1 + (factors if on_input else factors[:, None])), atol=1e-6)
    Adapter(read(path)).export(tmp_path / "b.safetensors", "comfyui")
    assert read(tmp_path / "b.safetensors").equals(read(path))


def test_it_comes_off_bit_for_bit_and_is_the_nearest_lora_with_its_base():
    layer = Ia3(*CASES["outputs"][:1], torch.tensor(0))
    base = {"unet": torch.nn.ModuleDict({"a": torch.nn.Linear(20, 24)}).requires_grad_(False)}
    before = base["unet"].a.weight.clone()
    wanted = layer.merged(before, 0.7)
    with Applied(base, {"unet.a": layer}, 0.7):
        assert torch.allclose(base["unet"].a.weight, wanted)
    assert torch.equal(base["unet"].a.weight, before)
    found, left_out = nearest_weights(base, LoraWeights({"unet": {"a": layer}}), 20)
    assert left_out < 1e-5
    assert torch.allclose(found.modules["unet"]["a"].delta(), layer.merged(before, 1.0) - before, atol=1e-5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"weight": randn(24)}, "a weight itself"),
        ({"on_input": torch.tensor(0)}, "holds only on_input"),
        ({"weight": randn(24, 20), "on_input": torch.tensor(0)}, "no \\(IA\\)³"),
        ({"weight": torch.full((24,), float("nan")), "on_input": torch.tensor(0)}, "not finite"),
        ({"weight": randn(24), "on_input": torch.tensor([0, 1])}, "type that no adapter has"),
    ],
    ids=range(5),
)
def test_what_is_none_is_refused(tmp_path, parts, message):
    save_file({f"{LAYER}.{end}": tensor for end, tensor in parts.items()}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=message):
        read(tmp_path / "a.safetensors")


# ------------------------------------------------------------------------------------------------ kohya's OFT of Flux
SINGLE = "single_transformer_blocks.8"


def rotated(blocks, alpha, rows):
    """kohya-ss/sd-scripts networks/oft_flux.py: each part by its own rotation, bound by alpha times its own height."""
    q = blocks.double() - blocks.double().transpose(1, 2)
    q = q * min(1.0, alpha * len(rows) / float(q.norm()))
    one = torch.eye(q.shape[-1]).double()
    turn = torch.block_diag(*((one + each) @ torch.linalg.inv(one - each) for each in q))
    return turn.T @ rows.double()


@pytest.mark.parametrize(
    ("layer", "heights", "modules"),
    [
        ("double_blocks_8_txt_attn_qkv", (8, 8, 8), [f"transformer_blocks.8.attn.add_{x}_proj" for x in "qkv"]),
        ("single_blocks_8_linear1", (8, 8, 8, 32), [*(f"{SINGLE}.attn.to_{x}" for x in "qkv"), f"{SINGLE}.proj_mlp"]),
        ("double_blocks_8_txt_mod_lin", (24,), ["transformer_blocks.8.norm1_context.linear"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("alpha", [1e-2, 1e3])
def test_each_part_of_a_fused_layer_has_its_own_rotation(tmp_path, layer, heights, modules, alpha):
    blocks = [randn(2, height // 2, height // 2, seed=n) for n, height in enumerate(heights)]
    parts = {f"oft_unet_{layer}.oft_blocks.{n}": each for n, each in enumerate(blocks)}
    save_file(parts | {f"oft_unet_{layer}.alpha": torch.tensor(alpha)}, tmp_path / "a.safetensors")
    layers = read(tmp_path / "a.safetensors").modules["transformer"]
    assert sorted(layers) == sorted(modules)
    for module, each, height in zip(modules, blocks, heights, strict=True):
        rows = randn(height, 5)
        assert float((layers[module].merged(rows, 1.0) - rotated(each, alpha, rows)).abs().max()) < 1e-4


def test_rotations_of_other_parts_are_refused(tmp_path):
    two = {f"oft_unet_double_blocks_8_txt_attn_qkv.oft_blocks.{n}": randn(2, 4, 4) for n in range(2)}
    save_file(two, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="not as many rotations"):
        read(tmp_path / "a.safetensors")
