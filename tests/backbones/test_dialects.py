"""Exported files of every family, given as they are to a fresh pipeline of diffusers: every layer taken, same prediction."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny_families import built

from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.errors import AdapterError
from adapt.evaluation.proof import prove_file
from adapt.formats import LoraWeights, Pair, write_kohya
from adapt.formats.dialects import WRITTEN, write
from adapt.formats.encoder_names import in_memory
from adapt.formats.names.families import FAMILIES

BLOCKS = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_out.0",
)
UNET = ("attn1.to_q", "attn2.to_k", "attn2.to_v", "ff.net.0.proj", "proj_in", "conv1", "time_emb_proj", "conv_in")
CASES = [
    ("stable-diffusion-xl", "kohya", UNET, True, "diffusers"),
    ("stable-diffusion-xl", "omi", UNET, True, "diffusers"),
    ("stable-diffusion-xl", "comfyui", UNET, True, "diffusers"),
    ("stable-diffusion-3", "kohya", BLOCKS, False, "diffusers"),
    ("stable-diffusion-3", "comfyui", BLOCKS, True, "diffusers"),
    ("flux", "kohya", BLOCKS, False, "diffusers"),
    ("flux", "comfyui", BLOCKS, False, "diffusers"),
    ("flux", "xlabs", BLOCKS[:6], False, "diffusers"),
    ("flux", "ai-toolkit", (*BLOCKS, "proj_mlp"), False, "diffusers"),
    ("flux", "bfl", BLOCKS, False, "diffusers"),
]
"""Family, format, ends of the layers, text encoders too, who reads it. Flux's double blocks only where diffusers' converter has
the real sizes of the single ones in it."""


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    """A tiny base with the levels and blocks of Stable Diffusion XL, on which its own names rest."""
    pipeline = built("stable-diffusion-xl")
    config = {**pipeline.unet.config, "layers_per_block": 2, "block_out_channels": (8, 16, 16), "norm_num_groups": 4}
    kinds = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    config |= {"down_block_types": kinds, "up_block_types": tuple(k.replace("Down", "Up") for k in kinds[::-1])}
    config |= {"transformer_layers_per_block": (1, 1, 2), "attention_head_dim": (2, 4, 4)}
    torch.manual_seed(0)
    pipeline.unet = type(pipeline.unet).from_config(config)
    folder = tmp_path_factory.mktemp("xl")
    pipeline.save_pretrained(folder)
    return Backbone.load(str(folder))


def adapter_of(backbone, ends, encoders):
    modules, dice = {}, torch.Generator().manual_seed(0)

    def pairs(component, module, ends):
        found = {}
        for name, layer in module.named_modules():
            if not name.endswith(ends) or not hasattr(layer, "weight") or name.startswith("single"):
                continue
            out, *inside = layer.weight.shape
            ones = [1] * (len(inside) - 1)
            down, up = torch.randn(2, *inside, generator=dice) * 0.2, torch.randn(out, 2, *ones, generator=dice) * 0.2
            found[in_memory(component, name)] = Pair(down, up, 3.0)
        assert found
        return found

    modules[backbone.denoiser_name] = pairs(backbone.denoiser_name, backbone.denoiser, ends)
    for name in ("text_encoder", "text_encoder_2") if encoders else ():
        modules[name] = pairs(name, backbone.modules[name], ("q_proj", "out_proj"))
    base = {"reference": None, "family": backbone.family, "fingerprint": backbone.fingerprint()}
    return Adapter(LoraWeights(modules), Facts(base=base), "style")


@pytest.mark.parametrize(("family", "format", "ends", "encoders", "reader"), CASES)
def test_diffusers_takes_the_file_and_predicts_the_same(
    backbones, xl, tmp_path, family, format, ends, encoders, reader
):
    backbone = xl if family == "stable-diffusion-xl" else backbones(family)
    adapter, path = adapter_of(backbone, ends, encoders), tmp_path / "style.safetensors"
    adapter.export(path, format)
    proof = prove_file(path, Adapter.load(path), backbone, "a red fox")
    assert (proof.layers, proof.reader) == (len(adapter.weights), reader)
    assert proof.difference < 1e-3 * max(1, proof.effect) and proof.effect > 1e-3


def test_layers_that_diffusers_loses_are_found(xl, tmp_path):
    """Its converter of kohya's names (0.42.1) takes the attention or the MLP of a text encoder, and drops the other."""
    backbone = xl
    adapter = adapter_of(backbone, ("attn2.to_k",), False)
    encoder = {}
    for name in ("encoder.layers.0.mlp.fc1", "encoder.layers.0.self_attn.q_proj"):
        out, inside = backbone.modules["text_encoder"].get_submodule(name).weight.shape
        encoder[name] = Pair(torch.ones(2, inside), torch.ones(out, 2), 1.0)
    both = replace(adapter, weights=LoraWeights({**adapter.weights.modules, "text_encoder": encoder}))
    both.export(tmp_path / "a.safetensors", "kohya")
    with pytest.raises(AdapterError, match="took 1 of 2 layers of text_encoder"):
        prove_file(tmp_path / "a.safetensors", Adapter.load(tmp_path / "a.safetensors"), backbone)


def test_flux_at_its_real_size_is_what_diffusers_converter_makes_of_it(tmp_path):
    """Fused weights of single blocks, with the sizes that its converter expects: same ΔW, layer by layer."""
    from diffusers.loaders.lora_conversion_utils import (
        _convert_kohya_flux_lora_to_diffusers,
        _convert_xlabs_flux_lora_to_diffusers,
    )

    dice, single = torch.Generator().manual_seed(0), "single_transformer_blocks.37"
    sizes = {"attn.to_q": 3072, "attn.to_k": 3072, "attn.to_v": 3072, "proj_mlp": 12288}
    layers = {
        f"{single}.{name}": Pair(torch.randn(2, 3072, generator=dice), torch.randn(out, 2, generator=dice), 3.0)
        for name, out in sizes.items()
    }
    layers["norm_out.linear"] = Pair(torch.randn(2, 8, generator=dice), torch.randn(16, 2, generator=dice), 2.0)
    weights = LoraWeights({"transformer": layers})
    write_kohya(tmp_path / "k.safetensors", weights, family=FAMILIES["flux"])
    theirs = _convert_kohya_flux_lora_to_diffusers(load_file(tmp_path / "k.safetensors"))
    for name, layer in layers.items():
        prefix = "" if name == "norm_out.linear" else "transformer."
        down, up = (theirs[f"{prefix}{name}.lora_{half}.weight"] for half in "AB")
        assert torch.allclose(up[:64] @ down[:, :64], layer.delta()[:64, :64], atol=1e-4), name
    attention = LoraWeights({"transformer": {name: each for name, each in layers.items() if ".attn." in name}})
    write(tmp_path / "x.safetensors", attention, WRITTEN["xlabs"], {}, FAMILIES["flux"])
    theirs = _convert_xlabs_flux_lora_to_diffusers(load_file(tmp_path / "x.safetensors"))
    for name, layer in attention.modules["transformer"].items():
        down, up = (theirs[f"transformer.{name}.lora_{half}.weight"] for half in "AB")
        assert torch.allclose(up[:64] @ down[:, :64], layer.delta()[:64, :64], atol=1e-4), name
