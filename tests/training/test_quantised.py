"""A frozen base in few bits: who it is, what is learned on it, and that the proof is made on the whole base."""

import shutil
from importlib.util import find_spec

import pytest
import torch
from tiny_runs import RESULTS, content
from torch import nn

from adapt.api import quantised
from adapt.api.quantised import WAYS, Way, chosen, quantise
from adapt.backbones import Backbone
from adapt.config import validate
from adapt.errors import SettingsError

SHORT = {"steps": 4, "validate_every": 2, "save_every": 2, "targets": ("to_q", "conv1", "ff.net.2")}


class Rounded(nn.Linear):
    """Eight bits, one scale a row: a stand-in with the shapes that packages give their weights."""

    def __init__(self, layer):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.scale = nn.Buffer(layer.weight.abs().amax(1, keepdim=True) / 127)
        packed = (layer.weight / self.scale).round().to(torch.int8).flatten()[:, None]
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, x):
        weight = self.weight.view(self.out_features, self.in_features).to(x.dtype) * self.scale
        return nn.functional.linear(x, weight, self.bias)


def _round(denoiser, names):
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(denoiser.get_submodule(parent), child, Rounded(denoiser.get_submodule(name)))


@pytest.fixture
def rounding(monkeypatch):
    """`quantize=int8-quanto` is the stand-in; the tiny base's layers are large enough for it."""
    monkeypatch.setattr(quantised, "WAYS", {**WAYS, "int8-quanto": Way("torch", "torch", _round)})
    monkeypatch.setattr(quantised, "FEWEST", 64)


def test_it_is_still_the_same_base_with_the_same_content(rounding, tiny_base):
    plain, packed = Backbone.load(str(tiny_base)), Backbone.load(str(tiny_base))
    names = list(chosen(packed.denoiser))
    quantise(packed, "int8-quanto")
    layers = [packed.denoiser.get_submodule(name) for name in names]
    assert len(layers) > 9 and all(type(layer) is Rounded for layer in layers)
    assert packed.fingerprint() == plain.fingerprint() and packed.quantised == "int8-quanto"
    assert [packed.content_key(c) for c in packed.modules] == [plain.content_key(c) for c in plain.modules]
    assert packed.dtype == torch.float32
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    with torch.no_grad():
        near, far = (b.predict(x, t, b.condition(["a"])) for b in (packed, plain))
    assert 0 < (near - far).abs().max() < 0.05 * far.abs().max()


def test_a_run_on_it_is_proved_on_the_whole_base_and_resumed_to_the_same_bytes(rounding, train, tmp_path):
    result = train(tmp_path / "a" / "run", **SHORT, quantize="int8-quanto", gradient_checkpointing=True)
    assert result.proof.difference <= 1e-5 < result.proof.effect
    assert result.adapter.facts.training["trained_on"] == "int8-quanto"
    cut = shutil.copytree(result.folder, tmp_path / "b" / "run")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "step-000004")
    (cut / "snapshots" / "step-000004.safetensors").unlink()
    train(cut, existing="resume")
    assert content(cut, *RESULTS) == content(result.folder, *RESULTS)


@pytest.mark.parametrize("way", WAYS)
def test_the_real_packages(way, make_tiny, train, tmp_path):
    """Where the package is: it takes layers, the run is proved. Where it is not: said, with what to install."""
    package = WAYS[way].package.partition(".")[0]
    if find_spec(package) is None:
        with pytest.raises(SettingsError, match=f"pip install {WAYS[way].install}"):
            train(tmp_path / "run", **SHORT, quantize=way)
        assert not (tmp_path / "run" / "run.json").exists()
        return
    if not WAYS[way].on_cpu:
        with pytest.raises(SettingsError, match="needs a GPU"):
            train(tmp_path / "run", **SHORT, quantize=way)
        return
    make_tiny(width=64, text_width=64).save_pretrained(tmp_path / "base")
    result = train(tmp_path / "run", base=tmp_path / "base", **{**SHORT, "steps": 2}, quantize=way)
    assert result.proof.difference <= 1e-5 < result.proof.effect


def test_what_cannot_be_done_here_is_one_line(monkeypatch, train, tmp_path):
    def fails(denoiser, names):
        raise RuntimeError("no kernel for this device\nand a long story")

    monkeypatch.setattr(quantised, "WAYS", {**WAYS, "int8-bnb": Way("torch", "torch", fails)})
    monkeypatch.setattr(quantised, "FEWEST", 64)
    with pytest.raises(SettingsError, match="int8-bnb does not work here: no kernel for this device"):
        train(tmp_path / "run", **SHORT, quantize="int8-bnb")
    monkeypatch.setattr(quantised, "FEWEST", 10**9)
    with pytest.raises(SettingsError, match="no large linear layers"):
        train(tmp_path / "run", **SHORT, quantize="int8-bnb")


@pytest.mark.parametrize("other", [{"kind": "dora"}, {"kind": "lokr"}, {"init": "pissa"}, {"compile": True}])
def test_what_needs_the_bases_weights_is_refused(other):
    with pytest.raises(SettingsError, match="quantize"):
        validate({"quantize": "nf4-bnb", **other})
