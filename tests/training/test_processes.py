"""1 process × batch 8 = 2 processes × batch 4 = accumulation 8 × 1: the same draws to the bit, the same weights."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from shares import STEPS, record, settings

import adapt
from adapt.formats import read_lora

SHARES = Path(__file__).with_name("shares.py")


@pytest.fixture(scope="module")
def base(tiny_base, tmp_path_factory):
    """The tiny base with v prediction. The gradient of its epsilon prediction nearly cancels over a batch of random noise:
    what float32 leaves of it is 1.1e-6 to 1.4e-6 from float64's in one process alone."""
    folder = shutil.copytree(tiny_base, tmp_path_factory.mktemp("velocity") / "base")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "v_prediction"}))
    return folder


def processes(number, folder, *words):
    """Runs `shares.py` in so many real processes; returns the folder that they wrote."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    done = subprocess.run(
        [*torchrun, SHARES, folder, *words], capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def two(captioned, base, tmp_path_factory):
    """The folder that two real processes wrote."""
    return processes(2, tmp_path_factory.mktemp("two"), base, captioned)


@pytest.fixture(scope="module")
def recorded(two, captioned, base):
    """`recorded(dtype)`: by one process, by its accumulation, by each of two processes."""

    @cache
    def load(dtype):
        name = str(dtype).removeprefix("torch.")
        one, pieces = (record(base, captioned, dtype, accumulation=n) for n in (1, 8))
        return one, pieces, [torch.load(two / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]

    return load


def assert_same_rows(expected, *shares):
    """Each row was drawn in exactly one share, with the same bits."""
    assert sorted(expected) == sorted(key for share in shares for key in share)
    assert [key for share in shares for key, x in share.items() if not torch.equal(x, expected[key])] == []


def test_rows_and_weights_of_a_float64_model(recorded):
    one, pieces, processes = recorded(torch.float64)
    drawn = {what for what, _, _ in one["rows"]}
    assert {"item", "dropped", "x", "noise", "t", "tokens", "mask 0", "mask 1"} <= drawn
    assert {(step, position) for _, step, position in one["rows"]} == {(s, p) for s in range(STEPS) for p in range(8)}
    assert_same_rows(one["rows"], pieces["rows"])
    assert_same_rows(one["rows"], *(p["rows"] for p in processes))
    assert any(bool(x) for (what, _, _), x in one["rows"].items() if what == "dropped")
    for other in (pieces, *processes):
        for name, weight in one["weights"].items():
            assert weight.dtype == torch.float64
            assert float((weight - other["weights"][name]).abs().max()) <= 1e-9
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-12)
    moved = max(float(w.abs().max()) for name, w in one["weights"].items() if ".lora_B." in name)
    assert moved > 1e-3  # B begins at 0: something was learned


def test_first_gradient_in_float32(recorded):
    one, pieces, processes = recorded(torch.float32)
    assert_same_rows(one["rows"], *(p["rows"] for p in processes))
    exact, expected = (flat(found) for found in (recorded(torch.float64)[0], one))
    assert expected.norm() > 0
    for other in map(flat, (pieces, *processes)):
        assert float((other - expected).norm() / expected.norm()) <= 1e-6
        assert (other - exact).norm() <= 2 * (
            expected - exact
        ).norm()  # rounding, and no more of it than in one process


def flat(found):
    return torch.cat([g.flatten() for g in found["gradient"]]).double()


def test_two_processes_train_one_adapter(two, captioned, base, tmp_path):
    one = adapt.train(captioned, output=tmp_path / "run", base=str(base), settings=settings(steps=6))
    run = two / "run" / "run"
    assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in one.folder.iterdir())
    other = read_lora(run / "adapter" / "pytorch_lora_weights.safetensors")
    for component, pairs in one.adapter.weights.modules.items():
        for name, pair in pairs.items():
            twin = other.modules[component][name]
            torch.testing.assert_close(twin.down, pair.down, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(twin.up, pair.up, rtol=1e-3, atol=1e-4)
    assert (run / "events.jsonl").read_text().count('"finished"') == 1
    assert (run / "events.jsonl").read_text().count('{"event": "step"') == 6


@pytest.mark.slow
@pytest.mark.parametrize(("number", "accumulation"), [(4, 1), (2, 2), (4, 2)])
def test_any_number_of_processes_and_pieces(number, accumulation, captioned, base, tmp_path):
    """The same draws to the bit and the same fp64 weights, in four processes and in pieces of their shares."""
    folder = processes(number, tmp_path, base, captioned, str(accumulation))
    shares = [torch.load(folder / f"float64-{rank}.pt", weights_only=True) for rank in range(number)]
    one = record(base, captioned, torch.float64)
    assert_same_rows(one["rows"], *(share["rows"] for share in shares))
    for share in shares:
        assert share["losses"] == pytest.approx(one["losses"], rel=1e-12)
        for name, weight in one["weights"].items():
            assert float((weight - share["weights"][name]).abs().max()) <= 1e-9


@pytest.mark.slow
def test_text_encoders_and_new_words_learn_the_same_in_two_processes(captioned, base, tmp_path):
    """Their gradients are not those of the wrapped denoiser: they are brought together by hand."""
    changes = {"train_text_encoder": True, "new_tokens": {"<me>": "c"}, "trigger": "<me>", "init": "eva", "ema": 0.0}
    folder = processes(2, tmp_path, base, captioned, "1", json.dumps(changes))
    shares = [torch.load(folder / f"float64-{rank}.pt", weights_only=True) for rank in range(2)]
    one = record(base, captioned, torch.float64, **changes)
    assert {name.partition(":")[0] for name in one["weights"] if ":" in name} == {"text_encoder", "words"}
    for share in shares:
        for name, weight in one["weights"].items():
            assert float((weight - share["weights"][name]).abs().max()) <= 1e-9, name
    assert sorted((folder / "run" / "run" / "adapter" / "embeddings").iterdir())
