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
from adapt.formats.header import read_metadata
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
