"""AudioLDM 2: its spectrograms against their definition, its null beside a prompt, what it refuses, its doors."""

import json
import math

import numpy as np
import pytest
import soundfile
import torch
from tiny_families import built

from adapt.backbones.audioldm2 import AudioLDM2
from adapt.backbones.mel import Mel, filters
from adapt.cli.main import main
from adapt.errors import BackboneError


def slaney(hertz):
    """15 steps per 1000 Hz, from there on 27 for each factor of 6.4 (Auditory Toolbox, 1998)."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def test_bands_are_triangles_of_equal_area_on_slaneys_scale():
    found, edges = filters(Mel()).double().numpy(), np.linspace(0, slaney(8000), 66)
    places = np.array([e * 200 / 3 if e < 15 else 1000 * 6.4 ** ((e - 15) / 27) for e in edges])
    for hertz_bin in range(0, 513, 7):
        hertz = hertz_bin * 16000 / 1024
        for band in range(0, 64, 5):
            low, middle, high = places[band : band + 3]
            share = max(0.0, min((hertz - low) / (middle - low), (high - hertz) / (high - middle)))
            assert found[hertz_bin, band] == pytest.approx(share * 2 / (high - low), abs=1e-6)


def test_a_frame_is_the_logarithm_of_what_a_window_of_samples_holds_in_each_band():
    """By the discrete Fourier transform's sum, of one frame in the middle and of one at the mirrored start."""
    mel, samples = Mel(), torch.rand(1, 3200, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = mel(samples)
    assert found.shape == (1, 20, 64)
    heard = samples[0].double().numpy() - samples.double().mean().item()
    heard = heard / np.abs(heard).max() / 2
    mirrored = np.concatenate([heard[432:0:-1], heard, heard[-2:-434:-1]])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    angles = np.exp(-2j * np.pi * np.outer(np.arange(513), np.arange(1024)) / 1024)
    for frame in (0, 9, 19):
        loud = np.abs(angles @ (mirrored[frame * 160 : frame * 160 + 1024] * window))
        expected = np.log(np.maximum(loud @ filters(mel).double().numpy(), 1e-5))
        np.testing.assert_allclose(found[0, frame].numpy(), expected, atol=2e-4)


def test_loudness_and_silence():
    mel, samples = Mel(), torch.rand(2, 3200, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(mel(samples * 0.01 + 0.1), mel(samples), atol=1e-3, rtol=0)
    assert torch.equal(mel(torch.zeros(1, 3200)), torch.full((1, 20, 64), math.log(1e-5)))


def test_a_tone_is_loudest_in_its_band():
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)[None]
    loudest = int(Mel()(tone)[0, 50].argmax())
    assert loudest == round(slaney(1000) / slaney(8000) * 65) - 1


def test_the_null_is_as_long_as_the_prompt(backbones):
    """Its language model counts padding: beside a longer prompt, the null is another."""
    backbone = backbones("audioldm2")
    condition = backbone.condition(["a cat", "a"])
    both = backbone.null_beside(condition).parts["text"]
    alone = backbone.null_beside(backbone.condition(["a"])).parts["text"]
    assert both["mask"].sum(1).tolist() == [1, 1]
    torch.testing.assert_close(both["generated"][1:], alone["generated"], atol=1e-5, rtol=0)
    assert (both["generated"][0] - both["generated"][1]).abs().max() > 1e-4


def test_a_caption_is_encoded_alone_as_in_a_batch(backbones):
    backbone = backbones("audioldm2")
    both, alone = backbone.condition(["a cat", "a"]).parts["text"], backbone.condition(["a"]).parts["text"]
    assert torch.equal(both["generated"][1:], alone["generated"])


def test_what_is_refused():
    pipeline = built("audioldm2")
    assert AudioLDM2(pipeline, "tiny").untrainable is None
    pipeline.vocoder.config.sampling_rate = 48000
    assert "guess" in AudioLDM2(pipeline, "tiny").untrainable.reason
    pipeline.text_encoder_2 = type("VitsModel", (torch.nn.Module,), {})()
    with pytest.raises(BackboneError, match="speaks"):
        AudioLDM2(pipeline, "tiny").condition(["a"])


@pytest.mark.slow
def test_it_learns_sounds_and_makes_them(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, numbers = str(folders("audioldm2")), np.random.default_rng(0)
    (tmp_path / "sounds").mkdir()
    for k in range(4):
        soundfile.write(tmp_path / "sounds" / f"{k}.wav", numbers.uniform(-0.5, 0.5, 12000 + 500 * k), 16000)
        (tmp_path / "sounds" / f"{k}.txt").write_text(f"noise {k}")
    words = ["steps=2", "batch_size=2", "rank=2", "validation=0.25", "validation_times=1", "sampling_steps=2"]
    assert main(["train", "sounds", "--base", base, "--output", "runs/a", *words, "save_every=2"]) == 0
    facts = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())
    assert facts["base"]["family"] == "audioldm2" and facts["proof"]["reader"] == "peft"
    asked = [
        "generate",
        "--prompt",
        "noise 1",
        "--steps",
        "2",
        "--base",
        base,
        "--device",
        "cpu",
        "--adapter",
        "runs/a",
    ]
    assert main([*asked, "--seconds", "0.5", "--output", "a.wav"]) == 0
    with soundfile.SoundFile("a.wav") as file:
        assert (file.samplerate, file.channels, len(file)) == (16000, 1, 8000)
