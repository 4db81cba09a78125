"""SIGKILL at any moment, also inside a save: the same command again ends with the same bytes.

The children are forked after the imports, so that a start costs milliseconds; a few kills of the real command follow.
"""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time

import pytest
from tiny_runs import RESULTS, TINY, content, ended

from adapt import files

STEPS, SEED = 6, 20


def torn(folder):
    """Names of what a kill left half written."""
    return [p.name for p in folder.rglob(f"{files.TEMPORARY}*") if files.OLD not in p.name]


def assert_killed_or_done(code, log):
    assert code in (0, -signal.SIGKILL), log.read_text()


@pytest.mark.parametrize("number", [30, pytest.param(220, marks=pytest.mark.slow)])
def test_kills_change_no_byte(start, train, tmp_path, number):
    expected = content(train(tmp_path / "reference" / "run", steps=STEPS).folder, *RESULTS)
    began = time.monotonic()
    assert ended(start(tmp_path / "alone" / "run", steps=STEPS)) == 0, (tmp_path / "log").read_text()
    alone = time.monotonic() - began
    assert content(tmp_path / "alone" / "run", *RESULTS) == expected
    assert "adapter/pytorch_lora_weights.safetensors" in expected and "adapter/adapter.json" in expected

    dice, kills, inside, half_written, runs = random.Random(SEED), 0, 0, 0, 0
    while kills < number:
        folder = tmp_path / f"{runs}" / "run"
        for _ in range(100):
            in_save = bool(dice.getrandbits(1)) and kills < number
            child = start(folder, die=dice.randint(1, 40) if in_save else 0, steps=STEPS)
            if not in_save and kills < number:
                time.sleep(dice.uniform(0.1, 0.6) * alone)
                os.kill(child, signal.SIGKILL)
            code = ended(child)
            assert_killed_or_done(code, tmp_path / "log")
            if code == 0:
                break
            kills += 1
            inside += in_save
            half_written += bool(torn(folder))
        else:
            raise AssertionError(f"run {runs} never ended: {(tmp_path / 'log').read_text()}")
        runs += 1
        found = content(folder, *RESULTS)
        assert found.keys() == expected.keys()
        assert [name for name in expected if found[name] != expected[name]] == []
        assert torn(folder) == []
    print(
        f"seed {SEED}: {kills} kills, {inside} inside a save, {half_written} left something half written, {runs} runs"
    )
    assert inside >= 0.2 * kills and half_written >= 0.1 * kills


def losses_of_steps(folder):
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if line.startswith('{"event": "step"')]


def command(captioned, tiny_base, folder, *more):
    settings = {**TINY, "steps": 8}
    words = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    arguments = ["train", captioned, "--base", tiny_base, "--output", folder, "--json", *words, *more]
    code = "import torch; torch.set_num_threads(1); from adapt.cli.main import run; run()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(folder, step):
    """Until the run has taken a step."""
    deadline = time.monotonic() + 120
    while not ((folder / "events.jsonl").is_file() and step in losses_of_steps(folder)):
        assert time.monotonic() < deadline, "the run does not begin"
        time.sleep(0.02)


def test_the_command_is_killed_and_goes_on(captioned, tiny_base, tmp_path, train):
    """One kill of the real command; `--resume` ends with the bytes of a run in this process that nobody killed."""
    expected = content(train(tmp_path / "reference" / "run", steps=8).folder, *RESULTS)
    folder = tmp_path / "run"
    first = command(captioned, tiny_base, folder)
    wait_for(folder, 5)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (folder / "adapter").exists()
    second = command(captioned, tiny_base, folder, "--resume")
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert json.loads(out)["steps"] == 8
    assert "resuming at step" in err and "resuming at step 0" not in err
    assert content(folder, *RESULTS) == expected


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_stops_and_names_the_command_that_goes_on(captioned, tiny_base, tmp_path, number, train):
    expected = content(train(tmp_path / "reference" / "run", steps=8).folder, *RESULTS)
    folder = tmp_path / "run"
    first = command(captioned, tiny_base, folder)
    wait_for(folder, 3)
    first.send_signal(number)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 128 + number
    error = json.loads(err.splitlines()[-1])["error"]
    again = shlex.split(error["next"])
    assert again[:2] == ["adapt", "train"] and "--resume" in again
    code = "from adapt.cli.main import run; run()"
    second = subprocess.run([sys.executable, "-c", code, *again[1:]], capture_output=True, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert second.returncode == 0, second.stderr
    found = content(folder, "adapter")
    assert found == {name: data for name, data in expected.items() if name in found}


@pytest.mark.slow
def test_three_more_kills_of_the_command(captioned, tiny_base, tmp_path, train):
    expected = content(train(tmp_path / "reference" / "run", steps=8).folder, *RESULTS)
    folder, more = tmp_path / "run", ()
    for step in (2, 4, 6):
        run = command(captioned, tiny_base, folder, *more)
        wait_for(folder, step)
        run.kill()
        run.communicate()
        more = ("--resume",)
    run = command(captioned, tiny_base, folder, *more)
    assert run.communicate(timeout=120) and run.returncode == 0
    assert content(folder, *RESULTS) == expected
