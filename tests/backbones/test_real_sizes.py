"""Published sizes without weights: parameters, LoRA names and memory of the real denoisers, on the meta device."""

import pytest
import torch

from adapt.api.footprint import _saved, count, on_meta, stand_in, usual
from adapt.backbones.registry import FAMILIES
from adapt.lora.layout import targeted


def test_every_image_family_has_a_usual_checkpoint():
    without = {"icons", "pixart-alpha"}  # bundled; the same network as Σ
    image = {name for name, row in FAMILIES.items() if set(row.pipelines.values()) <= {"text-to-image"}}
    assert {entry["family"] for entry in usual().values()} >= image - without


@pytest.mark.parametrize("name", usual())
def test_parameters_equal_the_published_ones_and_every_target_is_there(name):
    entry = usual()[name]
    network = on_meta(entry["class"], entry["arguments"])
    assert sum(p.numel() for p in network.parameters()) == entry["parameters"]
    backbone = stand_in(entry["family"], network)
    for end in backbone.lora_targets:
        assert targeted(network, [end]), end
    layers = targeted(network, backbone.lora_targets)
    assert all(hasattr(layer, "weight") for layer in layers.values())
    assert set(backbone.idle) <= set(layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", usual())
def test_memory_is_counted_for_every_usual_checkpoint(name):
    footprint = count(usual()[name])
    assert footprint.saved_checkpointed < footprint.saved / 2
    assert footprint.weights_nf4 < footprint.weights
    assert footprint.weights == 2 * usual()[name]["parameters"]


def test_what_is_counted_without_storage_is_what_is_kept_with_it():
    """A small PixArt in bfloat16: bytes that its graph really holds, and the same network on the meta device."""
    arguments = {
        **{"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 8, "num_layers": 3},
        **{"cross_attention_dim": 32, "caption_channels": 16, "sample_size": 16, "use_additional_conditions": False},
    }
    entry = {
        "family": "pixart-sigma", "class": "PixArtTransformer2DModel", "arguments": arguments, "latents": [4, 16, 16],
        "text": {"tokens": [8, 16]},
    }  # fmt: skip
    from diffusers import PixArtTransformer2DModel

    from adapt.lora import inject

    found = []
    for network in (
        on_meta(entry["class"], arguments),
        PixArtTransformer2DModel(**arguments).to(torch.bfloat16).eval(),
    ):
        backbone = stand_in("pixart-sigma", network)
        inject(network, rank=4, alpha=4, dropout=0.0, targets=backbone.lora_targets, seed=0)
        found.append(_saved(backbone, entry, network.device))
    assert found[0] == pytest.approx(found[1], rel=0.01)  # kernels differ in the precision of norms' statistics
    assert found[0] > 10_000
