"""The strength of exported files: ΔW by the formula of each program that reads them, written anew from its sources, is ours."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.adapter import Adapter, Facts
from adapt.cli.main import main
from adapt.errors import AdapterError
from adapt.formats import Dora, LoHa, LoKr, LoraWeights, Pair, read
from adapt.formats.diag_oft import DiagOft
from adapt.formats.glora import GLora
from adapt.formats.header import HEADER, read_metadata
from adapt.formats.ia3 import Ia3

Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * len(shape) + sum(shape)))


LAYERS = {
    "lora": {Q: Pair(randn(4, 12), randn(8, 4), 2.5), CONV: Pair(randn(3, 4, 3, 3), randn(8, 3, 1, 1), 7.0)},
    "loha": {Q: LoHa(randn(8, 4), randn(4, 12), randn(8, 4, seed=1), randn(4, 12, seed=1), 2.5)},
    "lokr": {Q: LoKr(2.5, w1=randn(4, 3), w2_a=randn(2, 2), w2_b=randn(2, 4))},
    "lokr, whole": {Q: LoKr(2.5, w1=randn(4, 3), w2=randn(2, 4), given_rank=5)},
    "lokr, in two": {Q: LoKr(2.5, w1_a=randn(4, 2), w1_b=randn(2, 3), w2_a=randn(2, 2), w2_b=randn(2, 4))},
}


# ------------------------------------------------------------- what the programs' sources do with one layer's tensors
def product(t):
    """The tensors of a layer by their ends → (ΔW before any strength, the rank that the program divides by, or None)."""
    if "lora_up.weight" in t:
        up, down = t["lora_up.weight"].flatten(1), t["lora_down.weight"]
        return torch.einsum("or,ri...->oi...", up, down), len(down)
    if "hada_w1_a" in t:
        return (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"]), len(t["hada_w1_b"])
    left = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    right = t["lokr_w2"] if "lokr_w2" in t else t["lokr_w2_a"] @ t["lokr_w2_b"]
    return torch.kron(left, right), next((len(t[end]) for end in ("lokr_w2_b", "lokr_w1_b") if end in t), None)


def comfyui(t, scale):
    """comfy/weight_adapter: alpha / rank, 1 without alpha; two whole Kronecker factors have no rank and alpha is left out."""
    found, rank = product(t)
    return scale * found * (float(t["alpha"]) / rank if "alpha" in t and rank else 1.0)


def a1111(t, scale):
    """extensions-builtin/Lora/network.py calc_scale: alpha / dim where both are there, else 1. Forge likewise."""
    found, dim = product(t)
    factor = float(t["alpha"]) / dim if dim is not None and "alpha" in t else 1.0
    return found * factor * scale


def invokeai(t, scale):
    """backend/patches/layers/lora_layer_base.py: alpha / rank, 1 where either is missing."""
    found, rank = product(t)
    return found * scale * (1.0 if rank is None or "alpha" not in t else float(t["alpha"]) / rank)


def sd_cpp(t, scale):
    """leejet/stable-diffusion.cpp src/lora.hpp: alpha / rank, and a rank of 1 for two whole Kronecker factors."""
    found, rank = product(t)
    return found * (float(t["alpha"]) / (rank or 1) if "alpha" in t else 1.0) * scale


def kohya(t, scale):
    """networks/lora.py merge_to, LyCORIS get_diff_weight: alpha / dim; whole Kronecker factors at 1."""
    found, dim = product(t)
    return scale * (float(t["alpha"]) / dim if dim else 1.0) * found


READERS = (comfyui, a1111, invokeai, sd_cpp, kohya)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_every_reader_s_strength_is_ours(tmp_path, kind, reader, scale):
    path = tmp_path / "a.safetensors"
    Adapter(LoraWeights({"unet": LAYERS[kind]})).export(path, "kohya", text_width=768)
    tensors = load_file(path)
    for name, layer in LAYERS[kind].items():
        start = f"lora_unet_{name.replace('.', '_')}."
        theirs = reader({k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}, scale)
        ours = scale * layer.delta(theirs.shape)
        assert float((theirs - ours).norm() / ours.norm()) <= 1e-6


# ------------------------------------------------------------------------------------------------ rank-stabilised, and DoRA
def by_header(path, **said):
    """diffusers' file of a run of peft's: what strength it has, its header says."""
    layer = LAYERS["lora"][Q]
    tensors = {f"unet.{Q}.lora_A.weight": layer.down, f"unet.{Q}.lora_B.weight": layer.up}
    if said.get("use_dora"):
        tensors[f"unet.{Q}.lora_magnitude_vector"] = randn(8).abs() + 1
    config = {"r": 4, "lora_alpha": 3.0, "target_modules": [Q], **said}
    save_file(tensors, path, {HEADER: json.dumps({f"unet.{key}": value for key, value in config.items()})})
    return read(path), layer.up @ layer.down


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("rslora", [True, False])
def test_the_factor_of_rslora_is_inside_alpha(tmp_path, reader, scale, rslora):
    """alpha / √r (Kalajdzievski 2023, arXiv 2312.03732), for readers that know alpha / r alone."""
    weights, product = by_header(tmp_path / "a.safetensors", use_rslora=rslora)
    Adapter(weights).export(tmp_path / "k.safetensors", "kohya", text_width=768)
    tensors = {key.split(".", 1)[1]: tensor for key, tensor in load_file(tmp_path / "k.safetensors").items()}
    ours = scale * 3.0 / (4**0.5 if rslora else 4) * product
    assert float((reader(tensors, scale) - ours).norm() / ours.norm()) <= 1e-6


def lycoris_dora(t, weight, multiplier):
    """LyCORIS f49d30d, modules/locon.py get_merged_weight and apply_weight_decompose: alpha / rank inside the norm, the
    multiplier on the factor that lengths are changed by."""
    found, rank = product(t)
    turned, lengths = weight + found * float(t["alpha"]) / rank, t["dora_scale"]
    eps = torch.finfo(weight.dtype).eps
    if len(lengths) == len(weight):
        norm = turned.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1)) + eps
    else:
        norm = turned.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *[1] * (weight.ndim - 2)) + eps
    return turned * (multiplier * (lengths / norm - 1) + 1)


LENGTHS = {"rows": (8, 1), "columns": (1, 12), "rows of a kernel": (8, 1, 1, 1), "columns of a kernel": (1, 4, 1, 1)}


@pytest.mark.parametrize("which", LENGTHS)
def test_dora_s_lengths_are_lycoris_s(tmp_path, which):
    plain = LAYERS["lora"][CONV if "kernel" in which else Q]
    layer = Dora(plain.down, plain.up, plain.alpha, randn(*LENGTHS[which], seed=3).abs() + 1)
    weight = randn(*layer.shape, seed=5)
    Adapter(LoraWeights({"unet": {CONV if "kernel" in which else Q: layer}})).export(
        tmp_path / "a.safetensors", "kohya", text_width=768
    )
    tensors = {key.split(".", 1)[1]: tensor for key, tensor in load_file(tmp_path / "a.safetensors").items()}
    theirs, ours = lycoris_dora(tensors, weight, 1.0), layer.merged(weight, 1.0)
    assert float((theirs - ours).norm() / (ours - weight).norm()) <= 1e-6
    assert (
        float((lycoris_dora(tensors, weight, 0.0) - (weight + plain.delta())).norm()) < 1e-4
    )  # not the base, as in peft


@pytest.mark.parametrize("rslora", [True, False])
def test_a_dora_of_rslora_too(tmp_path, rslora):
    weights, product = by_header(tmp_path / "a.safetensors", use_rslora=rslora, use_dora=True)
    Adapter(weights).export(tmp_path / "k.safetensors", "kohya", text_width=768)
    tensors = {key.split(".", 1)[1]: tensor for key, tensor in load_file(tmp_path / "k.safetensors").items()}
    weight, lengths = randn(8, 12, seed=5), randn(8).abs() + 1
    turned = weight + 3.0 / (4**0.5 if rslora else 4) * product
    ours = turned * (lengths / turned.norm(dim=1))[:, None]
    theirs = lycoris_dora(tensors, weight, 1.0)
    assert float((theirs - ours).norm() / (ours - weight).norm()) <= 1e-6


# ------------------------------------------------------------------------------------------------ another strength as 1
OTHERS = {
    **LAYERS,
    "dora": {Q: Dora(randn(4, 12), randn(8, 4), 2.5, randn(8, 1).abs() + 1)},
    "glora": {Q: GLora(randn(12, 2), randn(2, 12), randn(8, 2), randn(2, 12), 3.0)},
    "ia3": {Q: Ia3(randn(8), torch.tensor(0))},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_at_another_strength_it_does_at_1_what_it_did_there(kind):
    for layer in OTHERS[kind].values():
        weight = randn(*getattr(layer, "shape", (8, 12)) if layer.size[1] else (8, 12))
        assert torch.allclose(layer.times(0.8).merged(weight, 1.0), layer.merged(weight, 0.8), atol=1e-5)
    with pytest.raises(AdapterError, match="no strength"):
        DiagOft(randn(2, 4, 4), 9.0).times(0.8)


@pytest.mark.parametrize("format", ["kohya", "diffusers", "simpletuner"])
def test_the_recommended_scale_becomes_scale_1_of_the_file(tmp_path, capsys, monkeypatch, format):
    monkeypatch.chdir(tmp_path)
    facts = Facts(recommended={"scale": 0.8, "steps": 30}, loads_in=("adapt", "diffusers"))
    wide = {Q.replace("attn1.to_q", "attn2.to_k"): Pair(randn(4, 768), randn(8, 4), 2.5)}
    Adapter(LoraWeights({"unet": wide}), facts, "style").save("style")
    words = ["export", "style", "--format", format, "--output"]
    assert main([*words, "plain.safetensors"]) == 0
    assert "scale 0.8 is recommended; --strength 0.8" in capsys.readouterr().err
    assert main([*words, "strong.safetensors", "--strength", "0.8"]) == 0
    assert "recommended" not in capsys.readouterr().err
    plain, strong = (
        next(iter(read(tmp_path / f"{n}.safetensors").modules["unet"].values())) for n in ("plain", "strong")
    )
    assert torch.allclose(strong.delta(), 0.8 * plain.delta(), atol=1e-6)
    if format != "diffusers":
        told = [json.loads((tmp_path / f"{n}.json").read_text())["preferred weight"] for n in ("plain", "strong")]
        assert told == [0.8, pytest.approx(1.0)]
        assert "strength 1.0" in read_metadata(tmp_path / "strong.safetensors")["modelspec.usage_hint"]
    assert main([*words, "none.safetensors", "--strength", "0"]) == 2
    assert "--strength" in capsys.readouterr().err


def test_a_file_whose_alpha_is_not_its_rank_is_read_so(tmp_path):
    """The readers above find the same in a file that nobody here wrote."""
    start = f"lora_unet_{Q.replace('.', '_')}"
    parts = {"lora_down.weight": randn(4, 12), "lora_up.weight": randn(8, 4), "alpha": torch.tensor(1.0)}
    save_file({f"{start}.{end}": tensor for end, tensor in parts.items()}, tmp_path / "a.safetensors")
    ours = read(tmp_path / "a.safetensors").modules["unet"][Q].delta()
    assert all(torch.allclose(reader(parts, 1.0), ours, atol=1e-6) for reader in READERS)
