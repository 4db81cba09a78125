"""A run that goes on is the run that was never interrupted; a run that cannot go on says why."""

import json
import os
import shutil
import signal

import pytest
from tiny_runs import RESULTS, content

from adapt import files
from adapt.api import train as api
from adapt.config import TrainSettings
from adapt.errors import AdaptError, RunError, SettingsError, Stopped
from adapt.training import checkpoint, events, loop


@pytest.fixture
def stop_at(monkeypatch):
    """`stop_at(step, signal)`: the process is sent a signal while it takes that step."""
    take_step = loop.Trainer.take_step

    def arrange(step, number):
        def with_signal(trainer):
            if trainer.step == step - 1:
                os.kill(os.getpid(), number)
            return take_step(trainer)

        monkeypatch.setattr(loop.Trainer, "take_step", with_signal)

    return arrange


def steps(run):
    return [event["step"] for event in events.read(run) if event["event"] == "step"]


# ---------------------------------------------------------------------------------------------- going on
def test_stopped_between_checkpoints_and_resumed_twice(whole, train, stop_at, tmp_path):
    """SIGTERM at step 1, SIGINT at step 3, SIGTERM at step 4 (a checkpoint step): each saves, and nothing is lost."""
    run = tmp_path / "run"
    for step, number, existing in (
        (1, signal.SIGTERM, "refuse"),
        (3, signal.SIGINT, "auto"),
        (4, signal.SIGTERM, "resume"),
    ):
        stop_at(step, number)
        with pytest.raises(Stopped) as stopped:
            train(run, existing=existing, **({} if existing == "resume" else {"steps": 6}))
        assert stopped.value.exit_code == 128 + number
        assert f"step {step} of 6" in str(stopped.value)
        assert checkpoint.states(run)[-1].name == checkpoint.name(step)
        assert not (run / "adapter").exists()
    stop_at(99, 0)
    result = train(run, existing="resume")
    assert steps(run) == [1, 2, 3, 4, 5, 6]  # no step twice, none left out
    assert content(run, "adapter") == content(whole.folder, "adapter")
    found, expected = content(run, "snapshots", "checkpoints/step-000006"), content(whole.folder)
    assert [name for name in found if found[name] != expected[name]] == []
    assert result.chosen_step == whole.chosen_step and result.measurements == whole.measurements


def test_a_checkpoint_is_resumed_to_the_same_bytes(whole, cut, train, capsys):
    train(cut, existing="resume")
    assert content(cut, *RESULTS) == content(whole.folder, *RESULTS)
    assert "resuming at step 4" in capsys.readouterr().err


def test_a_finished_run_gives_the_same_bytes_again(whole, finished, train):
    train(finished, existing="resume")
    assert content(finished, *RESULTS) == content(whole.folder, *RESULTS)


def test_the_same_seed_is_the_same_bytes_and_another_is_not(whole, train, tmp_path):
    same = train(tmp_path / "same" / "run")
    assert content(same.folder, *RESULTS) == content(whole.folder, *RESULTS)
    assert content(train(tmp_path / "other" / "run", seed=4).folder, "adapter") != content(whole.folder, "adapter")


def test_killed_before_the_first_checkpoint(whole, train, tmp_path, monkeypatch, capsys):
    """Then the run is all there is: it starts again at step 0 and says so."""
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(whole.folder / "run.json", run)
    result = train(run, existing="resume")
    assert "stopped before its first checkpoint" in capsys.readouterr().err
    assert content(result.folder, *RESULTS) == content(whole.folder, *RESULTS)


def test_events_are_only_appended_to(cut, train):
    before = (cut / "events.jsonl").read_bytes()
    (cut / "events.jsonl").write_bytes(before + b'{"event": "step", "st')
    train(cut, existing="resume")
    after = (cut / "events.jsonl").read_bytes()
    assert after.startswith(before + b'{"event": "step", "st\n')
    assert [e["event"] for e in events.read(cut)][-1] == "finished"
    assert json.loads(after.splitlines()[-1])["event"] == "finished"


# ---------------------------------------------------------------------------------------------- what has changed
def test_a_change_of_course_needs_its_name(cut, train, capsys):
    before = content(cut)
    with pytest.raises(RunError, match="alter the course") as refused:
        train(cut, existing="resume", rank=2, learning_rate=1e-3, weight_decay=0.0)
    assert "learning_rate 0.01 → 0.001" in str(refused.value)
    assert "--allow learning_rate --allow weight_decay" in refused.value.next
    assert content(cut) == before
    with pytest.raises(RunError, match="--allow weight_decay"):
        train(cut, existing="resume", learning_rate=1e-3, weight_decay=0.0, allow=["learning_rate"])
    train(cut, existing="resume", learning_rate=1e-3, save_every=5, allow=["learning_rate"])
    err = capsys.readouterr().err
    assert "changed since the run began: learning_rate 0.01 → 0.001" in err
    assert "changed since the run began: save_every 2 → 5" in err


def test_a_harmless_change_is_listed_and_changes_no_byte(whole, cut, train, capsys):
    train(cut, existing="resume", save_every=100)
    assert "changed since the run began: save_every 2 → 100" in capsys.readouterr().err
    name = "adapter/pytorch_lora_weights.safetensors"
    assert content(cut, "adapter")[name] == content(whole.folder, "adapter")[name]


@pytest.mark.parametrize("what", ["caption", "picture"])
def test_changed_data_is_refused(cut, train, captioned, tmp_path, what):
    data = shutil.copytree(captioned, tmp_path / "data")
    if what == "caption":
        (data / "03.txt").write_text("something else", encoding="utf-8")
    else:
        shutil.copy(data / "01.png", data / "00.png")
    before = content(cut)
    with pytest.raises(RunError, match="--allow data"):
        train(cut, data=data, existing="resume")
    assert content(cut) == before


def test_a_changed_base_is_refused(cut, train, tiny_base, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    base = shutil.copytree(tiny_base, tmp_path / "base")
    weights = next((base / "unet").glob("*.safetensors"))
    save_file({n: x + torch.ones(()) / 64 for n, x in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(RunError, match="--allow base"):
        train(cut, base=base, existing="resume")


# ---------------------------------------------------------------------------------------------- damage
def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


HARM = [flip, truncate, lambda path: path.unlink()]
FILES = ("adapter.safetensors", "average.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", HARM, ids=["flipped", "truncated", "missing"])
def test_a_damaged_checkpoint_is_named_and_an_older_one_used(finished, harm, name, capsys):
    harm(finished / "checkpoints" / "step-000006" / name)
    assert checkpoint.newest(finished).step == 4
    said = capsys.readouterr().err
    assert "step-000006 is damaged" in said
    assert name in said or (name == "manifest.json" and "is not what was written" in said)


@pytest.mark.parametrize("name", FILES)
def test_every_flip_and_cut_is_noticed(finished, name, capsys):
    """Sixteen bits and twelve lengths of each file, spread from its first byte to its last."""
    newest = finished / "checkpoints" / "step-000006"
    path, tried = newest / name, 0
    whole = path.read_bytes()
    for k in range(16):
        data = bytearray(whole)
        data[k * (len(whole) - 1) // 15] ^= 1 << k % 8
        path.write_bytes(data)
        assert files.damage(newest) is not None, (name, k)
        tried += 1
    for k in range(12):
        path.write_bytes(whole[: k * (len(whole) - 1) // 11])
        assert files.damage(newest) is not None, (name, k)
        tried += 1
    assert tried >= 20 and checkpoint.newest(finished).step == 4
    said = capsys.readouterr().err
    assert f"step-000006 is damaged ({name}" in said and "using an older one" in said
    path.write_bytes(whole)
    assert files.damage(newest) is None


def test_a_run_with_a_damaged_checkpoint_ends_with_the_same_bytes(whole, finished, train):
    flip(finished / "checkpoints" / "step-000006" / "optimizer.safetensors")
    train(finished, existing="resume")
    assert content(finished, *RESULTS) == content(whole.folder, *RESULTS)


def test_a_damaged_later_checkpoint_never_drives_out_a_whole_one(finished):
    """Saves at steps before the damaged ones delete nothing that is needed."""
    four, six = (finished / "checkpoints" / checkpoint.name(step) for step in (4, 6))
    state = checkpoint.load(four)
    flip(six / "state.json")
    shutil.copytree(six, six.with_name("step-000007"))
    shutil.rmtree(four)
    for state.step in (1, 2, 3):
        checkpoint.save(finished, state)
        assert checkpoint.newest(finished).step == state.step


def test_checkpoints_are_ordered_by_number(cut):
    state = checkpoint.load(cut / "checkpoints" / "step-000004")
    for state.step in (999_999, 1_000_000):
        checkpoint.save(cut, state)
    assert checkpoint.newest(cut).step == 1_000_000


@pytest.mark.parametrize("lost", ["damaged", "deleted"])
def test_without_a_whole_checkpoint_nothing_starts_at_step_0(cut, train, lost):
    for folder in checkpoint.states(cut):
        truncate(folder / "adapter.safetensors") if lost == "damaged" else shutil.rmtree(folder)
    before = content(cut)
    with pytest.raises(RunError, match="no whole checkpoint"):
        train(cut, existing="resume")
    assert content(cut) == before


def test_settings_are_judged_against_the_base_before_anything_is_written(train, tmp_path):
    for wrong in ({"targets": ("nowhere",)}, {"resolution": 17}):
        with pytest.raises(SettingsError):
            train(tmp_path / "a" / "run", **wrong)
        assert list(tmp_path.iterdir()) == []


def test_a_run_of_other_settings_files(finished):
    """`run.json` that another version wrote is an error with a way out, not a traceback."""
    record = json.loads((finished / "run.json").read_text())
    (finished / "run.json").write_text(json.dumps({**record, "settings": {"rnk": 3}}))
    with pytest.raises(AdaptError):
        api.train("nowhere", output=finished, existing="resume")
    (finished / "run.json").write_text("[]")
    with pytest.raises(RunError, match="--fresh"):
        api.train("nowhere", output=finished, existing="resume")
    assert TrainSettings()


def test_a_resumed_run_keeps_its_base(tiny_base, pictures, tmp_path):
    """Neither settings nor base need to be said again."""
    run = tmp_path / "run"
    first = api.train(pictures, output=run, base=str(tiny_base), settings=TrainSettings(steps=1, sampling_steps=1))
    again = api.train(pictures, output=run, existing="resume")
    assert again.adapter.digest == first.adapter.digest
