"""What files call the base that they are for: which of a family's models it is, told by its configuration."""

import pytest
import torch
from tiny_families import built, flux, stable_diffusion_3

from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.formats import LoraWeights, Pair
from adapt.formats.header import read_metadata
from adapt.lora.layout import targeted


def plain_3():
    """Stable Diffusion 3 itself: no norm of q and k."""
    pipeline = stable_diffusion_3(t5=False)
    pipeline.transformer = type(pipeline.transformer).from_config({**pipeline.transformer.config, "qk_norm": None})
    return pipeline


BASES = {
    "1.5": ("epsilon", 768, "sd_v1", "stable-diffusion-v1"),
    "1.5 with v": ("v_prediction", 768, "sd_v1_v", "stable-diffusion-v1"),
    "2.1 base": ("epsilon", 1024, "sd_v2", "stable-diffusion-v2-512"),
    "2.1": ("v_prediction", 1024, "sd_v2_v", "stable-diffusion-v2-768-v"),
    "3 medium": (plain_3, None, "medium", "stable-diffusion-3-medium"),
    "3.5 medium": (lambda: stable_diffusion_3(False, dual=(0,)), None, "5-medium", "stable-diffusion-3-5-medium"),
    "3.5 large": (lambda: stable_diffusion_3(False), None, "5-large", "stable-diffusion-3-5-large"),
    "dev": (lambda: flux(True), None, "flux1", "flux-1-dev"),
    "schnell": (lambda: flux(False), None, "flux1", "flux-1-schnell"),
    "XL": (lambda: built("stable-diffusion-xl"), None, "sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
}


@pytest.mark.parametrize("name", BASES)
def test_files_name_the_model_that_they_are_for(name, make_tiny, tmp_path):
    made, width, version, architecture = BASES[name]
    pipeline = make_tiny(prediction_type=made, text_width=width) if width else made()
    pipeline.save_pretrained(tmp_path / "base")
    backbone = Backbone.load(str(tmp_path / "base"))
    pairs = {
        layer: Pair(torch.ones(1, module.in_features), torch.ones(module.out_features, 1), 1.0)
        for layer, module in targeted(backbone.denoiser, backbone.lora_targets).items()
    }
    assert backbone.model == (name if backbone.family in ("stable-diffusion-3", "flux") else None)
    base = {"family": backbone.family, **({"model": backbone.model} if backbone.model else {})}
    facts = Facts(base=base, objective=backbone.objective().prediction_type, training={"steps": 1})
    adapter = Adapter(LoraWeights({backbone.denoiser_name: pairs}), facts)
    adapter.save(tmp_path / "own")
    files = [tmp_path / "own" / "pytorch_lora_weights.safetensors"]
    for format in () if name == "XL" else ("kohya", "comfyui"):  # the tiny one has not XL's blocks
        files.append(tmp_path / f"{format}.safetensors")
        adapter.export(files[-1], format)
    for file in files:
        told = read_metadata(file)
        assert told["modelspec.architecture"] == f"{architecture}/lora", file.name
        assert told["ss_base_model_version"] == version
        assert told["ss_v2"] == str(name.startswith("2."))
        assert told.get("modelspec.prediction_type") == {"epsilon": "epsilon", "v_prediction": "v"}.get(facts.objective)
