"""`adapt generate` from the user's door."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from adapt.adapter import Adapter, Facts
from adapt.api.generate import generate as draw
from adapt.backbones import Backbone
from adapt.cli.generate import generate
from adapt.errors import AdapterError, AdaptError, BackboneError, DataError, RunError, SettingsError
from adapt.formats import LoraWeights, Pair
from adapt.sampling.png import read_parameters

app = typer.Typer()
app.command()(generate)


@pytest.fixture(scope="module")
def icons():
    return Backbone.load("icons")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(icons, monkeypatch):
    """Runs the command with the backbone that is already loaded."""
    monkeypatch.setattr(Backbone, "load", staticmethod(lambda reference, device, dtype: icons))

    def invoke(*arguments):
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return invoke


@pytest.fixture
def style(icons, tmp_path):
    """An adapter folder for icons, trained by nobody."""
    torch.manual_seed(1)
    names = [n for n, m in icons.denoiser.named_modules() if n.endswith("attn2.to_v")]
    shapes = {n: icons.denoiser.get_submodule(n).weight.shape for n in names}
    pairs = {n: Pair(torch.randn(2, i) / 4, torch.randn(o, 2) / 4, 2.0) for n, (o, i) in shapes.items()}
    base = {"reference": "icons", "family": "icons", "fingerprint": icons.fingerprint()}
    facts = Facts(base=base, trigger="zxc", recommended={"steps": 2})
    return Adapter(LoraWeights({"unet": pairs}), facts).save(tmp_path / "style") and "style"


def test_the_picture_is_the_apis_and_its_path_is_all_that_stdout_says(run, icons):
    result = run("--prompt", "A red apple!", "--steps", "2", "--seed", "7")
    assert result.stdout == "pictures/a-red-apple-7.png\n"
    (expected,) = draw(icons, prompt="A red apple!", steps=2, seed=7)
    assert Image.open("pictures/a-red-apple-7.png").tobytes() == expected.tobytes()


def test_every_option_reaches_the_picture_and_its_text(run, tmp_path):
    Image.new("RGB", (64, 64), "red").save("in.png")
    options = "--prompt cat --negative-prompt grey --guidance-scale 2.5 --steps 4 --seed 3 --count 2 --size 32x64"
    options += " --scheduler euler_a --image in.png --strength 0.5 --output out --json --batch-size 1 --device cpu"
    result = json.loads(run(*options.split()).stdout)
    assert [p["path"] for p in result["pictures"]] == ["out/cat-3.png", "out/cat-4.png"]
    assert (result["base"], result["adapters"]) == ("icons", [])
    assert result["seconds"] > 0
    assert result["pictures"][1] == {
        "path": "out/cat-4.png",
        "prompt": "cat",
        "negative_prompt": "grey",
        "seed": 4,
        "width": 32,
        "height": 64,
        "steps": 4,
        "guidance_scale": 2.5,
        "scheduler": "euler_a",
    }
    text = read_parameters("out/cat-4.png")
    assert (text.prompt, text.negative_prompt) == ("cat", "grey")
    assert text.settings == {
        "Steps": "4",
        "Sampler": "Euler a",
        "CFG scale": "2.5",
        "Seed": "4",
        "Size": "32x64",
        "Model": "icons",
        "Denoising strength": "0.5",
    }


def test_an_adapter_brings_its_base_steps_and_hash(run, style):
    plain = json.loads(run("--prompt", "zxc cat", "--steps", "2", "--json", "--output", "plain").stdout)
    result = run("--prompt", "zxc cat", "--adapter", style + ":0.5", "--json")
    adapted = json.loads(result.stdout)
    digest = Adapter.load(style).digest
    assert adapted["adapters"] == [{"name": "style", "digest": digest, "scale": 0.5}]
    assert adapted["pictures"][0]["steps"] == 2
    settings = read_parameters(adapted["pictures"][0]["path"]).settings
    assert (settings["Lora hashes"], settings["Lora scales"]) == (f"style: {digest}", "style: 0.5")
    first, second = (np.asarray(Image.open(r["pictures"][0]["path"])).astype(int) for r in (plain, adapted))
    assert np.abs(first - second).max() > 1


def test_a_prompt_without_the_trigger_is_pointed_out(run, style):
    result = run("--prompt", "cat", "--adapter", style, "--steps", "1")
    assert "no prompt holds 'zxc'" in result.stderr
    assert "zxc" not in result.stdout


def test_prompt_files_and_prompts_go_together_and_lines_win(run):
    Path("p.txt").write_text("dog --d 9\nbird --s 1 --w 32\n", "utf-8")
    options = "--prompt cat --prompts p.txt --steps 2 --seed 4 --json --metadata none"
    pictures = json.loads(run(*options.split()).stdout)["pictures"]
    assert [(p["prompt"], p["seed"], p["steps"], p["width"]) for p in pictures] == [
        ("cat", 4, 2, 64),
        ("dog", 9, 2, 64),
        ("bird", 4, 1, 32),
    ]
    assert read_parameters(pictures[0]["path"]) is None


def test_pictures_that_are_there_are_never_overwritten(run, tmp_path):
    steps = ["--prompt", "cat", "--steps"]
    names = [run(*steps, n).stdout.strip() for n in ("1", "1", "2")]
    assert names == ["pictures/cat-0.png", "pictures/cat-0.png", "pictures/cat-0-2.png"]
    assert run(*steps, "1", "--output", "one.png").stdout == "one.png\n"
    assert run(*steps, "2", "--output", "one.png").stdout == "one-2.png\n"


def test_a_mask_repaints_only_its_white_part(run):
    picture, mask = Image.new("RGB", (64, 64), "white"), Image.new("L", (64, 64))
    picture.paste("red", (6, 16, 26, 48))
    mask.paste(255, (32, 0, 64, 64))
    picture.save("in.png"), mask.save("m.png")
    options = "--prompt tree --image in.png --mask m.png --strength 1 --steps 3 --output out.png"
    run(*options.split())
    values = np.asarray(Image.open("out.png")).astype(int)
    difference = np.abs(values - np.asarray(picture)).mean((0, 2))
    assert 4 * difference[4:24].mean() < difference[32:48].mean()


BAD = {
    "no prompt": ("", SettingsError, "no prompt"),
    "steps 0": ("--prompt a --steps 0", SettingsError, "steps"),
    "steps −1": ("--prompt a --steps -1", SettingsError, "steps"),
    "guidance below 1": ("--prompt a --guidance-scale 0.5", SettingsError, "guidance_scale"),
    "guidance nan": ("--prompt a --guidance-scale nan", SettingsError, "guidance_scale"),
    "seed −1": ("--prompt a --seed -1", SettingsError, "seed"),
    "last seed": (f"--prompt a --count 2 --seed {2**63 - 1}", SettingsError, "seed"),
    "count 0": ("--prompt a --count 0", SettingsError, "count"),
    "batch size 0": ("--prompt a --batch-size 0", SettingsError, "--batch-size"),
    "size text": ("--prompt a --size big", SettingsError, "--size"),
    "size no multiple": ("--prompt a --size 60", SettingsError, "--size 64x64"),
    "scheduler": ("--prompt a --scheduler eular", SettingsError, "did you mean euler"),
    "flow scheduler": ("--prompt a --scheduler flow_euler", SettingsError, "diffusion model"),
    "metadata": ("--prompt a --metadata exif", SettingsError, "a1111, none"),
    "device": ("--prompt a --device gpu", SettingsError, "--device"),
    "strength 0": ("--prompt a --image there.png --strength 0", SettingsError, "strength"),
    "strength alone": ("--prompt a --strength 0.5", SettingsError, "--image"),
    "mask alone": ("--prompt a --mask there.png", SettingsError, "mask"),
    "image missing": ("--prompt a --image none.png", DataError, "none.png"),
    "image broken": ("--prompt a --image broken.png", DataError, "broken.png"),
    "prompts missing": ("--prompts none.txt", DataError, "none.txt"),
    "one file for two": ("--prompt a --count 2 --output a.png", SettingsError, "2 pictures"),
    "output below a file": ("--prompt a --output there.png/x", RunError, "--output"),
    "base missing": ("--prompt a --base nowhere", BackboneError, "nowhere"),
    "base pickle": ("--prompt a --base model.ckpt", BackboneError, ".ckpt"),
}
BAD_ADAPTERS = {
    "missing": ("--prompt a --adapter none.safetensors", AdapterError, "none.safetensors"),
    "pickle": ("--prompt a --adapter there.ckpt", AdapterError, ".ckpt"),
    "empty folder": ("--prompt a --adapter empty", AdapterError, "no adapter"),
    "damaged": ("--prompt a --adapter cut.safetensors", AdapterError, "damaged"),
    "scale": ("--prompt a --adapter cut.safetensors:much", SettingsError, "scale"),
    "scale nan": ("--prompt a --adapter cut.safetensors:nan", SettingsError, "scale"),
}


def bad_files(folder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    (folder / "there.ckpt").write_bytes(b"x")
    (folder / "cut.safetensors").write_bytes(b"\x00\x01")
    (folder / "empty").mkdir()
    Image.new("L", (8, 8)).save(folder / "there.png")


@pytest.mark.parametrize("case", [*BAD.items(), *BAD_ADAPTERS.items()], ids=lambda case: case[0])
def test_bad_input_is_one_error_of_ours_and_writes_nothing(tmp_path, case):
    bad_files(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments, kind, message = case[1]
    error = CliRunner().invoke(app, arguments.split()).exception
    assert isinstance(error, kind), error
    assert message in str(error)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("cases", [BAD, BAD_ADAPTERS], ids=["settings", "adapters"])
def test_usage_errors_import_no_torch(tmp_path, cases):
    bad_files(tmp_path)
    lines = [arguments for arguments, _, _ in cases.values()]
    code = f"""
        import sys, typer
        from typer.testing import CliRunner
        from adapt.cli.generate import generate
        from adapt.errors import AdaptError
        app = typer.Typer()
        app.command()(generate)
        errors = [CliRunner().invoke(app, line.split()).exception for line in {lines!r}]
        assert all(isinstance(error, AdaptError) for error in errors), errors
        assert "--prompt" in CliRunner().invoke(app, ["--help"]).stdout
        print([m for m in ("torch", "diffusers", "transformers") if m in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_adapter_from_a_local_base_asks_for_it(run, icons, style):
    adapter = Adapter.load(style)
    Adapter(adapter.weights, Facts(base={"reference": None, "family": "icons"})).save("local")
    with pytest.raises(AdaptError, match="--base FOLDER"):
        run("--prompt", "a", "--adapter", "local")
    run("--prompt", "a", "--adapter", "local", "--base", "icons", "--steps", "1")
