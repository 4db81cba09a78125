"""`adapt train` from the command line: what it says before, while and after."""

import json

import pytest

from adapt.cli.main import main
from adapt.config import TrainSettings
from adapt.config.table import ordered
from adapt.errors import Stopped

SETTINGS = ["batch_size=2", "rank=2", "validation=0.25", "validation_times=1", "previews=[a fox]", "sampling_steps=1",
            "guidance_scale=1", "validate_every=2", "save_every=2", "targets=[to_q]"]  # fmt: skip


@pytest.fixture
def words(pictures, tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return ["train", str(pictures), "--base", str(tiny_base), "--output", "runs/a", *SETTINGS]


def test_a_dry_run_says_everything_and_writes_nothing(words, tmp_path, capsys):
    (tmp_path / "settings.yaml").write_text("rank: 4\nlearning_rate: 0.001\nalpha: 8\n")
    assert main([*words, "--config", "settings.yaml", "--dry-run", "steps=30"]) == 0
    out, _ = capsys.readouterr()
    said = {line.split()[0]: line.split() for line in out.splitlines()}
    assert set(TrainSettings.model_fields) <= set(said)
    assert said["rank"] == ["rank", "2", "command", "line"]  # over the file's
    assert said["learning_rate"] == ["learning_rate", "0.001", "settings.yaml"]
    assert said["alpha"] == ["alpha", "8.0", "settings.yaml"]
    assert said["ema"][-1] == "default"
    assert said["resolution"] == ["resolution", "16", "the", "base"]
    assert " ".join(said["pictures"][1:]) == "9 to train on, 3 held out"
    assert said["steps"][1:3] == ["30", "of"]
    for word in ("time", "memory", "trains"):
        assert any(character.isdigit() for character in " ".join(said[word]))
    assert out.splitlines()[-1] == "nothing was trained or written"
    assert [p.name for p in tmp_path.iterdir()] == ["settings.yaml"]


def test_epochs_are_told_in_steps_with_their_origin(words, capsys):
    """9 pictures in batches of 2: 7 times each is 31.5 steps, rounded up."""
    assert main([*words, "--dry-run", "epochs=7", "optimizer=prodigy"]) == 0
    said = {line.split()[0]: line.split()[1:] for line in reversed(capsys.readouterr().out.splitlines())}
    assert said["steps"] == ["32", "7", "epochs"]
    assert said["epochs"] == ["7.0", "command", "line"]
    assert said["learning_rate"] == ["1.0", "prodigy"]
    assert main([*words, "--dry-run", "epochs=7", "steps=3"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_a_dry_run_as_json_is_one_object(words, tmp_path, capsys):
    assert main([*words, "--dry-run", "--json", "steps=30"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["steps"] == {"value": 30, "from": "command line"}
    assert told["settings"]["seed"] == {"value": 0, "from": "default"}
    assert set(told["settings"]) == set(TrainSettings.model_fields)
    forecast = told["forecast"]
    assert (forecast["pictures"], forecast["held_out"]) == (9, 3)
    assert forecast["step_seconds"] > 0 and forecast["memory_gib"] > 0.1
    assert forecast["total_seconds"] >= 30 * forecast["step_seconds"]
    assert list(tmp_path.iterdir()) == []


def test_a_run_prints_its_result_and_nothing_else_on_stdout(words, tmp_path, capsys):
    assert main([*words, "steps=3", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert out.count("\n") == 1
    assert told["steps"] == 3 and told["chosen_step"] in (2, 3) and told["proof"]["layers"] > 0
    assert told["held_out"]["pictures"] == 3
    assert (tmp_path / told["adapter"] / "pytorch_lora_weights.safetensors").is_file()
    assert "training 3/3" in err
    # A run that is there, on the same command line:
    assert main([*words, "steps=3", "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(err)["error"]
    assert out == "" and "--resume" in error["next"] and "--fresh" in error["next"]
    # Going on needs no settings: the run has its own.
    assert main([*words[:6], "--resume"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("adapter    runs/a/adapter (step ") and "held-out " in out and "proof " in out
    assert out.splitlines()[-1].startswith("next       adapt generate --adapter runs/a/adapter")
    assert "resuming at step 3" in err
    # Changes of course need their names; of the machine nothing has changed.
    assert main([*words[:6], "--resume", "rank=3"]) == 2
    assert "--allow rank" in capsys.readouterr().err


def test_the_settings_are_listed(capsys):
    assert main(["train", "--settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ordered() and set(ordered()) == set(TrainSettings.model_fields)
    assert all(len(line.split()) > 3 for line in lines)
    assert main(["train", "--settings", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["properties"]) == set(TrainSettings.model_fields)


def test_a_stopped_run_names_the_command_that_goes_on(words, monkeypatch, capsys):
    def stopped(*_, resume_command, **__):
        raise Stopped(15, "stopped after step 1 of 3; its checkpoint is saved", next=resume_command)

    monkeypatch.setattr("adapt.api.train.train", stopped)
    assert main([*words, "steps=3"]) == 143
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "stopped after step 1" in err
    again = err.split("Next: ")[1].split()
    assert again[:2] == ["adapt", "train"] and again[-1] == "--resume" and "runs/a" in again
