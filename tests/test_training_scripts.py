"""`training_scripts/train_lora.py` is the same job as `adapt train`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapt.cli.main import main

SCRIPT = Path(__file__).parents[1] / "training_scripts" / "train_lora.py"
TINY = ["steps=3", "batch_size=4", "rank=2", "validation=0.25", "validation_times=2", "sampling_steps=1", "dropout=0.1",
        "flip=0.5", "previews=[one picture]", "save_every=2"]  # fmt: skip


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_it_is_short():
    assert len(SCRIPT.read_text("utf-8").splitlines()) <= 80


def test_script_and_command_write_the_same_adapter(script, tiny_base, pictures, tmp_path, capsys):
    common = ["--base", str(tiny_base), *TINY]
    assert main(["train", str(pictures), "--output", str(tmp_path / "command" / "run"), *common]) == 0
    capsys.readouterr()
    code, told, _ = script(pictures, "--output", tmp_path / "script" / "run", *common)
    assert code == 0
    theirs, ours = (contents(tmp_path / name / "run" / "adapter") for name in ("command", "script"))
    assert list(ours) == list(theirs)
    assert {"pytorch_lora_weights.safetensors", "adapter.json", "README.md", "samples/01.png"} <= set(ours)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert json.loads(told)["steps"] == 3


def test_the_command_goes_on_with_a_run_that_the_script_began(script, tiny_base, pictures, tmp_path, capsys):
    common = ["--base", str(tiny_base), *TINY]
    common += ["schedule=constant"]  # others depend on the number of steps, which changes here
    whole, parts = tmp_path / "whole" / "run", tmp_path / "parts" / "run"
    assert script(pictures, "--output", whole, *common, "steps=4")[0] == 0
    assert script(pictures, "--output", parts, *common, "steps=2")[0] == 0
    assert main(["train", str(pictures), "--output", str(parts), "--base", str(tiny_base),
                 "--resume", "--allow", "steps", "steps=4"]) == 0  # fmt: skip
    weights = Path("adapter", "pytorch_lora_weights.safetensors")
    last = Path("snapshots", "step-000004.safetensors")
    assert (parts / last).read_bytes() == (whole / last).read_bytes()
    assert (parts / weights).is_file() and "resuming at step 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rnak=4"], "did you mean rank?"),
        (["--base", "no-such-base"], "no such base"),
        (["--resume"], "there is no run to resume"),
        (["validation=2"], "validation"),
    ],
)
def test_errors_are_one_line_and_exit_2(script, tiny_base, pictures, tmp_path, words, told):
    output = tmp_path / "run"
    code, out, err = script(pictures, "--output", output, "--base", tiny_base, *words)
    assert (code, out) == (2, "")
    assert told in err and err.startswith("error: ") and err.count("\n") == 1
    assert not output.exists()


def test_a_run_that_is_there_is_refused(script, tiny_base, pictures, tmp_path):
    common = ["--base", tiny_base, *TINY, "steps=1"]
    assert script(pictures, "--output", tmp_path / "run", *common)[0] == 0
    before = contents(tmp_path / "run")
    code, _, err = script(pictures, "--output", tmp_path / "run", *common)
    assert code == 2 and "--resume" in err and "--fresh" in err
    assert contents(tmp_path / "run") == before


def accelerate(processes, *words):
    """`accelerate launch`, as a user calls it; several processes by its only launcher of them, on GPUs or not."""
    many = ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else ["--cpu"]
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes), *many]
    return subprocess.run(
        [*launcher, str(SCRIPT), *map(str, words)], check=True, env=environment, capture_output=True, text=True
    )


def test_accelerate_launch_writes_what_adapt_train_writes(tiny_base, pictures, tmp_path, capsys):
    words = [str(pictures), "--base", str(tiny_base), *TINY, "steps=2"]
    done = accelerate(1, *words, "--output", tmp_path / "launched" / "run")
    assert json.loads(done.stdout)["steps"] == 2 and "proving" in done.stderr
    assert main(["train", *words, "--output", str(tmp_path / "command" / "run")]) == 0
    capsys.readouterr()
    theirs, ours = (contents(tmp_path / name / "run" / "adapter") for name in ("command", "launched"))
    assert theirs and ours == theirs


@pytest.mark.slow
def test_accelerate_launches_two_processes_as_adapt_train_does(tiny_base, pictures, tmp_path):
    words = [str(pictures), "--base", str(tiny_base), *TINY]
    done = accelerate(2, *words, "--output", tmp_path / "launched" / "run")
    assert done.stdout.count("\n") == 1 and json.loads(done.stdout)["steps"] == 3  # one process speaks
    own = [sys.executable, "-m", "adapt", "train", *words, "--output", str(tmp_path / "command" / "run")]
    subprocess.run([*own, "--num-processes", "2"], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    theirs, ours = (contents(tmp_path / name / "run" / "adapter") for name in ("command", "launched"))
    assert theirs and ours == theirs
    for name in ("command", "launched"):
        record = json.loads((tmp_path / name / "run" / "run.json").read_text("utf-8"))
        assert record["machine"]["processes"] == 2


@pytest.mark.slow
def test_two_processes_are_one_run(tiny_base, pictures, tmp_path):
    """torchrun without a word to Accelerate: the processes join, and the weights are those of one process."""
    from safetensors.torch import load_file

    words = [str(pictures), "--base", str(tiny_base), *TINY]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}, "OMP_NUM_THREADS": "1"}
    found = {}
    for name, program in (("one", [sys.executable]), ("two", launch)):
        run = tmp_path / name / "run"
        subprocess.run([*program, str(SCRIPT), *words, "--output", str(run)], check=True, env=environment)
        found[name] = load_file(run / "adapter" / "pytorch_lora_weights.safetensors")
    assert json.loads((tmp_path / "two" / "run" / "run.json").read_text("utf-8"))["machine"]["processes"] == 2
    assert max(float((found["one"][k] - found["two"][k]).abs().max()) for k in found["one"]) < 1e-5
