"""The same doors for bases that are told classes or nothing, and for those that make clips; what they refuse."""

import json
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny_families import CASES, ddpm, wan

from adapt.backbones.registry import FAMILIES
from adapt.cli.main import main
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle

SETTINGS = ["steps=2", "batch_size=2", "rank=2", "validation=0.25", "validation_times=1", "sampling_steps=2",
            "validate_every=2", "save_every=2"]  # fmt: skip


def refused(words, capsys, *said):
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    for word in said:
        assert word in error, error


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Pictures in folders that are called like classes."""
    root, numbers = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for label in ("3", "7"):
        (root / label).mkdir()
        for k in range(4):
            Image.fromarray(numbers.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / label / f"{k}.png")
    return root


def words(base, prompt):
    return ["generate", "--prompt", prompt, "--steps", "2", "--base", base, "--device", "cpu"]


def test_dit_learns_classes_from_folders_and_draws_them(folders, classes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = str(folders("dit"))
    index = folders("dit") / "model_index.json"  # where the published one has its names; diffusers does not save them
    index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": {"0": "cat", "1": "dog, puppy"}}))
    assert main(["train", str(classes), "--base", base, "--output", "runs/a", *SETTINGS]) == 0
    facts = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())
    assert facts["base"]["family"] == "dit" and facts["proof"]["reader"] == "peft"
    assert main([*words(base, "3"), "--adapter", "runs/a", "--output", "with.png"]) == 0
    assert main([*words(base, "cat"), "--output", "zero.png"]) == 0
    assert main([*words(base, "0"), "--output", "name.png"]) == 0
    assert (tmp_path / "zero.png").stat().st_size > 0
    with Image.open("zero.png") as a, Image.open("name.png") as b, Image.open("with.png") as c:
        assert a.tobytes() == b.tobytes() != c.tobytes(), "cat is class 0"
    refused(words(base, "1000"), capsys, "no such class", "0 to 999")
    refused(words(base, "a fox"), capsys, "no such class", "cat")
    refused([*words(base, "3"), "--size", "64"], capsys, "one size")
    (tmp_path / "odd" / "fox").mkdir(parents=True)
    for k in range(4):
        Image.effect_noise((32, 32), 50).convert("RGB").save(tmp_path / "odd" / "fox" / f"{k}.png")
    refused(["train", "odd", "--base", base, "--output", "runs/b", *SETTINGS], capsys, "no such class", "fox")


def test_a_ddpm_is_told_nothing(folders, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = str(folders("ddpm"))
    assert main(["train", str(pictures), "--base", base, "--output", "runs/a", *SETTINGS]) == 0
    assert main([*words(base, ""), "--adapter", "runs/a", "--output", "a.png"]) == 0
    with Image.open("a.png") as picture:
        assert picture.size == (32, 32)
    refused(words(base, "a fox"), capsys, "takes no prompt")


@pytest.fixture(scope="module")
def of_ten(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ten")
    torch.manual_seed(0)
    ddpm(10).save_pretrained(folder)
    return str(folder)


def test_a_ddpm_with_classes(of_ten, classes, tmp_path, monkeypatch, capsys):
    """A label is a fact: it reaches the prediction, and no dropout takes it away."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(classes), "--base", of_ten, "--output", "runs/a", *SETTINGS, "caption_dropout=1"]) == 0
    for label in ("3", "7"):
        assert main([*words(of_ten, label), "--output", f"{label}.png"]) == 0
    with Image.open("3.png") as a, Image.open("7.png") as b:
        assert a.tobytes() != b.tobytes()
    for label in ("10", "", "fox"):
        refused(words(of_ten, label), capsys, "no such class", "0 to 9")


@pytest.mark.parametrize(
    "asked",
    [["--guidance-scale", "4"], ["--guidance", "apg:eta=0"], ["--negative-prompt", "3"], ["--compose", "3:0.5"]],
)
def test_guidance_of_a_base_without_a_null_is_one_line(asked, of_ten, folders, tmp_path, capsys):
    """Nothing that is kept away from could be told it: it would be a drawing without guidance."""
    for base, prompt in ((of_ten, "3"), (str(folders("ddpm")), "")):
        refused([*words(base, prompt), *asked, "--output", str(tmp_path / "a.png")], capsys, "no null condition")
        assert not (tmp_path / "a.png").exists()


def test_other_guidance_of_a_base_without_a_null_is_taken(of_ten, tmp_path):
    for text, scale in (("pag:layers=mid,scale=3", "1"), (None, "1")):
        given = ["--guidance", text] if text else []
        assert (
            main([*words(of_ten, "3"), *given, "--guidance-scale", scale, "--output", f"{tmp_path}/{bool(text)}.png"])
            == 0
        )
    assert (tmp_path / "True.png").read_bytes() != (tmp_path / "False.png").read_bytes()


def test_wan_learns_clips_and_draws_them(folders, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = str(folders("wan"))
    assert main(["train", str(clips), "--base", base, "--output", "runs/a", *SETTINGS, "fps=8", "frames=1"]) == 0
    assert main(["train", str(clips), "--base", base, "--output", "runs/b", *SETTINGS]) == 0
    assert (tmp_path / "runs/b/previews/step-000002/01.gif").is_file()
    asked = [*words(base, "clip 1"), "--adapter", "runs/b", "--frames", "5", "--fps", "8", "--json"]
    capsys.readouterr()
    assert main([*asked, "--output", "a.mp4"]) == 0
    assert main([*asked, "--output", "b.mp4"]) == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with av.open("a.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 5 and frames[0].shape == (16, 16, 3)
        assert float(container.streams.video[0].average_rate) == 8
        assert container.metadata["comment"].startswith("clip 1\n") and "Seed: 0" in container.metadata["comment"]
    assert main([*asked, "--output", "a.gif"]) == 0
    with Image.open("a.gif") as picture:
        assert picture.n_frames == 5 and picture.info["comment"].startswith(b"clip 1")
    refused([*asked, "--output", "a.png"], capsys, "cannot hold a clip", ".mp4")
    refused([*asked[:-1], "--frames", "6"], capsys, "cannot make so many frames", "1 + a multiple of 4")
    refused(["train", str(clips), "--base", base, "frames=9", *SETTINGS], capsys, "4 of 4 clips", "too short")
    refused(["train", str(clips), "--base", base, "seconds=2", *SETTINGS], capsys, "mean nothing for clips")
    assert main(["check", str(clips), "--base", base, "--exit-zero"]) == 0
    assert "4 clips" in capsys.readouterr().out


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    root, numbers = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for k in range(4):
        soundfile.write(root / f"{k}.wav", numbers.uniform(-0.5, 0.5, (40 + 20 * k, 2)), 64)
        (root / f"{k}.txt").write_text(f"noise {k}")
    return root


@pytest.mark.parametrize(("rate", "channels", "said"), [(32, 2, "32 samples a second"), (64, 1, "1 channels")])
def test_sounds_unlike_the_bases_are_taught_only_when_asked_for(
    folders, sounds, rate, channels, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sounds, "mixed")
    soundfile.write("mixed/0.wav", np.random.default_rng(9).uniform(-0.5, 0.5, (60, channels)), rate)
    asked = ["train", "mixed", "--base", str(folders("stable-audio")), "--dry-run", *SETTINGS]
    refused(asked, capsys, "1 of 4 sounds", "0.wav", said, "64 samples a second, 2 channels", "convert_sounds=true")
    assert main([*asked, "convert_sounds=true"]) == 0


def test_stable_audio_learns_sounds_and_makes_them(folders, sounds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = str(folders("stable-audio"))
    assert main(["check", str(sounds), "--base", base, "--exit-zero"]) == 0
    assert "4 sounds" in capsys.readouterr().out
    more = [*SETTINGS, "crop=random", "variants=2"]
    assert main(["train", str(sounds), "--base", base, "--output", "runs/a", *more]) == 0
    facts = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())
    assert facts["base"]["family"] == "stable-audio" and facts["proof"]["reader"] == "peft"
    assert (tmp_path / "runs/a/previews/step-000002/01.wav").is_file()
    asked = [*words(base, "noise 1"), "--adapter", "runs/a", "--seconds", "0.25"]
    for ending in ("wav", "flac"):
        assert main([*asked, "--output", f"a.{ending}"]) == 0
        with soundfile.SoundFile(f"a.{ending}") as file:
            assert (file.samplerate, file.channels, len(file)) == (64, 2, 16)
            assert file.comment.startswith("noise 1\n") and "Seed: 0" in file.comment
    refused([*asked, "--output", "a.png"], capsys, "cannot hold a sound", ".wav")
    refused([*words(base, "a"), "--seconds", "9"], capsys, "so long a sound", "0.5")
    refused([*words(base, "a"), "--frames", "9"], capsys, "makes sounds, not clips")
    refused(["train", str(sounds), "--base", base, "flip=0.5", *SETTINGS], capsys, "mean nothing for sounds", "flip")


def test_seconds_reach_stable_audio(backbones):
    backbone = backbones("stable-audio")
    short, long = (
        draw_latents(backbone, [settle(Request(prompt="a", steps=2, seconds=s), backbone)], [generator_of(1)])
        for s in (0.25, 0.5)
    )
    assert short.shape == long.shape and (short - long).abs().max() > 1e-5
    pipeline = backbone.pipeline
    kept, pipeline.scheduler = pipeline.scheduler, type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    theirs = pipeline("a", audio_end_in_s=0.25, num_inference_steps=2, guidance_scale=7.0, generator=generator_of(1),
                      output_type="latent").audios  # fmt: skip
    pipeline.scheduler = kept
    torch.testing.assert_close(short, theirs, atol=1e-4, rtol=0)


def test_pictures_are_no_clips(folders, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(["train", str(pictures), "--base", str(folders("wan")), *SETTINGS], capsys, "holds no clips")
    refused([*words(str(folders("stable-diffusion")), "a"), "--frames", "5"], capsys, "makes pictures, not clips")


def test_two_experts_draw_as_the_pipeline_does(tmp_path, monkeypatch):
    from adapt.backbones import Backbone

    monkeypatch.chdir(tmp_path)
    pipeline = wan(experts=2)
    pipeline.save_pretrained("base")
    backbone, case = Backbone.load("base"), CASES["wan"]
    assert list(backbone.denoisers) == ["transformer", "transformer_2"]
    theirs = case.run(
        case, backbone.pipeline, num_inference_steps=4, guidance_scale=4.0, max_sequence_length=24,
        generator=[generator_of(7), generator_of(8)],
    )  # fmt: skip
    requests = [Request(prompt=p, steps=4, height=16, width=16, guidance_scale=4.0) for p in case.prompts[:2]]
    found = draw_latents(backbone, [settle(r, backbone) for r in requests], [generator_of(7), generator_of(8)])
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=0)
    x, condition = torch.randn(2, *backbone.own_latents), backbone.condition(["a", "b"])
    with torch.no_grad():
        both = backbone.predict(x, torch.tensor([900.0, 100.0]), condition)
        other = backbone.predict(x, torch.tensor([100.0, 900.0]), condition)
        low = backbone.predict(x[1:], torch.tensor([100.0]), condition.rows(slice(1, 2)))
    torch.testing.assert_close(both[1:], low, atol=1e-5, rtol=0)
    assert (both - other).abs().max() > 1e-3


def test_frames_a_second_reach_ltx(backbones):
    backbone = backbones("ltx-video")
    slow, fast = (settle(Request(prompt="a", steps=1, height=32, width=32, fps=fps), backbone) for fps in (8.0, 25.0))
    a, b, own = (
        draw_latents(backbone, [d], [generator_of(1)])
        for d in (slow, fast, settle(Request(prompt="a", steps=1, height=32, width=32), backbone))
    )
    assert (a - b).abs().max() > 1e-4 and torch.equal(b, own)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ltx-video", "cogvideox", "kandinsky5"])
def test_it_learns_clips(folders, clips, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = str(folders(name))
    assert main(["train", str(clips), "--base", base, "--output", "runs/a", *SETTINGS, "fps=8", "frames=1"]) == 0
    assert main([*words(base, "a"), "--adapter", "runs/a", "--frames", "9", "--output", "a.mp4"]) == 0


@pytest.mark.parametrize(
    "name",
    [
        "stable-diffusion",
        "stable-diffusion-xl",
        "flux",
        "dit",
        "ddpm",
        "wan",
        "ltx-video",
        "cogvideox",
        "kandinsky5",
        "stable-audio",
        "audioldm2",
    ],
)
def test_the_medium_is_known_from_the_configuration_alone(folders, backbones, name):
    from adapt.loading import medium_of

    read, loaded = medium_of(folders(name)), backbones(name).medium
    assert (read.kind, read.side, read.scale) == (loaded.kind, loaded.side, loaded.scale)
    if read.kind != "picture":
        assert read == loaded


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "cogvideox",
            "clips of 49 frames of 16 px, 8 a second; frames are 1 + a multiple of 8, sides are multiples of 8",
        ),
        ("audioldm2", "sounds of 0.64 s, 16000 samples a second, mono"),
        ("stable-audio", "sounds of 0.50 s, 64 samples a second, stereo"),
    ],
)
def test_bases_says_what_a_base_makes(folders, name, said, capsys, monkeypatch):
    kept = FAMILIES[name]
    monkeypatch.setitem(FAMILIES, name, replace(kept, frames=49 if kept.medium == "video" else 1))
    assert main(["bases", str(folders(name))]) == 0
    assert said in capsys.readouterr().out.splitlines()


def test_pictures_as_jpeg_and_webp_say_how_they_were_drawn(folders, tmp_path, monkeypatch, capsys):
    from adapt.sampling.formats import told_in

    monkeypatch.chdir(tmp_path)
    asked = words(str(folders("stable-diffusion")), "ein Fuchs, größer")
    for ending in ("jpg", "webp"):
        assert main([*asked, "--output", f"a.{ending}"]) == 0
        assert told_in(f"a.{ending}").startswith("ein Fuchs, größer\nSteps: 2")
    assert main([*asked, "--output", "all", "--format", "webp"]) == 0
    assert [p.suffix for p in (tmp_path / "all").iterdir()] == [".webp"]
    refused([*asked, "--output", "a.jpg", "--format", "png"], capsys, "--format does not fit")
    refused([*asked, "--output", "a.mp4"], capsys, "cannot hold a picture")
