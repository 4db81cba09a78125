"""A checkpoint in one file is the base that it was made from: bit for bit, offline, or said what is missing."""

import json
import shutil

import pytest
import torch
from original_layout import checkpoint_of
from safetensors.torch import save_file

from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.errors import BackboneError
from adapt.loading import load_pipeline, plain
from adapt.source import find, identity, is_here, source


@pytest.fixture(scope="module")
def one_file(make_tiny, tmp_path_factory):
    """A checkpoint, and beside it a folder with configurations and tokenizers of the same name."""
    folder = tmp_path_factory.mktemp("one-file")
    pipeline = make_tiny()
    pipeline.save_pretrained(folder / "whole")
    save_file(checkpoint_of(pipeline), folder / "model.safetensors")
    shutil.copytree(folder / "whole", folder / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@torch.no_grad()
def test_it_is_the_base_that_it_was_made_from(one_file):
    whole, alone = Backbone.load(str(one_file / "whole")), Backbone.load(str(one_file / "model.safetensors"))
    assert alone.fingerprint() == whole.fingerprint() and alone.family == "stable-diffusion"
    x, t = torch.randn(2, *whole.own_latents, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 800])
    a, b = (backbone.predict(x, t, backbone.condition(["a cat", ""])) for backbone in (whole, alone))
    assert torch.equal(a, b)
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(whole.encode_media(pixels)[0], alone.encode_media(pixels)[0])
    assert torch.equal(whole.decode(x), alone.decode(x))
    assert torch.equal(next(plain(alone).unet.parameters()), next(whole.denoiser.parameters()))
    named = Backbone.load(f"{one_file / 'model.safetensors'}:{one_file / 'whole'}", dtype=torch.bfloat16)
    assert named.dtype == torch.bfloat16
    mixed = load_pipeline(
        source(str(one_file / "model.safetensors")), "StableDiffusionPipeline", torch.bfloat16, ("vae",)
    )
    assert mixed.unet.dtype == mixed.text_encoder.dtype == torch.bfloat16
    assert torch.equal(next(mixed.vae.parameters()), next(whole.pipeline.vae.parameters()))  # never rounded


def test_train_and_generate(one_file, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = str(one_file / "model.safetensors")
    words = ["steps=1", "batch_size=2", "rank=2", "validation=0", "previews=[a]", "sampling_steps=1", "save_every=1"]
    assert main(["train", str(pictures), "--base", base, "--output", "runs/a", *words]) == 0
    facts = (tmp_path / "runs/a/adapter/adapter.json").read_text()
    assert json.loads(facts)["base"]["reference"] is None and "model.safetensors" not in facts
    words = ["generate", "--adapter", "runs/a", "--base", base, "--prompt", "a", "--steps", "1", "--device", "cpu"]
    assert main([*words, "--output", "a.png"]) == 0
    capsys.readouterr()
    assert main(["bases", base]) == 0
    assert "checkpoint in one file" in capsys.readouterr().out


def test_what_is_missing_is_said(one_file, tmp_path, monkeypatch):
    lonely = tmp_path / "lonely.safetensors"
    shutil.copy(one_file / "model.safetensors", lonely)
    with pytest.raises(BackboneError, match="does not say its configuration") as error:
        find(str(lonely))
    assert "lonely.safetensors:FOLDER" in str(error.value)
    with pytest.raises(BackboneError, match="would have to be downloaded"):
        find(f"{lonely}:owner/name")
    for name, said in (
        ("a.ckpt", "never read"),
        ("a.ckpt:x", "never read"),
        ("a.gguf", "no such"),
        ("a.safetensors", "no such"),
    ):
        with pytest.raises(BackboneError, match=said):
            find(name)
    assert is_here(f"{lonely}:x") and identity(f"{lonely}:{one_file / 'whole'}") == {"reference": None}


def test_a_checkpoint_that_does_not_fit_the_folder(one_file, make_tiny, tmp_path):
    make_tiny(width=32).save_pretrained(tmp_path / "wide")
    with pytest.raises(BackboneError, match="fit"):
        Backbone.load(f"{one_file / 'model.safetensors'}:{tmp_path / 'wide'}")
    values = checkpoint_of(make_tiny())
    save_file({k: v for k, v in values.items() if "middle_block.1" not in k}, tmp_path / "part.safetensors")
    with pytest.raises(BackboneError, match="fit"):
        Backbone.load(f"{tmp_path / 'part.safetensors'}:{one_file / 'model'}")


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("icons", "icons"),
        ("owner/name", "owner/name"),
        ("owner/name@v1:fp16", "owner/name@v1:fp16"),
        ("/home/me/model.safetensors:/home/me/folder", "model.safetensors"),
        ("/home/me/folder:fp16", "folder"),
        ("/home/me/folder", "folder"),
    ],
)
def test_a_picture_says_of_a_base_nothing_of_where_it_lies(base, told):
    from adapt.cli.drawing import _model

    assert _model(base) == told
