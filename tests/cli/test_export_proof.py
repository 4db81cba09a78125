"""`adapt export` loads what it wrote into a fresh pipeline of the base, and says what it saw."""

import json

import pytest
import torch

from adapt.adapter import Adapter, Facts
from adapt.cli.main import main
from adapt.formats import LoHa, LoraWeights, Pair, kohya

NAMES = (
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
)


def halves(backbone, count):
    dice = torch.Generator().manual_seed(3)
    for name in NAMES:
        out, inside = backbone.denoiser.get_submodule(name).weight.shape
        shapes = [(2, inside), (out, 2)] * count
        yield name, [torch.randn(*shape, generator=dice) * 0.3 for shape in shapes]


def save(backbone, folder, layers, reference=None):
    base = {"reference": reference, "family": backbone.family, "fingerprint": backbone.fingerprint()}
    Adapter(LoraWeights({"unet": layers}), Facts(base=base, trigger="zxc"), "style").save(folder)


@pytest.fixture
def style(tmp_path, backbone, monkeypatch):
    save(backbone, tmp_path / "style", {name: Pair(*each, 3.0) for name, each in halves(backbone, 1)})
    monkeypatch.chdir(tmp_path)
    return "style"


def run(capsys, *words, code=0):
    capsys.readouterr()
    assert main(["export", *map(str, words)]) == code
    return capsys.readouterr()


@pytest.mark.parametrize(("format", "itself"), [("kohya", True), ("diffusers", True), ("comfyui", False)])
def test_a_fresh_pipeline_of_the_base_takes_every_layer(style, wide, capsys, format, itself):
    told = run(capsys, style, "--format", format, "--base", wide, "--output", "a.safetensors", "--json")
    proof = json.loads(told.out)["proof"]
    assert (proof["layers"], proof["reader"]) == (2, "diffusers") and proof["difference"] < 1e-4 < proof["effect"]
    assert "diffusers takes all 2 layers" in told.err and ("in its own names" in told.err) is not itself


def test_a_kind_that_diffusers_does_not_take_is_proved_by_peft(tmp_path, backbone, wide, capsys, monkeypatch):
    layers = {n: LoHa(up, down, other, below, 2.0) for n, (down, up, below, other) in halves(backbone, 2)}
    save(backbone, tmp_path / "loha", layers)
    monkeypatch.chdir(tmp_path)
    told = run(capsys, "loha", "--base", wide, "--output", "a.safetensors")
    assert "peft takes all 2 layers" in told.err


def test_without_its_base_it_says_how_to_prove_it(style, backbone, capsys):
    told = run(capsys, style, "--output", "a.safetensors", "--json")
    assert json.loads(told.out)["proof"] is None
    assert "does not say its base; adapt verify a.safetensors --base BASE" in told.err
    layers = dict(Adapter.load(style).weights.modules["unet"])
    save(backbone, "named", layers, reference="nobody/nothing")
    assert "nobody/nothing is not on this machine" in run(capsys, "named", "--output", "b.safetensors").err
    save(backbone, "icons-like", layers, reference="icons")
    assert "icons here is another" in run(capsys, "icons-like", "--output", "c.safetensors").err


def test_another_base_is_refused_before_anything_is_written(style, tiny_base, capsys, tmp_path):
    assert "another base" in run(capsys, style, "--base", tiny_base, "--output", "a.safetensors", code=2).err
    assert not (tmp_path / "a.safetensors").exists()


def test_a_file_that_diffusers_reads_differently_is_set_aside_and_named(style, wide, capsys, monkeypatch, tmp_path):
    """Both our writer and our reader with the same lie: only somebody else notices."""
    from adapt.formats import keys

    said, layer_from = kohya.said_inside, keys.layer_from
    monkeypatch.setattr(kohya, "said_inside", lambda layer: _twice(said(layer)))
    monkeypatch.setattr("adapt.formats.placing.layer_from", lambda *given: _twice(layer_from(*given), 0.5))
    words = (style, "--base", wide, "--output", "a.safetensors")
    told = run(capsys, *words, code=2)
    assert "does not agree" in told.err and "draws something else" in told.err and told.out == ""
    assert {path.name for path in tmp_path.glob("a.*")} == {"a.safetensors.refused", "a.json.refused"}
    assert "a.safetensors.refused" in told.err
    assert run(capsys, *words, "--no-proof").out == "a.safetensors\n"


def _twice(layer, factor=2.0):
    from dataclasses import replace

    return replace(layer, alpha=layer.alpha * factor)
