"""What is asked of a run while it trains: done after the step, said in the events, removed; by file, signal and command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import TINY, content, ended, in_child, tiny

import adapt
from adapt.cli.main import main
from adapt.errors import RunError, SettingsError, Stopped
from adapt.training import checkpoint, events, folder, loop, requests
from adapt.training.requests import Requests, ask


def acting(acts):
    """`Trainer.take_step` that calls `acts[step](run)` while it takes that step."""
    take_step = loop.Trainer.take_step

    def instead(trainer):
        acts.get(trainer.step + 1, lambda run: None)(trainer.folder)
        return take_step(trainer)

    return instead


def told(run, kind):
    return [event for event in events.read(run) if event["event"] == kind]


def steps(run, kind):
    return [event["step"] for event in told(run, kind)]


MISSPELT = "smaple\nerror: all is lost"


def all_at_once(run):
    os.kill(os.getpid(), signal.SIGUSR2)
    for word in ("save", MISSPELT):
        (run / "requests" / word).touch()


@pytest.fixture(scope="module")
def asked(captioned, tiny_base, tmp_path_factory):
    """A run of six steps that is asked for something at steps 1, 3, 4 and 5, and what it said meanwhile. Due are a
    checkpoint at 2, 4, 6 and a measurement at 0, 3, 6."""
    import contextlib
    import io

    folder, said = tmp_path_factory.mktemp("asked") / "run", io.StringIO()
    acts = {
        1: lambda run: ask(run, "sample"),
        3: lambda run: os.kill(os.getpid(), signal.SIGUSR1),
        4: lambda run: ask(run, "measure"),
        5: all_at_once,
    }
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(loop.Trainer, "take_step", acting(acts))
        result = adapt.train(captioned, output=folder, base=str(tiny_base), settings=tiny())
    return result, said.getvalue()


# ---------------------------------------------------------------------------------------------- in a run
def test_requests_are_done_after_the_step_and_said(asked):
    run = asked[0].folder
    requests_told = [(e["step"], e["request"]) for e in told(run, "request")]
    assert requests_told == [(1, "sample"), (3, "save"), (4, "measure"), (5, "sample"), (5, "save")]
    assert steps(run, "preview") == [1, 5, 6]
    assert steps(run, "checkpoint") == [2, 3, 4, 5, 6]
    assert steps(run, "validation") == [0, 3, 4, 6]
    assert [len(list((run / "previews" / f"step-00000{step}").iterdir())) for step in (1, 5)] == [1, 1]


def test_what_is_measured_on_request_can_be_chosen(asked):
    assert [m.step for m in asked[0].measurements] == [0, 3, 4, 6]
    assert (asked[0].folder / "snapshots" / "step-000004.safetensors").is_file()


def test_requests_change_nothing_that_is_learned(asked, whole):
    assert asked[0].chosen_step == whole.chosen_step
    assert content(asked[0].folder, "adapter") == content(whole.folder, "adapter")


def test_requests_are_gone_afterwards_and_signals_as_before(asked):
    assert not (asked[0].folder / "requests").exists()
    assert signal.getsignal(signal.SIGUSR1) == signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_a_misspelt_request_is_answered_in_one_line(asked):
    assert "warning: no such request: 'smaple error: all is lost'; there are sample, save, measure, stop\n" in asked[1]
    assert "\nerror: all is lost" not in asked[1]


def test_stop_saves_and_can_be_gone_on_from(train, monkeypatch, tmp_path, whole):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "take_step", acting({3: lambda run: ask(run, "stop")}))
        with pytest.raises(Stopped) as stopped:
            train(run, steps=6)
    assert stopped.value.exit_code == 143 and "after step 3" in str(stopped.value)
    assert checkpoint.states(run)[-1].name == "step-000003" and not (run / "adapter").exists()
    assert steps(run, "stopped") == [3] and "stopped after step 3" in told(run, "stopped")[0]["reason"]
    (run / "requests").mkdir()
    (run / "requests" / "stop").touch()  # asked of the run that has ended, and not meant for the next
    train(run, existing="resume")
    assert content(run, "adapter") == content(whole.folder, "adapter")


# ---------------------------------------------------------------------------------------------- asking
def test_nothing_is_asked_of_a_run_that_does_not_train(finished, tmp_path):
    for place in (finished, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="nothing is training"):
            ask(place, "save")
    assert not (finished / "requests").exists() and not (tmp_path / "nowhere").exists()


def test_a_dead_run_does_not_train(finished, tmp_path):
    def hold():
        with folder.claimed(finished):
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(in_child(hold, tmp_path / "log")) == -signal.SIGKILL
    assert (finished / folder.LOCK).is_file() and not folder.is_training(finished)
    with pytest.raises(RunError, match="nothing is training"):
        ask(finished, "save")


def test_a_wrong_word_is_named_with_the_nearest(finished):
    with pytest.raises(SettingsError, match=r"no such request.*sample, save, measure, stop.*did you mean sample"):
        ask(finished, "sampel")


def test_the_command_asks(finished, capsys):
    with folder.claimed(finished):
        assert main(["ask", str(finished), "sample"]) == 0
        assert (finished / "requests" / "sample").is_file()
        assert "asked for sample" in capsys.readouterr().out
        assert main(["ask", str(finished), "dance"]) == 2
    assert main(["ask", str(finished), "sample"]) == 2
    assert "nothing is training" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- parts
def test_each_request_is_taken_once(tmp_path):
    with Requests(tmp_path) as heard:
        (tmp_path / "requests" / "save").touch()
        assert heard.taken() == {"save"} and heard.taken() == set()
        (tmp_path / "requests" / "save").touch()
        assert heard.taken() == {"save"}


def test_a_request_that_cannot_be_removed_is_not_done_for_ever(tmp_path, capsys):
    with Requests(tmp_path) as heard:
        (tmp_path / "requests" / "save").mkdir()
        assert heard.taken() == heard.taken() == set()
    assert capsys.readouterr().err.count("cannot be removed") == 1


def test_processes_other_than_the_first_read_no_files(tmp_path):
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "save").touch()
    with Requests(None) as heard:
        assert heard.taken() == set()
    assert (tmp_path / "requests" / "save").is_file()


def test_all_processes_agree():
    """What any of them heard; each gathers the same table."""
    import torch

    from adapt.training.validation import agreed

    class Two:
        num_processes, device = 2, torch.device("cpu")

        def gather(self, mine):
            return torch.cat([mine, torch.tensor([[0, 1, 0, 0]])])

    assert agreed(Two(), {"stop"}) == {"stop", "save"}
    assert requests.WORDS.index("save") == 1


@pytest.mark.slow
def test_two_processes_stop_together(captioned, tiny_base, tmp_path):
    """Asked by a file, which only the first process reads: both end after the same step, with one checkpoint."""
    run, script = tmp_path / "run", Path(adapt.__file__).parents[1] / "training_scripts" / "train_lora.py"
    words = [f"{name}={json.dumps(value)}" for name, value in {**TINY, "steps": 5000, "batch_size": 4}.items()]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = [str(captioned), "--base", str(tiny_base), "--output", str(run), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*launch, *arguments], stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 600
        while not ((run / "events.jsonl").is_file() and 3 in steps(run, "step")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        ask(run, "stop")
        _, err = process.communicate(timeout=300)
    assert process.returncode != 0 and err.count("its checkpoint is saved") == 2
    (last,) = steps(run, "stopped")
    assert steps(run, "request") == [last] == steps(run, "checkpoint")[-1:]
    assert checkpoint.newest(run).step == last == steps(run, "step")[-1]
