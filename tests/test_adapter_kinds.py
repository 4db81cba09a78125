"""Each kind as an adapter: saved, loaded, drawn with, proved by the library that takes it, and refused where none does."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from adapt import files
from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.config.network import NetworkSettings
from adapt.errors import AdapterError
from adapt.evaluation.proof import prove
from adapt.formats import FILE_NAME, LoraWeights
from adapt.formats.diffusers_lora import portable
from adapt.lora import install

TARGETS = ("attn2.to_k", "conv_in", "proj_in", "mid_block.resnets.0.conv1", "mid_block.resnets.0.time_emb_proj")
KINDS = {
    "lora": {"rslora": True},
    "dora": {},
    "loha": {},
    "lokr": {},
    "lokr, whole": {"kind": "lokr", "rank": 16, "alpha": 4.0},
}
X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor([10, 800])


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return Backbone.load(str(tiny_base))


def make(backbone, name, strength=0.2):
    settings = {"kind": name, "rank": 2, "alpha": 3.0, **KINDS[name]}
    injection = install(backbone.denoiser, NetworkSettings(**settings), TARGETS, 0)
    dice = torch.Generator().manual_seed(1)
    values = {
        n: (p + strength * torch.randn(p.shape, generator=dice)).detach() for n, p in injection.parameters.items()
    }
    layers = injection.layers(values)
    injection.remove()
    facts = Facts(
        base={"reference": None, "family": backbone.family, "fingerprint": backbone.fingerprint()},
        lora={"unet": portable(injection.config.to_dict())},
    )
    return Adapter(LoraWeights({"unet": layers}), facts, "style")


@pytest.fixture(scope="module", params=list(KINDS))
def adapter(request, backbone):
    return make(backbone, request.param)


@torch.no_grad()
def predict(backbone):
    return backbone.predict(X, T, backbone.condition(["a red fox", "a tulip"]))


def largest(a, b):
    return float((a - b).abs().max())


# --------------------------------------------------------------------------------------------------------------- on disk
def test_saved_and_loaded_is_the_same_and_equal_adapters_are_equal_bytes(tmp_path, adapter):
    saved = adapter.save(tmp_path / "a")
    loaded = Adapter.load(tmp_path / "a")
    assert loaded.weights.equals(adapter.weights) and loaded.facts == adapter.facts
    assert loaded.digest == saved.digest != ""
    loaded.save(tmp_path / "b")
    first, again = ({p.relative_to(tmp_path / f): p.read_bytes() for p in (tmp_path / f).rglob("*.*")} for f in "ab")
    assert first == again
    assert (tmp_path / "a" / FILE_NAME).exists() == (adapter.loader == "diffusers")


def test_no_path_of_this_machine_is_written(tmp_path, backbone, adapter):
    adapter.save(tmp_path / "style")
    for path in (p for p in (tmp_path / "style").rglob("*") if p.is_file()):
        for private in (str(tmp_path), backbone.reference, str(Path.home()) + "/"):
            assert private.encode() not in path.read_bytes(), (path.name, private)


# ------------------------------------------------------------------------------------------------------------- the proof
def test_a_library_takes_every_layer_and_predicts_the_same(backbone, adapter):
    bits = {name: tensor.clone() for name, tensor in backbone.denoiser.state_dict().items()}
    proof = prove(adapter, backbone, "a red fox")
    assert proof.layers == len(adapter.weights) > 9
    assert proof.reader == ("peft" if adapter.weights.kinds & {"loha", "lokr"} else "diffusers")
    assert proof.difference <= 2e-5 < 0.01 < proof.effect
    assert all(torch.equal(tensor, bits[name]) for name, tensor in backbone.denoiser.state_dict().items())


def altered(monkeypatch, alter):
    save = Adapter.save

    def wrong(self, folder):
        saved = save(self, folder)
        alter(Path(folder))
        return saved

    monkeypatch.setattr(Adapter, "save", wrong)


def _alpha(folder):
    path = folder / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "alpha": 6.0}))


def _tensors(change):
    def alter(folder):
        from safetensors.torch import load_file

        path = folder / "peft" / "adapter_model.safetensors"
        path.write_bytes(files.safetensors_bytes(change(load_file(path)), {}))

    return alter


def _negated(tensors):
    name = sorted(tensors)[0]
    return {**tensors, name: -tensors[name]}


def _without_a_layer(folder):
    path = folder / "peft" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "target_modules": config["target_modules"][1:]}))


ALTERATIONS = {
    "another alpha": (_alpha, "another strength"),
    "another sign": (_tensors(_negated), "draws something else"),
    "a layer that is not asked for": (_without_a_layer, "peft took"),
    "tensors of another shape": (_tensors(lambda t: {k: v[:-1] for k, v in t.items()}), "does not take"),
}


@pytest.mark.parametrize("what", ALTERATIONS)
@pytest.mark.parametrize("kind", ["loha", "lokr"])
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_altered_folder_of_pefts_fails(backbone, monkeypatch, kind, what):
    adapter, (alter, message) = make(backbone, kind), ALTERATIONS[what]
    altered(monkeypatch, alter)
    with pytest.raises(AdapterError, match=message):
        prove(adapter, backbone)


def test_a_dora_without_its_lengths_fails(backbone, monkeypatch):
    def forget(folder):
        from safetensors import safe_open

        path = folder / FILE_NAME
        with safe_open(path, "pt") as file:
            kept = {k: file.get_tensor(k) for k in file.keys() if "magnitude" not in k}  # noqa: SIM118
            metadata = file.metadata()
        path.write_bytes(files.safetensors_bytes(kept, metadata))

    adapter = make(backbone, "dora")
    altered(monkeypatch, forget)
    with pytest.raises(AdapterError, match="diffusers found no values"):
        prove(adapter, backbone)


@pytest.mark.parametrize("scale", [0.5, 0.0])
def test_diffusers_takes_dora_at_other_scales_as_we_do(tmp_path, backbone, tiny_base, scale):
    """m (W + s ΔW) / ‖W + s ΔW‖: also at 0, where it is not quite the base."""
    from diffusers import StableDiffusionPipeline

    adapter = make(backbone, "dora").save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipeline.load_lora_weights(tmp_path, weight_name=FILE_NAME, adapter_name="style")
    pipeline.set_adapters("style", scale)
    theirs, plain = predict(type(backbone)(pipeline, "theirs")), predict(backbone)
    with adapter.apply(backbone, scale):
        assert largest(predict(backbone), theirs) <= 2e-5 < 0.01 < largest(plain, theirs)


def test_the_cards_lines_for_peft_put_the_layers_into_the_pipeline(tmp_path, backbone, tiny_base):
    from diffusers import StableDiffusionPipeline

    adapter = make(backbone, "loha")
    adapter.save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    PeftModel.from_pretrained(pipeline.unet, f"{tmp_path}/peft")
    with adapter.apply(backbone):
        assert largest(predict(backbone), predict(type(backbone)(pipeline, "theirs"))) <= 1e-5


# ------------------------------------------------------------------------------------------------------------- exporting
def test_kohyas_file_does_the_same(tmp_path, backbone, adapter):
    adapter.export(tmp_path / "a.safetensors", "kohya", text_width=768)
    with adapter.apply(backbone):
        ours = predict(backbone)
    with Adapter.load(tmp_path / "a.safetensors").apply(backbone):
        assert largest(predict(backbone), ours) <= 1e-5


def test_what_diffusers_file_cannot_hold_is_refused_and_no_file_is_left(tmp_path, adapter):
    if adapter.loader == "diffusers":
        adapter.export(tmp_path / "a.safetensors", "diffusers")
        assert Adapter.load(tmp_path / "a.safetensors").weights.equals(adapter.weights)
        return
    with pytest.raises(AdapterError, match="cannot hold") as refused:
        adapter.export(tmp_path / "a.safetensors", "diffusers")
    assert "--nearest" in refused.value.next and not list(tmp_path.iterdir())


def test_the_nearest_lora_of_full_rank_does_the_same_and_of_rank_1_says_what_it_leaves_out(backbone, adapter):
    with adapter.apply(backbone):
        ours = predict(backbone)
    whole, left_out = adapter.nearest(backbone, 1000)
    assert whole.weights.kinds == {"lora"} and left_out < 1e-5
    with whole.apply(backbone):
        assert largest(predict(backbone), ours) <= 1e-4
    small, left_out = adapter.nearest(backbone, 1)
    lost, total = 0.0, 0.0
    for name, layer in adapter.layers().items():
        weight = backbone.modules["unet"].get_submodule(name.removeprefix("unet.")).weight
        delta = (layer.merged(weight, 1.0) - weight).detach()
        lost += float((delta - small.layers()[name].delta()).square().sum())
        total += float(delta.square().sum())
    assert left_out == pytest.approx((lost / total) ** 0.5, rel=1e-3) and left_out > 0.1
    assert prove(small, backbone).difference <= 2e-5


def test_the_command_exports_the_nearest_only_when_asked(tmp_path, backbone, tiny_base, capsys):
    make(backbone, "loha").save(tmp_path / "style")
    words = ["export", str(tmp_path / "style"), "--format", "diffusers", "--output", str(tmp_path / "a.safetensors")]
    # of rank 2: a LoRA of rank 4 is exactly that
    assert main(words) == 2 and "--nearest" in capsys.readouterr().err
    assert main([*words, "--nearest", "3"]) == 2 and "--base" in capsys.readouterr().err
    assert main([*words, "--nearest", "0", "--base", str(tiny_base)]) == 2
    capsys.readouterr()
    assert main([*words, "--nearest", "3", "--base", str(tiny_base), "--json"]) == 0
    told = capsys.readouterr()
    left_out = json.loads(told.out)["left_out"]
    assert 0 < left_out < 1 and f"{100 * left_out:.2g} %" in told.err
    assert {layer.rank for layer in Adapter.load(tmp_path / "a.safetensors").layers().values()} <= {1, 2, 3}


def test_another_base_is_refused_and_untouched(make_tiny, adapter):
    from adapt.backbones import StableDiffusion

    wide = StableDiffusion(make_tiny(width=24), "wide")
    before = {name: tensor.clone() for name, tensor in wide.denoiser.state_dict().items()}
    for wrong in (adapter, Adapter(adapter.weights)):
        with pytest.raises(AdapterError, match="another base"):
            wrong.apply(wide)
        assert all(torch.equal(tensor, before[name]) for name, tensor in wide.denoiser.state_dict().items())
