"""Distilled bases are taught beside a frozen assistant, which undoes the distillation: nothing of it is saved or drawn."""

import json

import pytest
import torch
from safetensors.torch import save_file
from test_contract import loss_of, noise, settled, times
from test_doors import SETTINGS, refused
from tiny_families import flux, flux2_klein

from adapt.adapter import Adapter
from adapt.api.assistant import put_on
from adapt.api.network import put_in
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.config import TrainSettings
from adapt.errors import AdapterError
from adapt.formats import LoraWeights, Pair
from adapt.formats.loha import LoHa
from adapt.lora.assistant import Assistant


@pytest.fixture(scope="module")
def schnell(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    torch.manual_seed(0)
    flux(guidance=False).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def backbone(schnell):
    return Backbone.load(schnell)


def pairs(backbone, component="transformer", rank=3):
    """A LoRA that does something, in every attention layer."""
    numbers = torch.Generator().manual_seed(3)
    found = {}
    for name, layer in backbone.modules[component].named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "q_proj")):
            down = torch.randn(rank, layer.in_features, generator=numbers) * 0.3
            found[name] = Pair(down, torch.randn(layer.out_features, rank, generator=numbers) * 0.3, 2.0 * rank)
    return found


@pytest.fixture(scope="module")
def path(backbone, tmp_path_factory):
    file = tmp_path_factory.mktemp("assistant") / "undo.safetensors"
    Adapter(LoraWeights({"transformer": pairs(backbone)})).export(file, "diffusers")
    return str(file)


@torch.no_grad()
def test_it_does_what_the_adapter_does_at_scale_1_and_leaves_no_trace(backbone, path):
    x_t, t, condition = noise(backbone, 2), times(backbone, 2), backbone.condition(["a", "b"])
    before = {name: p.clone() for name, p in backbone.denoiser.named_parameters()}
    plain = backbone.predict(x_t, t, condition)
    with Adapter.load(path).apply(backbone, 1.0):
        expected = backbone.predict(x_t, t, condition)
    assistant = put_on(TrainSettings(assistant=path), backbone)
    torch.testing.assert_close(backbone.predict(x_t, t, condition), expected, atol=1e-5, rtol=1e-4)
    assert (expected - plain).abs().max() > 1e-3
    assert assistant.around(lambda step: backbone.predict(x_t, t, condition))(0).equal(plain)  # previews: not it
    assistant.remove()
    assert torch.equal(backbone.predict(x_t, t, condition), plain)
    assert all(torch.equal(before[name], p) for name, p in backbone.denoiser.named_parameters())


def test_a_run_learns_beside_it_and_saves_its_own_layers_alone(backbone, path):
    condition, changes = backbone.condition(["a", "b"]), {"targets": ("attn.to_q", "attn.to_out.0")}

    def gradients(**more):
        network = put_in(backbone, settled(backbone, **changes, **more))
        try:
            loss = loss_of(backbone, condition)
            loss.backward()
            with network.bare():  # what the base says to those who ask it: with the assistant, as the run begins
                assert float(loss_of(backbone, condition).detach()) == pytest.approx(float(loss.detach()), abs=1e-6)
            return {n: p.grad.clone() for n, p in network.parameters.items() if p.grad is not None}, network.layers()
        finally:
            network.remove()

    alone, _ = gradients()
    beside, layers = gradients(assistant=path)
    assert alone.keys() == beside.keys()
    assert any((alone[name] - beside[name]).abs().max() > 1e-5 for name in alone)
    assert all(name.endswith(changes["targets"]) for name in layers["transformer"])
    assert not any(module._forward_hooks for module in backbone.denoiser.modules())


def test_a_convolution_has_a_branch_too():
    torch.manual_seed(0)
    network = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(4, 6, 3, stride=2, padding=1)})
    pair, x = Pair(torch.randn(2, 4, 3, 3), torch.randn(6, 2, 1, 1), 3.0), torch.randn(2, 4, 8, 8)
    plain = network.conv(x)
    assistant = Assistant({"unet": network}, {"unet.conv": pair}, torch.float32, torch.device("cpu"))
    found = network.conv(x)
    assistant.remove()
    assert torch.equal(network.conv(x), plain)
    with torch.no_grad():
        network.conv.weight += pair.delta()
    torch.testing.assert_close(found, network.conv(x), atol=1e-4, rtol=1e-4)


def test_without_one_it_is_refused_and_told_what_to_give(schnell, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(["train", str(pictures), "--base", schnell, *SETTINGS], capsys, "cannot be trained", "assistant=PATH")
    assert main(["bases", schnell]) == 0
    assert "assistant=PATH" in capsys.readouterr().out


def test_wrong_ones_are_refused(backbone, schnell, path, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["train", str(pictures), "--base", schnell, *SETTINGS]
    Adapter(LoraWeights({"transformer": {"no.such_layer": Pair(torch.ones(2, 4), torch.ones(4, 2), 2.0)}})).export(
        tmp_path / "other.safetensors", "diffusers"
    )
    Adapter(LoraWeights({"text_encoder": pairs(backbone, "text_encoder")})).export(
        tmp_path / "te.safetensors", "diffusers"
    )
    refused([*asked, "assistant=missing.safetensors"], capsys, "assistant: no such adapter")
    refused([*asked, "assistant=other.safetensors"], capsys, "made for another base", "no.such_layer")
    refused([*asked, "assistant=te.safetensors"], capsys, "assistant changes what the denoiser is told", "text_encoder")
    refused(
        [*asked, f"assistant={path}", "grow_from=a", "classes=true"], capsys, "assistant does not go with grow_from"
    )
    name, pair = next(iter(pairs(backbone).items()))
    other = LoHa(pair.up, pair.down, pair.up, pair.down, 2.0)
    with pytest.raises(AdapterError, match="an assistant is a LoRA"):
        Assistant(backbone.modules, {f"transformer.{name}": other}, torch.float32, torch.device("cpu"))


def test_schnell_is_taught_with_one(schnell, path, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["train", str(pictures), "--base", schnell, "--output", "runs/a", f"assistant={path}"]
    asked += [setting for setting in SETTINGS if not setting.startswith("sampling_steps")]
    assert main([*asked, "--dry-run"]) == 0
    assert "at work while it is taught, left out of what is saved" in capsys.readouterr().out
    assert main(asked) == 0
    assert "with the assistant" in capsys.readouterr().err
    facts = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())
    assert facts["recommended"]["steps"] == 4 and facts["proof"]["effect"] > 0
    told = facts["training"]["assistant"]
    assert told == f"a local file, sha256 {Adapter.digest_of(path)[:10]}"
    assert f"| assistant | {told} |" in (tmp_path / "runs/a/adapter/README.md").read_text()
    assert {layer.rank for layer in Adapter.load("runs/a").layers().values()} == {2}  # the assistant's are of rank 3
    drawn = ["generate", "--prompt", "a", "--base", schnell, "--device", "cpu", "--adapter", "runs/a"]
    assert main([*drawn, "--output", "a.png"]) == 0
    changed = tmp_path / "changed.safetensors"
    Adapter(LoraWeights({"transformer": pairs(Backbone.load(schnell), rank=1)})).export(changed, "diffusers")
    refused([*asked[:6], "--resume", f"assistant={changed}"], capsys, "init_from_digest")


@pytest.mark.slow
def test_a_distilled_klein_is_taught_beside_one(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    flux2_klein(distilled=True).save_pretrained("klein")
    Adapter(LoraWeights({"transformer": pairs(Backbone.load("klein"))})).export(
        tmp_path / "undo.safetensors", "diffusers"
    )
    asked = ["train", str(pictures), "--base", "klein", "--output", "runs/a", *SETTINGS, "assistant=undo.safetensors"]
    assert main([word for word in asked if not word.startswith("sampling_steps")]) == 0
    told = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())["recommended"]
    assert (told["steps"], told["guidance_scale"]) == (4, 1.0)
    assert {layer.rank for layer in Adapter.load("runs/a").layers().values()} == {2}


def test_adapters_of_z_image_in_comfyuis_names_are_a_transformers(tmp_path):
    """As `ostris/zimage_turbo_training_adapter` is named."""
    name = "diffusion_model.layers.0.attention.to_q"
    save_file(
        {f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)},
        tmp_path / "a.safetensors",
    )
    assert list(Adapter.load(tmp_path / "a.safetensors").layers()) == ["transformer.layers.0.attention.to_q"]
