"""`--dry-run` forecasts what a run then takes, and says so of its highest memory, not of what is left after the steps."""

import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import adapt
from adapt.api import fit
from adapt.api.forecast import forecast
from adapt.api.gather import gather
from adapt.api.machine import make_accelerator
from adapt.api.memory import forget_peak, highest
from adapt.config import TrainSettings
from adapt.sampling.request import Request

CPU = torch.device("cpu")
MIB = 2**20
MMAP_THRESHOLD = -3
"""A parameter of glibc's `mallopt`."""
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel says how much memory was held at most"
)
WIDE = {
    "batch_size": 12,
    "resolution": 128,
    "rank": 2,
    "steps": 1,
    "validation": 0.0,
    "previews": ("a",),
    "sampling_steps": 1,
}
"""Steps on the tiny base that hold some hundred MiB."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (128, 128, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")
    return folder


def resident():
    """MiB."""
    return psutil.Process().memory_info().rss / MIB


def of_its_own(work, told):
    """`work(settings)` in a process of its own, after it was done once with little: what it returns, and by how much the process
    grew at most, MiB."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, MIB // 8)  # what is let go goes back at once
            work(TrainSettings(**{**WIDE, "batch_size": 1, "resolution": 16}), "little")
            gc.collect()
            forget_peak(CPU)
            before = resident()
            found = work(TrainSettings(**WIDE), "wide")
            figures = {"found": found and found * 1024 - before, "left": resident() - before}
            told.write_text(json.dumps({**figures, "most": highest(CPU) * 1024 - before}))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(told.read_text())


@linux
def test_the_most_is_what_was_held_at_once_and_can_be_forgotten():
    forget_peak(CPU)
    before = highest(CPU)
    held = torch.ones(64 * MIB // 4)
    del held
    assert highest(CPU) - before > 0.9 * 64 / 1024
    forget_peak(CPU)
    assert highest(CPU) - before < 0.5 * 64 / 1024


@linux
def test_memory_is_forecast_to_a_fifth(data, tiny_base, tmp_path):
    """In a process that has done nothing before: what a long one has let go is taken again without growing."""
    subprocess.run([sys.executable, __file__, data, tiny_base, tmp_path], check=True, timeout=240)
    told, run = (json.loads((tmp_path / name).read_text()) for name in ("told", "real"))
    assert told["left"] < 0.5 * run["most"] > 50, "what steps hold is gone after them"
    assert told["found"] == pytest.approx(run["most"], rel=0.2)


def measure(data, base, folder):
    """Of a forecast and of a run, as files `told` and `real`."""

    def expected(settings, name):
        return forecast(base, gather(data, settings), settings)[1].memory_gib

    def real(settings, name):
        adapt.train(data, output=folder / name, base=base, settings=settings)

    of_its_own(expected, folder / "told")
    of_its_own(real, folder / "real")


def test_previews_are_counted(data, tiny_base):
    """Large ones hold more than a step on small pictures, and fewer are drawn at once where a step has fewer rows."""
    common = {**WIDE, "resolution": 16, "batch_size": 4, "memory": "fit", "memory_limit": 1e-9}
    gib = {}
    for side in (16, 96):
        settings = TrainSettings(**{**common, "previews": ("a", "b", "c", "d")})
        pictures, accelerator = gather(data, settings), make_accelerator(settings)
        asked = [Request(prompt=prompt, width=side, height=side) for prompt in "abcd"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fit, "previewed", lambda *_, asked=asked: asked)
            found = fit._trials(str(tiny_base), settings, {}, pictures, accelerator, 1e-9)
        gib[side] = [trial.gib for trial in found if "gradient_checkpointing" not in trial.changes]
    assert len(gib[16]) == len(gib[96]) == 3, "4 rows at once, 2, 1"
    assert all(large > 1.5 * small for large, small in zip(gib[96], gib[16], strict=True))
    assert gib[96][0] > 1.5 * gib[96][1] > 2 * gib[96][2]


if __name__ == "__main__":
    measure(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
