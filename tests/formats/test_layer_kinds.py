"""The arithmetic of each kind against its formula written out, the names of both dialects, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.errors import AdapterError
from adapt.formats import KINDS, Dora, LoHa, LoKr, LoraWeights, Pair, read, write_kohya, write_lora, write_peft
from adapt.formats.diffusers_lora import HEADER
from adapt.formats.factorise import nearest
from adapt.formats.layer import KOHYA, PEFT
from adapt.formats.readers import LOADER, loads_in


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * len(shape) + sum(shape)))


DOWN, UP = randn(2, 6), randn(5, 2)
CONV_DOWN, CONV_UP = randn(2, 4, 3, 3), randn(5, 2, 1, 1)
LAYERS = {
    "lora": Pair(DOWN, UP, 3.0),
    "dora": Dora(DOWN, UP, 3.0, randn(5, 1).abs()),
    "dora of a convolution": Dora(CONV_DOWN, CONV_UP, 3.0, randn(5, 1, 1, 1).abs()),
    "loha": LoHa(randn(5, 2), randn(2, 6), randn(5, 2, seed=1), randn(2, 6, seed=1), 3.0),
    "loha of a convolution": LoHa(randn(5, 2), randn(2, 36), randn(5, 2, seed=1), randn(2, 36, seed=1), 3.0),
    "loha with cores": LoHa(
        randn(2, 5),
        randn(2, 4),
        randn(2, 5, seed=1),
        randn(2, 4, seed=1),
        3.0,
        randn(2, 2, 3, 3),
        randn(2, 2, 3, 3, seed=1),
    ),
    "lokr": LoKr(3.0, w1=randn(2, 3), w2_a=randn(4, 2), w2_b=randn(2, 5)),
    "lokr, both in two": LoKr(3.0, w1_a=randn(3, 2), w1_b=randn(2, 3), w2_a=randn(4, 2), w2_b=randn(2, 5)),
    "lokr, whole": LoKr(3.0, w1=randn(2, 3), w2=randn(4, 5, 3, 3), given_rank=4),
    "lokr, left in two": LoKr(3.0, w1_a=randn(3, 2), w1_b=randn(2, 3), w2=randn(4, 5)),
    "lokr with a core": LoKr(3.0, w1=randn(2, 3), w2_a=randn(2, 4), w2_b=randn(2, 5), t2=randn(2, 2, 3, 3)),
}
SHAPES = {
    "lora": (5, 6), "dora": (5, 6), "dora of a convolution": (5, 4, 3, 3), "loha": (5, 6), "loha of a convolution": (5, 4, 3, 3),
    "loha with cores": (5, 4, 3, 3), "lokr": (8, 15), "lokr, both in two": (12, 15), "lokr, whole": (8, 15, 3, 3),
    "lokr, left in two": (12, 15), "lokr with a core": (8, 15, 3, 3),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the arithmetic
def by_definition(name, layer):
    """ΔW entry by entry, from the papers' formulas."""
    out, inside, *kernel = SHAPES[name]
    found = torch.zeros(out, inside, *kernel)
    scale = 3.0 / (4 if name == "lokr, whole" else 2)
    t = {field: tensor.double() for field, tensor in layer.tensors().items()}
    if name.startswith("lora") or name.startswith("dora"):
        return scale * torch.einsum("or,ri...->oi...", t["up"].flatten(1), t["down"]).float()
    if name.startswith("loha"):
        if "t1" in t:
            first = torch.einsum("po,pqkl,qi->oikl", t["w1_a"], t["t1"], t["w1_b"])
            second = torch.einsum("po,pqkl,qi->oikl", t["w2_a"], t["t2"], t["w2_b"])
        else:
            first, second = ((t[f"w{n}_a"] @ t[f"w{n}_b"]).reshape(out, inside, *kernel) for n in (1, 2))
        return (scale * first * second).float()
    left = t["w1"] if "w1" in t else t["w1_a"] @ t["w1_b"]
    if "t2" in t:
        right = torch.einsum("po,pqkl,qi->oikl", t["w2_a"], t["t2"], t["w2_b"])
    else:
        right = t["w2"] if "w2" in t else t["w2_a"] @ t["w2_b"]
    for o in range(out):
        for i in range(inside):
            b, d = right.shape[:2]
            found[o, i] = scale * left[o // b, i // d] * right[o % b, i % d]
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_delta_is_the_formula(name):
    layer, shape = LAYERS[name], SHAPES[name]
    assert layer.fault() is None
    assert torch.allclose(layer.delta(shape), by_definition(name, layer), atol=1e-5)
    assert layer.fits(shape) and layer.size == (shape[0], layer.delta(shape)[0].numel())
    assert not layer.fits((shape[1], *shape[1:])) and not layer.fits((shape[0], shape[1] + 1, *shape[2:]))


@pytest.mark.parametrize("name", [name for name in LAYERS if not name.startswith("dora")])
@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_what_only_adds_is_added(name, scale):
    weight = randn(*SHAPES[name], seed=9)
    wanted = weight + scale * LAYERS[name].delta(weight.shape)
    assert torch.allclose(LAYERS[name].merged(weight, scale), wanted, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("shape", [(5, 6), (5, 4, 3, 3)])
def test_dora_of_rows_sets_the_length_of_each_output(shape, scale):
    layer = LAYERS["dora" if len(shape) == 2 else "dora of a convolution"]
    weight = randn(*shape, seed=9)
    merged, turned = layer.merged(weight, scale), weight + scale * layer.delta()
    for k in range(5):
        length = layer.magnitude.flatten()[k]
        assert torch.allclose(merged[k], length * turned[k] / turned[k].norm(), atol=1e-5)


def test_dora_of_columns_sets_the_length_of_each_input():
    """LyCORIS without `wd_on_output`: which it is, the shape of `dora_scale` says, also where the weight is square."""
    for layer, weight in (
        (Dora(DOWN, UP, 3.0, randn(1, 6).abs()), randn(5, 6)),
        (Dora(CONV_DOWN, CONV_UP, 3.0, randn(1, 4, 1, 1).abs()), randn(5, 4, 3, 3)),
        (Dora(randn(2, 5), UP, 3.0, randn(1, 5).abs()), randn(5, 5)),
    ):
        assert layer.fault() is None and not layer.by_rows
        merged, turned = layer.merged(weight, 1.0), weight + layer.delta()
        for k in range(weight.shape[1]):
            length = layer.magnitude.flatten()[k]
            assert torch.allclose(merged[:, k], length * turned[:, k] / turned[:, k].norm(), atol=1e-5)


def test_a_lokr_of_whole_factors_has_the_factor_that_its_dialect_gives_it(tmp_path):
    layer = LAYERS["lokr, whole"]
    assert layer.scale == 0.75
    inside = layer.with_scale_inside()
    assert inside.scale == 1.0 and torch.allclose(inside.delta(), layer.delta(), atol=1e-5)
    assert LAYERS["lokr"].with_scale_inside() is LAYERS["lokr"]
    written = write_kohya(tmp_path / "a.safetensors", LoraWeights({"unet": {"mid_block": layer}}), width=768)
    found = read(tmp_path / "a.safetensors")
    assert written.equals(found)
    assert torch.allclose(found.modules["unet"]["mid_block"].delta(), layer.delta(), atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- the files
@pytest.mark.parametrize("name", LAYERS)
def test_kohyas_names_and_back(tmp_path, name):
    layer, path = LAYERS[name], tmp_path / "a.safetensors"
    weights = LoraWeights({"unet": {"mid_block.attentions.0.proj_in": layer}})
    written = write_kohya(path, weights, width=768)
    assert read(path).equals(written) and torch.allclose(
        next(iter(read(path).modules["unet"].values())).delta(), layer.delta(), atol=1e-5
    )
    names = {key.removeprefix("lora_unet_mid_block_attentions_0_proj_in.") for key in load_file(path)}
    prefix = {"loha": "hada_", "lokr": "lokr_"}.get(layer.kind)
    wanted = {f"{prefix}{field}" for field in layer.tensors()} if prefix else {"lora_down.weight", "lora_up.weight"}
    assert names == wanted | {"alpha"} | ({"dora_scale"} if layer.kind == "dora" else set())
    assert path.read_bytes() == (write_kohya(tmp_path / "b", weights, width=768) and (tmp_path / "b").read_bytes())


@pytest.mark.parametrize("name", LAYERS)
def test_pefts_names_and_back(tmp_path, name):
    weights = LoraWeights({"unet": {"mid_block.attentions.0.proj_in": LAYERS[name]}})
    write_lora(tmp_path / "a.safetensors", weights, {})
    write_peft(tmp_path / "folder", weights, {})
    assert read(tmp_path / "a.safetensors").equals(weights)
    assert read(tmp_path / "folder" / "adapter_model.safetensors").equals(weights)


def test_lengths_are_stored_as_each_dialect_stores_them():
    linear, conv = LAYERS["dora"], LAYERS["dora of a convolution"]
    assert linear.named(PEFT)["lora_magnitude_vector"].shape == (5,)
    assert conv.named(PEFT)["lora_magnitude_vector"].shape == (1, 5, 1, 1)
    assert linear.named(KOHYA)["dora_scale"].shape == (5, 1)
    assert conv.named(KOHYA)["dora_scale"].shape == (5, 1, 1, 1)


def test_lengths_of_columns_are_kept_by_kohya_and_refused_by_peft(tmp_path):
    weights = LoraWeights({"unet": {"a": Dora(DOWN, UP, 3.0, randn(1, 6).abs())}})
    write_kohya(tmp_path / "a.safetensors", weights, width=768)
    assert read(tmp_path / "a.safetensors").equals(weights)
    for write in (write_lora, write_peft):
        with pytest.raises(AdapterError, match="input columns"):
            write(tmp_path / "b", weights, {})


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_a_missing_alpha_is_a_factor_of_1(tmp_path, dialect):
    for name, layer in LAYERS.items():
        path, weights = tmp_path / "a.safetensors", LoraWeights({"unet": {"mid_block": layer}})
        write_kohya(path, weights, width=768) if dialect == "kohya" else write_lora(path, weights, {})
        save_file({k: v for k, v in load_file(path).items() if not k.endswith(".alpha")}, path)
        assert read(path).modules["unet"]["mid_block"].scale == 1.0, name


def test_lycoris_ignores_the_alpha_of_whole_factors(tmp_path):
    tensors = {"lokr_w1": randn(2, 3), "lokr_w2": randn(4, 5), "alpha": torch.tensor(8.0)}
    save_file({f"lora_unet_mid_block.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "a.safetensors")
    layer = read(tmp_path / "a.safetensors").modules["unet"]["mid_block"]
    assert torch.allclose(layer.delta(), torch.kron(tensors["lokr_w1"], tensors["lokr_w2"]))


def test_one_file_is_one_kind(tmp_path):
    weights = LoraWeights({"unet": {"a": LAYERS["lora"], "b": LAYERS["loha"]}})
    with pytest.raises(AdapterError, match="one kind"):
        write_lora(tmp_path / "a", weights, {})
    assert weights.kinds == {"lora", "loha"} and not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------------- refusals
def changed(name, **changes):
    tensors = LAYERS[name].named(KOHYA)
    return {k: v for k, v in {**tensors, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (changed("loha", hada_w2_b=None), "holds only"),
        (changed("loha", hada_t1=randn(2, 2, 3, 3)), "holds only"),
        (changed("loha", hada_w1_a=randn(5, 3)), "no LoHa"),
        (changed("loha", hada_w2_b=randn(2, 7)), "no LoHa"),
        (changed("loha", hada_w1_a=randn(5)), "no LoHa"),
        (changed("loha", hada_w1_a=torch.tensor(1.0)), "no LoHa"),
        (changed("loha", hada_w1_a=torch.ones(5, 0), hada_w1_b=torch.ones(0, 6)), "no LoHa"),
        (changed("loha", hada_w1_b=torch.full((2, 6), torch.nan)), "not finite"),
        (changed("loha with cores", hada_t1=randn(3, 2, 3, 3)), "no LoHa"),
        (changed("loha with cores", hada_t2=randn(2, 2, 5, 5)), "no LoHa"),
        (changed("lokr", lokr_w1=None), "holds only"),
        (changed("lokr", lokr_w2=randn(4, 5)), "holds only"),
        (changed("lokr", lokr_w2_b=None), "holds only"),
        (changed("lokr", lokr_w2_a=randn(4, 3)), "no LoKr"),
        (changed("lokr", lokr_w1=randn(2)), "no LoKr"),
        (changed("lokr", lokr_w1=torch.tensor(2.0)), "no LoKr"),
        (changed("lokr", lokr_w1=torch.ones(0, 3)), "no LoKr"),
        (changed("lokr", lokr_w1=randn(2, 3, 1)), "no LoKr"),
        (changed("lokr with a core", lokr_t2=randn(3, 2, 3, 3)), "no LoKr"),
        (changed("lokr, both in two", lokr_w1_a=randn(3, 5)), "no LoKr"),
        (changed("lokr", lokr_w2_b=torch.full((2, 5), torch.inf)), "not finite"),
        (changed("dora", dora_scale=randn(5)), "no DoRA"),
        (changed("dora", dora_scale=randn(6, 1)), "no DoRA"),
        (changed("dora of a convolution", dora_scale=randn(5, 1)), "no DoRA"),
        (changed("dora", dora_scale=torch.tensor(1.0)), "no DoRA"),
        (changed("loha", dora_scale=randn(5, 1)), "holds only"),
        (changed("lora") | changed("loha"), "holds only"),
        (changed("lokr", alpha=torch.tensor(float("nan"))), "not finite"),
        (changed("lokr", alpha=torch.ones(2)), "no single number"),
    ],
)
def test_what_is_no_layer_is_refused_by_name(tmp_path, tensors, message):
    path = tmp_path / "a.safetensors"
    save_file({f"lora_unet_mid_block.{name}": tensor.contiguous() for name, tensor in tensors.items()}, path)
    with pytest.raises(AdapterError, match=message) as refused:
        read(path)
    assert "mid_block" in str(refused.value)


def test_a_header_that_says_dora_without_magnitudes_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"unet.a.lora_A.weight": DOWN, "unet.a.lora_B.weight": UP}
    save_file(tensors, path, {HEADER: json.dumps({"unet.use_dora": True})})
    with pytest.raises(AdapterError, match="no magnitude"):
        read(path)
    save_file(tensors | {"unet.a.lora_magnitude_vector": torch.ones(5)}, path)
    assert read(path).kinds == {"dora"}  # diffusers, too, takes it by the key


# ------------------------------------------------------------------------------------------------------ the nearest LoRA
def test_the_nearest_lora_leaves_out_the_tail_of_singular_values():
    for shape in ((12, 9), (8, 5, 3, 3)):
        delta = randn(*shape)
        s = torch.linalg.svdvals(delta.flatten(1))
        for rank in (1, 3, 7):
            pair, lost = nearest(delta, rank)
            assert pair.fault() is None and pair.rank == rank and pair.scale == 1.0
            assert float(lost) == pytest.approx(float(s[rank:].square().sum()), rel=1e-4)
            assert float((pair.delta() - delta).square().sum()) == pytest.approx(float(lost), rel=1e-3)


def test_the_nearest_lora_has_no_more_rank_than_there_is():
    pair, lost = nearest(LAYERS["lora"].delta(), 5)
    assert pair.rank == 2 and float(lost) < 1e-8
    assert torch.allclose(pair.delta(), LAYERS["lora"].delta(), atol=1e-5)
    pair, lost = nearest(torch.zeros(4, 3), 2)
    assert pair.rank == 1 and not pair.delta().any() and float(lost) == 0


def test_every_kind_has_a_reader():
    assert {name for name, kind in KINDS.items() if kind.in_peft} == LOADER.keys()
    assert loads_in("lora", "sd1") == (
        "adapt",
        "diffusers",
        "ComfyUI",
        "A1111",
        "Forge",
        "InvokeAI",
        "stable-diffusion.cpp",
    )
    assert loads_in("dora", "sdxl") == loads_in("lora", None) == ("adapt", "diffusers")
    assert loads_in("loha", "sd2")[:2] == ("adapt", "peft") and "ComfyUI" in loads_in("lokr", "sdxl")
    assert loads_in("lora", "flux") == ("adapt", "diffusers", "ComfyUI", "Forge", "InvokeAI", "stable-diffusion.cpp")
    assert loads_in("loha", "sd3") == ("adapt", "peft", "ComfyUI")
    assert loads_in("lokr", "flux") == ("adapt", "peft"), (
        "three LoKr are none of the one weight that computes q, k and v"
    )
    assert loads_in("lora", "flux", by_diffusers=False) == ("adapt", "peft")
