"""Stable Diffusion XL between EDM's preconditioners (Playground 2.5): drawn as its pipeline draws, and taught."""

import json

import pytest
import torch
from test_contract import loss_of, noise, ours, settled, theirs
from test_doors import SETTINGS, refused
from tiny_families import CASES, stable_diffusion_xl

from adapt.api.network import put_in
from adapt.backbones import Backbone
from adapt.cli.main import main

CASE = CASES["stable-diffusion-xl"]
NAMES = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Scheduler → the folder of a base with it; the autoencoder tells statistics of channels."""
    import diffusers

    torch.manual_seed(0)
    pipeline, made = stable_diffusion_xl(), {}
    pipeline.vae.register_to_config(
        latents_mean=[-1.6, 1.9, -1.4, 2.5], latents_std=[8.5, 5.9, 6.5, 5.2], scaling_factor=0.5
    )
    for name in NAMES:
        pipeline.register_modules(scheduler=getattr(diffusers, name)())
        made[name] = tmp_path_factory.mktemp(name)
        pipeline.save_pretrained(made[name])
    return made


@pytest.fixture(scope="module")
def backbones(folders):
    made = {name: Backbone.load(str(folder)) for name, folder in folders.items()}
    for backbone in made.values():
        backbone.pipeline.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_loop_equals_the_pipeline(backbones, name, guided):
    backbone = backbones[name]
    expected, found = theirs(backbone, CASE, guided), ours(backbone, CASE, guided)
    # latents begin at a deviation of 80
    assert found.shape == expected.shape and (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_latents_are_normalised_channel_by_channel(backbones):
    """As its pipeline takes it back before it decodes."""
    backbone, pixels = backbones[NAMES[0]], torch.rand(1, 3, 32, 32) * 2 - 1
    mean, std = backbone.encode_media(pixels)
    vae, given = backbone.pipeline.vae, []
    raw = vae.encode(pixels).latent_dist
    own_mean, own_std = (torch.tensor(vae.config[name]).view(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
    torch.testing.assert_close(mean * own_std / 0.5 + own_mean, raw.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(std * own_std / 0.5, raw.std, atol=1e-5, rtol=1e-5)
    decode, vae.decode = vae.decode, lambda z, **more: given.append(z) or decode(z, **more)
    try:
        backbone.decode(mean)
    finally:
        del vae.decode
    torch.testing.assert_close(given[0], raw.mean, atol=1e-5, rtol=1e-5)


def test_lora_learns(backbones):
    backbone = backbones[NAMES[0]]
    network = put_in(backbone, settled(backbone))
    try:
        optimizer, losses = torch.optim.Adam(network.parameters.values(), 1e-2), []
        for _ in range(8):
            optimizer.zero_grad()
            loss = loss_of(backbone, backbone.condition(["a", "b"]))
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    finally:
        network.remove()
    assert losses[-1] < losses[0] and noise(backbone, 1).shape[1] == 4


@pytest.mark.parametrize("name", [NAMES[0], pytest.param(NAMES[1], marks=pytest.mark.slow)])
def test_it_is_taught_and_drawn_with(folders, name, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = str(folders[name])
    assert main(["train", str(pictures), "--base", base, "--output", "a", *SETTINGS, "time_sampling=log_normal"]) == 0
    facts = json.loads((tmp_path / "a/adapter/adapter.json").read_text())
    assert facts["objective"] == "edm" and facts["proof"]["effect"] > 0
    words = ["generate", "--prompt", "a fox", "--steps", "2", "--base", base, "--device", "cpu", "--adapter", "a"]
    assert main([*words, "--output", "a.png"]) == 0
    refused([*words, "--scheduler", "euler"], capsys, "its own scheduler alone", name)
