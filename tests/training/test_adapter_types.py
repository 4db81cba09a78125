"""Whole runs of each kind: proved, snapshots of their own kind, resumed to the same bytes; starts from another adapter."""

import json
import shutil

import pytest
import torch
from tiny_runs import RESULTS, content, tiny

import adapt
from adapt.adapter import Adapter
from adapt.api import machine
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.errors import AdapterError, AdaptError, RunError, SettingsError
from adapt.formats import LoraWeights, read
from adapt.training import checkpoint

KINDS = {
    "dora": {"kind": "dora", "rank_pattern": {"attn2": 1}},
    "loha": {"kind": "loha", "rank_dropout": 0.2, "max_norm": 0.5, "learning_rate_pattern": {"to_q": 1e-3}},
    "lokr": {"kind": "lokr", "module_dropout": 0.3, "alpha": 1.0},
    "pissa": {"init": "pissa", "dropout": 0.0, "anchor_above": 0.7},
}
SHORT = {"steps": 4, "validation": 0.25, "validate_every": 2, "save_every": 2, "targets": ("to_q", "conv1")}


@pytest.mark.parametrize(
    "name", ["lokr", "pissa", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dora", "loha"))]
)
def test_a_run_is_proved_and_resumed_to_the_same_bytes(train, tmp_path, name):
    settings = {**SHORT, **KINDS[name]}
    result = train(tmp_path / "a" / "run", **settings)
    run, kind = result.folder, settings.get("kind", "lora")
    assert result.proof.effect > 1e-4 and result.proof.difference <= 1e-4 * max(1, result.proof.effect)
    assert result.adapter.weights.kinds == {kind} == read(run / "snapshots" / "step-000004.safetensors").kinds
    assert result.adapter.facts.loads_in == ("adapt", result.proof.reader)
    card = (run / "adapter" / "README.md").read_text()
    assert ("PeftModel.from_pretrained(pipeline.unet" in card) == (kind in ("loha", "lokr"))
    assert ("load_lora_weights" in card) == (kind in ("lora", "dora"))

    cut = shutil.copytree(run, tmp_path / "b" / "run")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "step-000004")
    (cut / "snapshots" / "step-000004.safetensors").unlink()
    train(cut, existing="resume")
    assert content(cut, *RESULTS) == content(run, *RESULTS)


def test_the_base_is_what_it_was_after_a_run_of_pissa(train, tmp_path, tiny_base, monkeypatch):
    load, loaded = machine.load_base, []
    monkeypatch.setattr(machine, "load_base", lambda *given: loaded.append(load(*given)) or loaded[-1])
    train(tmp_path / "run", **{**SHORT, "steps": 2, **KINDS["pissa"]})
    fresh, used = Backbone.load(str(tiny_base)).denoiser.state_dict(), loaded[0].denoiser.state_dict()
    assert used.keys() == fresh.keys() and all(torch.equal(used[name], fresh[name]) for name in fresh)


def test_max_norm_holds_in_every_snapshot(train, start, tmp_path):
    """Without it the same run goes beyond (`start`)."""
    held = train(tmp_path / "run", **SHORT, ema=0.0, max_norm=0.005)
    norms, free = ([float(layer.norm()) for layer in result.adapter.layers().values()] for result in (held, start))
    assert max(norms) <= 0.005 * 1.001 and max(free) > 0.01


def test_learning_rates_by_layer_move_layers_by_as_much(train, tmp_path):
    """Adam's first step is as long as its rate: B starts from 0 and becomes ± the rate."""
    pattern = {"conv1": 1e-4}
    result = train(tmp_path / "run", **{**SHORT, "steps": 1, "warmup": 0, "ema": 0.0, "weight_decay": 0.0, "schedule": "constant",
                                        "learning_rate": 1e-2, "learning_rate_pattern": pattern})  # fmt: skip
    for name, layer in result.adapter.layers().items():
        assert float(layer.up.abs().median()) == pytest.approx(1e-4 if name.endswith("conv1") else 1e-2, rel=0.01), name


def test_what_will_load_the_adapter_is_said_before_step_1(captioned, tiny_base, capsys):
    words = [str(captioned), "kind=loha", "rank=2", "--dry-run", "--base", str(tiny_base)]
    assert main(["train", *words]) == 0
    assert "loads in   adapt, peft" in capsys.readouterr().out
    assert main(["train", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forecast"]["loads_in"] == ["adapt", "peft"]
    assert main(["train", *words, "rank_pattern={too_q: 1}"]) == 2
    assert "did you mean to_q?" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ warm start
@pytest.fixture(scope="session")
def start(captioned, tiny_base, tmp_path_factory):
    """A run that went before; not to be changed."""
    return adapt.train(
        captioned, output=tmp_path_factory.mktemp("start") / "run", base=str(tiny_base), settings=tiny(**SHORT)
    )


def test_a_run_starts_where_the_adapter_stands_and_says_so(train, start, tmp_path, capsys):
    result = train(tmp_path / "run", **{**SHORT, "steps": 1}, init_from=str(start.folder))
    assert "layers copied" in capsys.readouterr().err
    first = result.measurements[0]
    assert first.step == 0 and first.loss == pytest.approx(start.held_out.loss, rel=1e-5) and first.loss != first.base
    record = json.loads((result.folder / "run.json").read_text())
    assert record["init_from_digest"].startswith(start.adapter.digest)


def test_another_file_at_resume_is_another_course(train, start, tmp_path):
    other = shutil.copytree(start.folder / "adapter", tmp_path / "other")
    run = train(tmp_path / "run", **{**SHORT, "steps": 1}, init_from=str(other)).folder
    adapter = Adapter.load(other)
    half = {name: layer.to(torch.float16) for name, layer in adapter.weights.modules["unet"].items()}
    Adapter(LoraWeights({"unet": half}), adapter.facts).save(other)
    with pytest.raises(RunError, match="--allow init_from_digest"):
        train(run, existing="resume")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rank": 3}, "of rank 2, not 3"),
        ({"kind": "loha"}, "a lora, not a loha"),
        ({"targets": ("to_q",)}, "does not train"),
    ],
    ids=["rank", "kind", "targets"],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(train, start, tmp_path, changes, reason):
    with pytest.raises(SettingsError, match=reason):
        train(tmp_path / "new" / "run", **{**SHORT, "init_from": str(start.folder), **changes})
    assert not (tmp_path / "new").exists()


def test_another_base_is_refused_before_anything_is_written(train, start, tmp_path, make_tiny):
    make_tiny(width=24).save_pretrained(tmp_path / "wide")
    bare = shutil.copy(start.folder / "adapter" / "pytorch_lora_weights.safetensors", tmp_path / "bare.safetensors")
    for path in (start.folder, bare):
        with pytest.raises(AdapterError, match="another base"):
            train(tmp_path / "new" / "run", base=tmp_path / "wide", **SHORT, init_from=str(path))
        assert not (tmp_path / "new").exists()


def test_a_start_that_is_not_there_is_refused(train, tmp_path):
    for wrong in ("nothing", "nothing.safetensors", "nothing.ckpt"):
        with pytest.raises(AdaptError):
            train(tmp_path / "new" / "run", **SHORT, init_from=wrong)


def test_a_snapshot_is_a_start_too_and_another_rank_is_refactored_when_asked(train, start, tmp_path, capsys):
    snapshot = start.folder / "snapshots" / f"{checkpoint.name(start.chosen_step)}.safetensors"
    settings = {**SHORT, "steps": 1, "init_from": str(snapshot), "rank": 4, "init_resize": True}
    result = train(tmp_path / "run", **settings)
    assert "layers refactored" in capsys.readouterr().err
    assert result.measurements[0].loss == pytest.approx(start.held_out.loss, rel=1e-4)
