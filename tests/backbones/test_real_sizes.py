"""Published sizes without weights: parameters, LoRA names and memory of the real denoisers, on the meta device."""

from pathlib import Path

import pytest
import torch

from adapt.api.counting import told
from adapt.api.families import counted
from adapt.api.footprint import _saved, count, on_meta, stand_in, usual
from adapt.backbones.registry import FAMILIES
from adapt.lora.layout import targeted

ROOT = Path(__file__).parents[2]


def test_every_family_has_a_usual_checkpoint():
    without = {"icons", "pixart-alpha", "audioldm2"}  # bundled; the same network as Σ; no configuration at hand
    assert {entry["family"] for entry in usual().values()} == FAMILIES.keys() - without


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


@pytest.mark.parametrize("name", ["sd15", "dit-xl-2-256"])
def test_what_the_table_says_is_what_is_counted(name):
    """After a change of counting, or of a family: `python -m adapt.api.counting --all`."""
    assert counted()["checkpoints"][name] == count(usual()[name], counted()["rank"]).as_dict()


def test_what_the_table_says_of_families_is_what_their_classes_say():
    """After a change: `python -m adapt.api.counting`."""
    known = counted()["families"]
    assert len(known) > 20
    assert {name: told(FAMILIES[name]) for name in known if name in FAMILIES} == known


@pytest.mark.slow
@pytest.mark.parametrize("name", usual())
def test_memory_is_counted_for_every_usual_checkpoint(name):
    footprint = count(usual()[name])
    assert counted()["checkpoints"][name] == footprint.as_dict()
    # Of Kandinsky's UNet much is kept by convolutions between blocks; of all others most is inside blocks.
    share = 0.7 if name == "kandinsky-2-2-decoder" else 0.5
    assert footprint.saved_checkpointed < share * footprint.saved
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


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3.5-medium", "flux1-dev", "wan2.1-t2v-1.3b"])
def test_what_a_run_trains_by_default_has_names_in_kohyas_format(name, tmp_path):
    """At the end of a run its file for UIs must not fail: LoRA of rank 1 in every layer of the real network."""
    from adapt.adapter import Adapter
    from adapt.adapter.facts import Facts
    from adapt.api.network import known_to_uis, text_width
    from adapt.formats import LoraWeights, Pair
    from adapt.formats.names.families import FAMILIES as NAMED

    entry = usual()[name]
    backbone = stand_in(entry["family"], on_meta(entry["class"], entry["arguments"]))
    pairs = {
        layer: Pair(torch.ones(1, module.in_features), torch.ones(module.out_features, 1), 1.0)
        for layer, module in targeted(backbone.denoiser, backbone.lora_targets).items()
    }
    file = tmp_path / "kohya" / "a.safetensors"
    width, family = text_width(backbone), NAMED[str(known_to_uis(backbone))]
    assert (width is None) == (family.component == "transformer") and width in (None, entry["text"]["tokens"][1])
    adapter = Adapter(LoraWeights({backbone.denoiser_name: pairs}), Facts(base={"family": backbone.family}))
    adapter.export(file, "kohya", text_width=width)
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        modules = {key.split(".")[0] for key in opened.keys()}  # noqa: SIM118
    natives = {family.names.of_module(layer)[0].name for layer in pairs}
    assert len(modules) == len(natives) <= len(pairs)
    if (facts := ROOT / "tests" / "facts" / f"kohya_keys_{NAME.get(name, name)}.tsv").is_file():
        known = {line.split("\t")[0] for line in facts.read_text().splitlines()}
        assert modules <= known


NAME = {"flux1-dev": "flux"}
"""Checkpoint → kohya's list of its layers."""
