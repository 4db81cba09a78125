"""BOFT and VeRA: by definition, peft's own in numbers and gradients, in files and in runs; refused where they are none."""

import copy
import shutil

import pytest
import torch
from peft import PeftModel, VeraConfig, get_peft_model
from torch import nn

from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.config import validate
from adapt.errors import AdapterError, SettingsError
from adapt.formats import LoraWeights, read, write_lora, write_peft
from adapt.formats.boft import Boft
from adapt.formats.peft_folder import WEIGHTS_NAME
from adapt.formats.vera import Vera
from adapt.lora.boft import PlainBlocks

TARGETS = ("attn2.to_q", "attn1.to_k", "ff.net.2", "conv1")
KINDS = {
    "boft": {"kind": "boft", "rank": 8},
    "boft of 3": {"kind": "boft", "rank": 4, "boft_factors": 3},
    "vera": {"kind": "vera", "rank": 12},
}


@pytest.fixture(params=list(KINDS))
def settings(request):
    return {"targets": TARGETS, "alpha": None, **KINDS[request.param]}


def weights_of(injection):
    return LoraWeights({"unet": injection.layers()})


# ----------------------------------------------------------------------------------------------------------- definitions
def test_boft_turns_inputs_and_sets_lengths(put, unet, teach):
    for name, layer in teach(put(unet, targets=TARGETS, alpha=None, **KINDS["boft of 3"])).layers().items():
        turns, weight = layer.turns(), torch.randn(*layer.size)
        assert torch.allclose(turns @ turns.mT, torch.eye(4).expand_as(turns), atol=1e-5), name
        longer = layer.merged(weight, 1.0).norm(dim=1, keepdim=True) / weight.norm(dim=1, keepdim=True)
        assert torch.allclose(longer, layer.lengths.abs(), rtol=1e-4)
        assert torch.allclose(layer.merged(weight, 0.0), weight)


def test_a_factor_reaches_twice_as_far_as_the_one_before():
    layer = Boft(torch.randn(3, 8, 4, 4), torch.ones(32, 1))
    for factors, reach in ((1, 4), (2, 8), (3, 16)):
        turned = Boft(layer.rotation[:factors], layer.lengths).merged(torch.eye(32), 1.0)
        blocks = turned.view(32 // reach, reach, 32 // reach, reach).abs().amax((1, 3))
        assert torch.equal(blocks > 0, torch.eye(32 // reach, dtype=torch.bool)) and bool(turned[0, :reach].all())


def test_the_stand_in_for_pefts_extension_has_its_gradient():
    blocks = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    (wide,) = PlainBlocks().forward(blocks)
    grad = torch.randn_like(wide)
    (expected,) = torch.autograd.grad(wide, blocks, grad)
    assert torch.equal(PlainBlocks().backward(grad, blocks)[0], expected) and wide.shape == (2, 12, 12)


def test_vera_by_hand(put, unet, teach):
    layers = teach(put(unet, targets=TARGETS, alpha=None, **KINDS["vera"])).layers()
    assert len({layer.down.data_ptr() for layer in layers.values()}) == 1
    for name, layer in layers.items():
        shape = unet.get_submodule(name).weight.shape
        by_hand = torch.diag(layer.outs) @ layer.up[: shape[0]] @ torch.diag(layer.ranks) @ layer.down[:, : shape[1]]
        assert torch.allclose(layer.delta(shape), by_hand, atol=1e-6) and layer.fits(shape)


# ------------------------------------------------------------------------------------------------------- in a network
def test_it_starts_as_nothing_takes_linear_layers_only_and_goes_without_a_trace(put, unet, plain, predict, settings):
    injection = put(unet, **settings)
    assert {name.rpartition(".")[2] for name in injection.places} == {"to_q", "to_k", "2"}
    assert torch.equal(predict(unet), predict(plain))
    assert {n for n, p in unet.named_parameters() if p.requires_grad} == set(injection.parameters)
    injection.remove()
    assert [(n, type(m)) for n, m in unet.named_modules()] == [(n, type(m)) for n, m in plain.named_modules()]
    assert vars(unet).keys() == vars(plain).keys()
    assert all(torch.equal(t, plain.state_dict()[n]) for n, t in unet.state_dict().items())


def test_merged_saved_and_loaded_by_peft_it_predicts_the_same(put, unet, plain, teach, predict, settings, tmp_path):
    injection = teach(put(unet, **settings), strength=0.3)
    trained, weights = predict(unet), weights_of(injection)
    merged = copy.deepcopy(plain)
    for name, layer in weights.modules["unet"].items():
        weight = merged.get_submodule(name).weight
        weight.data = layer.merged(weight, 1.0)
    assert (predict(merged) - trained).abs().max() <= 2e-5 < 5e-3 < (predict(plain) - trained).abs().max()
    config = {"unet": injection.config.to_dict()}
    write_peft(tmp_path, weights, config)
    write_lora(tmp_path / "snapshot.safetensors", weights, config)
    assert read(tmp_path / WEIGHTS_NAME).equals(weights) and read(tmp_path / "snapshot.safetensors").equals(weights)
    theirs = copy.deepcopy(plain)
    PeftModel.from_pretrained(theirs, str(tmp_path))
    assert (predict(theirs.eval()) - trained).abs().max() <= 1e-5


def test_it_becomes_a_lora_for_other_programs(put, unet, teach, tiny_base, tmp_path, settings):
    backbone = Backbone.load(str(tiny_base))
    adapter = Adapter(weights_of(teach(put(unet, **settings))), Facts(), "it")
    assert adapter.loader == "peft"
    for format in ("kohya", "diffusers"):
        with pytest.raises(AdapterError):
            adapter.export(tmp_path / "x.safetensors", format, text_width=768)
    assert not (tmp_path / "x.safetensors").exists()
    assert all(float(layer.norm()) > 0 for layer in adapter.layers().values())  # what `adapt inspect` shows
    near, left_out = adapter.nearest(backbone, 16)
    assert near.weights.kinds == {"lora"} and left_out < 0.6


def test_of_shared_matrices_a_file_has_one_copy(put, unet, teach, tmp_path):
    from safetensors.torch import load_file

    injection = teach(put(unet, targets=TARGETS, alpha=None, **KINDS["vera"]))
    write_peft(tmp_path, weights_of(injection), {})
    names = load_file(tmp_path / WEIGHTS_NAME).keys()
    assert {n for n in names if "vera_A" in n or "vera_B" in n} == {"base_model.vera_A", "base_model.vera_B"}


@pytest.mark.parametrize("saved", [True, False])
def test_a_vera_of_pefts_own_is_read(tmp_path, saved):
    blocks = nn.ModuleDict({"to_q": nn.Linear(6, 5), "to_k": nn.Linear(4, 7)})
    model = get_peft_model(
        nn.ModuleDict({"down_blocks": blocks}),
        VeraConfig(r=3, target_modules=["to_q", "to_k"], save_projection=saved, init_weights=False),
    )
    model.save_pretrained(tmp_path)
    if not saved:
        with pytest.raises(AdapterError, match="save_projection=True"):
            Adapter.load(tmp_path)
        return
    for name, layer in Adapter.load(tmp_path).weights.modules["unet"].items():
        theirs = model.base_model.model.get_submodule(name).get_delta_weight("default")
        assert theirs.abs().max() > 0 and torch.allclose(layer.delta(theirs.shape), theirs, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- refused
def test_shapes_that_are_none_are_refused():
    one = torch.ones(6, 1)
    for rotation, lengths in ((torch.ones(1, 2, 3, 4), one), (torch.ones(2, 3, 3, 3), one), (torch.ones(3, 2, 4, 4), one),
                              (torch.ones(1, 2, 4, 4), torch.ones(6))):  # fmt: skip
        assert Boft(rotation, lengths).misfit()
    assert Boft(torch.zeros(2, 4, 2, 2), one).fault() is None
    assert Vera(torch.ones(5), torch.ones(3), torch.ones(3, 4), torch.ones(4, 3)).misfit()
    assert Vera(torch.ones(5), torch.ones(3), torch.ones(2, 4), torch.ones(5, 2)).misfit()
    assert Vera(torch.ones(5), torch.ones(3), torch.full((3, 4), float("inf")), torch.ones(5, 3)).fault()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "boft", "rank": 1}, "blocks of 2 inputs"),
        ({"kind": "boft", "rank": 8, "dropout": 0.1}, "dropout: a rotation"),
        ({"kind": "oft", "rank": 8, "boft_factors": 2}, "kind=boft"),
        ({"kind": "vera", "rank": 8, "alpha": 4}, "alpha: two vectors"),
        ({"kind": "vera", "rank_pattern": {"to_q": 4}}, "share"),
        ({"kind": "vera", "init": "eva"}, "a start of A"),
        ({"kind": "vera", "lora_plus_ratio": 16}, "lora_plus_ratio"),
    ],
)
def test_what_they_do_not_have_is_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        validate(settings)


def test_blocks_that_do_not_fit_are_refused_with_those_that_would(put, unet):
    with pytest.raises(SettingsError, match=r"times 4.*allowed: 2, 4\b"):
        put(unet, targets=("to_q",), kind="boft", rank=8, boft_factors=3, alpha=None)
    with pytest.raises(SettingsError, match="none of the targets is one"):
        put(unet, targets=("conv1",), kind="vera", rank=8, alpha=None)


# ---------------------------------------------------------------------------------------------------------------- runs
@pytest.mark.parametrize("name", ["boft of 3", "vera"])
def test_a_run_is_proved_by_peft_and_resumed_to_the_same_bytes(pictures, tiny_base, tmp_path, name):
    import adapt

    more = {"dropout": 0.1, "module_dropout": 0.2} if name == "vera" else {"learning_rate_pattern": {"to_q": 1e-3}}
    settings = adapt.TrainSettings(
        **{"steps": 4, "batch_size": 2, "validation": 0.25, "validate_every": 2, "save_every": 2, "learning_rate": 5e-2,
           "targets": ("to_q", "conv1"), "sampling_steps": 1, "previews": ("a",), "anchor_above": 0.7, "validation_times": 2,
           "guidance_scale": 1.0, **KINDS[name], **more}
    )  # fmt: skip
    first = adapt.train(pictures, output=tmp_path / "a" / "run", base=str(tiny_base), settings=settings)
    assert first.proof.reader == "peft" and first.proof.difference <= 1e-5 < first.proof.effect
    told = "peft" if name == "vera" else "peft with its CUDA extension"
    assert first.adapter.facts.loads_in == ("adapt", told)
    assert "PeftModel.from_pretrained(pipeline.unet" in (first.folder / "adapter" / "README.md").read_text()
    cut = shutil.copytree(first.folder, tmp_path / "b" / "run")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "step-000004")
    (cut / "snapshots" / "step-000004.safetensors").unlink()
    adapt.train(pictures, output=cut, existing="resume")
    for name in ("adapter/peft/adapter_model.safetensors", "snapshots/step-000004.safetensors"):
        assert (cut / name).read_bytes() == (first.folder / name).read_bytes()
