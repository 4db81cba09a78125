"""What a run hands to other programs: the same strength for readers that know no header, whatever alpha it was trained with."""

import json

import pytest
import torch
from safetensors.torch import load_file

import adapt
from adapt.adapter import Adapter
from adapt.api import finish
from adapt.cli.main import main
from adapt.errors import AdapterError
from adapt.formats import Pair
from adapt.formats.diffusers_lora import FILE_NAME, read_lora
from adapt.formats.header import HEADER, read_metadata
from adapt.formats.kohya import placer

STRONG = {"rslora": {"rslora": True, "alpha": 3.0}, "alpha": {"alpha": 7.0}}
"""√2 · 3 / 2 and 7 / 2 times B A: neither is a power of two."""
RUNS = [("flux", "rslora"), ("stable-diffusion-3", "alpha")]


@pytest.fixture(scope="module", params=RUNS, ids=lambda run: run[0])
def run(request, folders, pictures, tmp_path_factory):
    """A run with another alpha than its rank: (folder, base, ΔW as trained by component and layer)."""
    name, strength = request.param
    settings = adapt.TrainSettings(
        steps=2,
        batch_size=1,
        rank=2,
        resolution=16,
        sampling_steps=1,
        buckets=False,
        learning_rate=0.01,
        **STRONG[strength],
    )
    folder, base = tmp_path_factory.mktemp("run") / "style", str(folders(name))
    adapt.train(pictures, base=base, output=folder, settings=settings)
    trained = read_lora(max((folder / "snapshots").rglob("*.safetensors"))).modules["transformer"]
    assert {round(layer.scale, 4) for layer in trained.values()} == {2.1213 if strength == "rslora" else 3.5}
    return folder, base, {layer: pair.delta() for layer, pair in trained.items()}


def by_tensors(path, down, up):
    """ComfyUI, InvokeAI, A1111, Forge, stable-diffusion.cpp, kohya's scripts: `.alpha` / rank where there is one, else 1; nothing
    of the header."""
    tensors, found = load_file(path), {}
    for key, half in tensors.items():
        if key.endswith(up):
            name = key.removesuffix(up)
            rank = half.shape[1]
            factor = float(tensors[f"{name}.alpha"]) / rank if f"{name}.alpha" in tensors else 1.0
            found[name] = factor * half @ tensors[name + down]
    return found


def close(theirs, ours):
    return float((theirs - ours).norm()) <= 1e-6 * float(ours.norm())


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_reader_without_the_header_finds_the_strength_of_the_training(run, scale):
    folder, _, trained = run
    path = folder / "adapter" / FILE_NAME
    theirs = by_tensors(path, ".lora_A.weight", ".lora_B.weight")
    assert theirs.keys() == {f"transformer.{name}" for name in trained}
    assert all(close(scale * theirs[f"transformer.{name}"], scale * delta) for name, delta in trained.items())
    told = json.loads(read_metadata(path)[HEADER])
    assert told["transformer.r"] == told["transformer.lora_alpha"] == 2 and "transformer.use_rslora" not in told


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_file_for_uis_has_it_too(run, scale):
    folder, _, trained = run
    path = folder / "adapter" / "kohya" / "style.safetensors"
    theirs = by_tensors(path, ".lora_down.weight", ".lora_up.weight")
    place, seen = placer(dict.fromkeys(theirs)), set()
    for name, delta in theirs.items():
        native = place(name).native
        parts = [trained.get(module) for module in native.modules]
        unit, start = len(delta) // sum(native.shares), 0
        for module, share, ours in zip(native.modules, native.shares, parts, strict=True):
            part = delta[start : start + share * unit]
            start += share * unit
            assert close(scale * part, scale * ours) if ours is not None else not part.any()
            seen |= {module} if ours is not None else set()
    assert seen == set(trained)
    facts = Adapter.read_facts(folder)
    assert read_metadata(path)["modelspec.title"] == read_metadata(path)["ss_output_name"] == "style"
    assert "ComfyUI" in facts.loads_in and "A1111" not in facts.loads_in
    assert (
        json.loads(path.with_suffix(".json").read_text())["sd version"] == "Unknown"
        and path.with_suffix(".png").is_file()
    )


def test_both_files_say_what_they_are_for(run):
    folder, _, _ = run
    own, uis = (
        read_metadata(folder / "adapter" / FILE_NAME),
        read_metadata(folder / "adapter" / "kohya" / "style.safetensors"),
    )
    told = Adapter.read_facts(folder).base
    expected = {
        "flux": ("dev", "flux1", "flux-1-dev"),
        "stable-diffusion-3": ("3.5 large", "5-large", "stable-diffusion-3-5-large"),
    }
    model, version, architecture = expected[str(told["family"])]
    assert told["model"] == model
    for entries in (own, uis):
        assert (
            entries["ss_base_model_version"] == version and entries["modelspec.architecture"] == f"{architecture}/lora"
        )
        assert entries["modelspec.sai_model_spec"] == "1.0.1" and len(entries["sshs_model_hash"]) == 64
    assert (
        own["modelspec.title"] == "LoRA" and "modelspec.thumbnail" not in own
    )  # the folder's name is no part of equal bytes
    assert uis["modelspec.title"] == "style" and uis["modelspec.thumbnail"].startswith("data:image/jpeg")


def test_a_run_goes_on_from_it_at_its_own_alpha(run, pictures, tmp_path, capsys):
    folder, base, trained = run
    told = json.loads((folder / "run.json").read_text())["settings"]
    words = [f"{name}={told[name]}" for name in ("alpha", "rslora", "rank", "resolution")]
    out = ["--output", str(tmp_path / "on"), "steps=1", "batch_size=1", "sampling_steps=1", "buckets=false"]
    assert main(["train", str(pictures), "--base", base, f"init_from={folder}", *words, *out, "--dry-run"]) == 0
    again = Adapter.load(folder).as_trained().weights.modules["transformer"]
    assert all(close(layer.delta(), trained[name]) and layer.scale > 2 for name, layer in again.items())


def test_layers_without_a_name_cost_the_file_for_uis_and_nothing_else(folders, pictures, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise AdapterError("the format has no name for a layer of this adapter", given="x")

    monkeypatch.setattr(finish.Adapter, "export", refuse)
    settings = adapt.TrainSettings(steps=1, batch_size=1, rank=1, resolution=16, sampling_steps=1, buckets=False)
    made = adapt.train(pictures, base=str(folders("flux")), output=tmp_path / "style", settings=settings)
    assert made.adapter.facts.loads_in == ("adapt", "diffusers") and not (made.folder / "adapter" / "kohya").exists()
    assert "no file for UIs" in capsys.readouterr().err


def test_powers_of_two_move_without_rounding():
    dice = torch.Generator().manual_seed(0)
    down, up = torch.randn(4, 6, generator=dice), torch.randn(5, 4, generator=dice)
    for alpha in (1.0, 2.0, 32.0, 0.125):
        pair = Pair(down, up, alpha)
        there = pair.with_alpha(4.0)
        assert there.scale == 1 and torch.equal(there.delta(), pair.delta())
        assert there.with_alpha(alpha).equals(pair)
