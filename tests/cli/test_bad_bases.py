"""Bases that are half downloaded, or whose weights and configurations are not each other's: one line, nothing written."""

import json
import shutil

import pytest

from adapt.cli.main import main


@pytest.fixture(scope="module")
def sharded(make_tiny, tmp_path_factory):
    """A tiny base in many weights files."""
    folder = tmp_path_factory.mktemp("sharded") / "base"
    make_tiny().save_pretrained(folder, max_shard_size="30KB")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 3
    return folder


def without(*names):
    def spoil(base):
        for name in names:
            shutil.rmtree(base / name) if (base / name).is_dir() else (base / name).unlink()

    return spoil


def config(component, **changes):
    def spoil(base):
        file = base / component / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return spoil


def index(change):
    def spoil(base):
        file = base / "model_index.json"
        file.write_text(json.dumps(change(json.loads(file.read_text()))))

    return spoil


def pickled(base):
    for file in (base / "unet").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))


def shard(base):
    return sorted((base / "unet").glob("*.safetensors"))[1]


def deeper(base):
    """The weights of an encoder of two layers, the configuration of one."""
    from transformers import CLIPTextConfig, CLIPTextModel

    place = base / "text_encoder"
    told = (place / "config.json").read_text()
    shutil.rmtree(place)
    CLIPTextModel(CLIPTextConfig(**{**json.loads(told), "num_hidden_layers": 2})).save_pretrained(place)
    (place / "config.json").write_text(told)


def text(file, content):
    return lambda base: (base / file).write_text(content)


HALF = {
    "a folder of nothing": (lambda base: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in base.iterdir()],
                            "model_index.json is missing"),
    "one file of many": (lambda base: shard(base).unlink(), "weights files of unet are missing"),
    "a file that is cut off": (lambda base: shard(base).write_bytes(shard(base).read_bytes()[:-5]), "cut off"),
    "an index of nothing": (text("unet/diffusion_pytorch_model.safetensors.index.json", "{}"), "an index of weights"),
    "no weights": (lambda base: [f.unlink() for f in (base / "unet").glob("*.safetensors")], "no safetensors weights"),
    "pickles": (pickled, "can run code when opened and is never read"),
    "no unet": (without("unet"), "unet is missing"),
    "no configuration": (without("vae/config.json"), "vae is missing"),
    "no tokenizer": (without("tokenizer"), "tokenizer is missing"),
    "no vocabulary": (without("tokenizer/tokenizer.json"), "tokenizer has no vocabulary"),
    "no scheduler": (without("scheduler"), "scheduler is missing"),
    "no index": (text("model_index.json", "{"), "model_index.json cannot be read"),
    "a list": (text("model_index.json", "[]"), "model_index.json cannot be read"),
}  # fmt: skip
"""Seen without loading anything: by `bases` too."""
UNFIT = {
    "more layers": (config("unet", layers_per_block=2), "the weights of unet do not fit its configuration"),
    "fewer layers": (
        config("unet", down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2), "numbers more",
    ),
    "another width": (config("unet", cross_attention_dim=24), "the base cannot be loaded"),
    "more of an encoder": (config("text_encoder", num_hidden_layers=3), "the weights of text_encoder do not fit"),
    "less of an encoder": (deeper, "the weights of text_encoder do not fit"),
    "no name": (index(lambda told: {k: v for k, v in told.items() if k != "vae"}), "does not name a part"),
    "a broken configuration": (text("scheduler/scheduler_config.json", "{"), "cannot be"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*HALF, *UNFIT])
def test_one_line(sharded, pictures, tmp_path, monkeypatch, capsys, name):
    spoil, said = {**HALF, **UNFIT}[name]
    base = shutil.copytree(sharded, tmp_path / "base")
    spoil(base)
    monkeypatch.chdir(tmp_path)
    draw = ["generate", "--prompt", "a", "--base", "base", "--steps", "1", "--device", "cpu", "--output", "a.png"]
    train = ["train", str(pictures), "--base", "base", "--output", "run", "steps=1", "rank=2", "batch_size=2"]
    for words in (draw, train, *([["bases", "base"]] if name in HALF else [])):
        capsys.readouterr()
        assert main(words) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and said in error and len(error) < 400, error
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.glob("run/**/*.safetensors"))


def test_the_whole_one_is_none_of_them(sharded, tmp_path):
    words = ["generate", "--prompt", "a", "--base", str(sharded), "--steps", "1", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "a.png")]) == 0
