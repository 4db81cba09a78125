"""SIGTERM and SIGINT at any moment of the steps: the step is finished, its checkpoint is saved, and going on gives the bytes of
a run that nobody stopped."""

import os
import random
import signal
import time

import pytest
from tiny_runs import RESULTS, content, ended

from adapt.training import checkpoint, events

STEPS = 24


def steps_of(run):
    return [e["step"] for e in events.read(run) if e["event"] == "step"] if (run / events.NAME).is_file() else []


def until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "the run does not begin"
        time.sleep(0.002)


@pytest.mark.parametrize("number", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_every_signal_stops_after_the_step_and_nothing_is_lost(start, train, tmp_path, number):
    changes = {"steps": STEPS, "save_every": 7, "validate_every": 5}
    expected = content(train(tmp_path / "reference" / "run", **changes).folder, *RESULTS)
    dice, stopped, runs = random.Random(7), 0, 0
    while stopped < number:
        run = tmp_path / f"{runs}" / "run"
        while True:
            before = len(steps_of(run))
            child, asked = start(run, **changes), dice.choice((signal.SIGTERM, signal.SIGINT))
            if stopped < number and before < STEPS - 4:
                until(lambda run=run, before=before: len(steps_of(run)) > before)
                time.sleep(dice.uniform(0, 0.05))
                seen = len(steps_of(run))
                os.kill(child, asked)
            code = ended(child)
            if code == 0:
                break
            assert code == 128 + asked, (tmp_path / "log").read_text()
            stopped += 1
            taken = steps_of(run)
            assert taken == list(range(1, len(taken) + 1))  # none twice, none left out
            assert len(taken) <= seen + 2  # the step that it was at, and one whose line was not yet written
            assert checkpoint.newest(run).step == taken[-1]
        runs += 1
        found = content(run, "adapter", "snapshots")
        assert found == {name: data for name, data in expected.items() if not name.startswith("checkpoints")}
        assert steps_of(run) == list(range(1, STEPS + 1))
        last = f"checkpoints/{checkpoint.name(STEPS)}"
        assert content(run, last) == {name: data for name, data in expected.items() if name.startswith(last)}
    print(f"{stopped} of {number} signals stopped after the step; {runs} runs")
