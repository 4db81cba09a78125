"""OFT: a rotation by definition, peft's own in numbers, in files and in runs; refused where it is none."""

import copy
import shutil

import pytest
import torch
from peft import PeftModel

from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.config import validate
from adapt.errors import AdapterError, SettingsError
from adapt.formats import LoraWeights, read, write_peft
from adapt.formats.oft import Oft
from adapt.formats.peft_folder import WEIGHTS_NAME

TARGETS = ("attn2.to_q", "attn1.to_k", "ff.net.2", "conv1")


def turned(put, unet, teach, **settings):
    return teach(put(unet, targets=TARGETS, kind="oft", rank=8, alpha=None, **settings), strength=0.3)


def test_it_turns_inputs_and_leaves_their_lengths(put, unet, teach):
    for name, layer in turned(put, unet, teach).layers().items():
        turns, weight = layer.turns(), torch.randn(5, layer.size[1])
        assert torch.allclose(turns @ turns.transpose(1, 2), torch.eye(8).expand_as(turns), atol=1e-5), name
        assert torch.allclose(layer.merged(weight, 1.0).norm(dim=1), weight.norm(dim=1), rtol=1e-4)
        assert torch.equal(layer.merged(weight, 0.0), weight)
        assert not torch.allclose(layer.merged(weight, 1.0), weight, atol=0.1)


def test_it_starts_as_nothing_takes_linear_layers_only_and_goes_without_a_trace(put, unet, plain, predict):
    injection = put(unet, targets=TARGETS, kind="oft", rank=8, alpha=None)
    assert {name.rpartition(".")[2] for name in injection.places} == {"to_q", "to_k", "2"}
    assert torch.equal(predict(unet), predict(plain))
    without = put(copy.deepcopy(plain), targets=TARGETS, kind="oft", rank=8, alpha=None, rank_pattern={"to_k": 0})
    assert {name.rpartition(".")[2] for name in without.places} == {"to_q", "2"}
    assert {n for n, p in unet.named_parameters() if p.requires_grad} == set(injection.parameters)
    injection.remove()
    assert all(torch.equal(t, plain.state_dict()[n]) for n, t in unet.state_dict().items())


def test_merged_saved_and_loaded_by_peft_it_predicts_the_same(put, unet, plain, teach, predict, tmp_path):
    injection = turned(put, unet, teach)
    trained, layers = predict(unet), injection.layers()
    merged = copy.deepcopy(plain)
    for name, layer in layers.items():
        weight = merged.get_submodule(name).weight
        weight.data = layer.merged(weight, 1.0)
    assert (predict(merged) - trained).abs().max() <= 2e-5 < 1e-2 < (predict(plain) - trained).abs().max()
    write_peft(tmp_path, LoraWeights({"unet": layers}), {"unet": injection.config.to_dict()})
    assert read(tmp_path / WEIGHTS_NAME).equals(LoraWeights({"unet": layers}))
    theirs = copy.deepcopy(plain)
    PeftModel.from_pretrained(theirs, str(tmp_path))
    assert (predict(theirs.eval()) - trained).abs().max() <= 1e-5


def test_it_becomes_a_lora_for_programs_that_cannot_turn(put, unet, teach, tiny_base, tmp_path):
    backbone, layers = Backbone.load(str(tiny_base)), turned(put, unet, teach).layers()
    adapter = Adapter(LoraWeights({"unet": layers}), Facts(), "turned")
    assert adapter.loader == "peft"
    for format in ("kohya", "diffusers"):
        with pytest.raises(AdapterError):
            adapter.export(tmp_path / "x.safetensors", format, text_width=768)
    assert not (tmp_path / "x.safetensors").exists()
    near, left_out = adapter.nearest(backbone, 16)
    assert near.weights.kinds == {"lora"} and left_out < 0.5


def test_a_shape_that_is_no_rotation_is_refused():
    for shape in ((3, 5), (4,), (2, 0)):
        assert Oft(torch.zeros(shape)).misfit()
    assert Oft(torch.zeros(2, 28)).fault() is None and Oft(torch.zeros(2, 28)).block == 8
    assert Oft(torch.full((2, 28), float("nan"))).fault()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rank": 1}, "blocks of 2 inputs"),
        ({"rank": 8, "dropout": 0.1}, "dropout: a rotation"),
        ({"rank": 8, "alpha": 4}, "alpha: a rotation"),
        ({"rank": 8, "init": "eva"}, "a start of A"),
        ({"rank": 8, "rank_pattern": {"to_q": 4}}, "0 leaves a layer out"),
        ({"rank": 8, "init": "pissa"}, "kind=lora"),
    ],
)
def test_what_a_rotation_does_not_have_is_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        validate({"kind": "oft", **settings})


def test_blocks_that_do_not_fit_are_refused_with_those_that_would(put, unet):
    with pytest.raises(SettingsError, match="2, 4, 8, 16"):
        put(unet, targets=("to_q",), kind="oft", rank=7, alpha=None)
    with pytest.raises(SettingsError, match="none of the targets is one"):
        put(unet, targets=("conv1",), kind="oft", rank=8, alpha=None)


def test_a_run_is_proved_by_peft_and_resumed_to_the_same_bytes(pictures, tiny_base, tmp_path):
    import adapt

    settings = adapt.TrainSettings(
        kind="oft", rank=8, steps=4, batch_size=2, validation=0.25, validate_every=2, save_every=2, learning_rate=1e-2,
        targets=("to_q", "conv1"), sampling_steps=1, previews=("a",), anchor_above=0.7, validation_times=2, guidance_scale=1.0,
    )  # fmt: skip
    first = adapt.train(pictures, output=tmp_path / "a" / "run", base=str(tiny_base), settings=settings)
    assert first.proof.reader == "peft" and first.proof.difference <= 1e-5 < first.proof.effect
    assert first.adapter.facts.loads_in == ("adapt", "peft")
    cut = shutil.copytree(first.folder, tmp_path / "b" / "run")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "step-000004")
    (cut / "snapshots" / "step-000004.safetensors").unlink()
    adapt.train(pictures, output=cut, existing="resume")
    for name in ("adapter/peft/adapter_model.safetensors", "snapshots/step-000004.safetensors"):
        assert (cut / name).read_bytes() == (first.folder / name).read_bytes()
