"""Resumed at every step of two epochs, a run goes on to the same bits: every later checkpoint and snapshot, tolerance 0.

There are no worker processes whose number could matter: what a step sees is a function of (seed, step, position).
"""

import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, content

import adapt
from adapt.api import train as api
from adapt.backbones import Backbone
from adapt.training import checkpoint

STEPS = 6
"""Two epochs of eight pictures in batches of three."""
SHAPES = ((16, 16), (24, 16), (16, 24), (32, 16), (20, 20), (24, 16), (60, 40), (16, 26))
LEARNED = {
    "denoiser": {},
    "text encoder": {"train_text_encoder": True, "text_encoder_rank": 3, "text_encoder_learning_rate": 5e-3,
                     "text_encoder_stop": 0.7},
    "new words": {"new_tokens": {"<me>": "picture"}, "trigger": "<me>", "new_token_learning_rate": 1e-2, "new_token_stop": 0.8},
}  # fmt: skip
"""What is trained besides LoRA in the denoiser, by name: settings."""
LENGTH = {"denoiser": {"epochs": 2}, "text encoder": {"steps": STEPS}, "new words": {"steps": STEPS}}
"""How long a run is: told in epochs in some cells, in steps in the others; it comes to the same."""
BUCKETS = {"buckets": True, "crop": "random", "colour": 0.5, "variants": 3}
GRID = [
    pytest.param(accumulation, ema, buckets, learned, id=f"{accumulation}-{ema}-{'buckets' if buckets else 'square'}-{learned}")
    for accumulation in (1, 3)
    for ema in (0.0, 0.9)
    for buckets in (False, True)
    for learned in LEARNED
]  # fmt: skip


@pytest.fixture(scope="module")
def shaped(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("shaped"), np.random.default_rng(4)
    for number, (width, height) in enumerate(SHAPES):
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}\nimage {number}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run_of(shaped, tiny_base):
    """`run_of(folder, existing, **settings)`: all steps of a run whose every checkpoint is kept, without what finishes it."""
    base = Backbone.load(str(tiny_base))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "load", staticmethod(lambda *_, **__: base))
        patch.setattr(checkpoint, "let_go", lambda *_: None)
        patch.setattr(api, "conclude", lambda trainer: trainer.course.injection.remove())

        def run(folder, existing="refuse", **changes):
            values = {**TINY, "batch_size": 3, "save_every": 1, "validation": None}
            del values["steps"]  # or epochs: the cell says
            settings = adapt.TrainSettings(**{**values, **changes})
            adapt.train(shaped, output=folder, base=str(tiny_base), settings=settings, existing=existing)
            return folder

        yield run


def cut_off(run, folder, step):
    """The run as it was after a step, with this one checkpoint."""
    folder.mkdir()
    shutil.copy(run / "run.json", folder)
    (folder / "checkpoints").mkdir()
    shutil.copytree(run / "checkpoints" / checkpoint.name(step), folder / "checkpoints" / checkpoint.name(step))
    return folder


def assert_same_from(run_of, tmp_path, steps, accumulation, ema, buckets, learned):
    changes = {
        "accumulation": accumulation,
        "ema": ema,
        **(BUCKETS if buckets else {}),
        **LEARNED[learned],
        **LENGTH[learned],
    }
    whole = run_of(tmp_path / "whole", **changes)
    states = content(whole, "checkpoints")
    assert len({states[f"checkpoints/{checkpoint.name(k)}/adapter.safetensors"] for k in range(1, STEPS + 1)}) == STEPS
    for step in steps:
        resumed = run_of(cut_off(whole, tmp_path / f"{step}", step), "resume", **changes)
        later = {name: data for name, data in states.items() if name >= f"checkpoints/{checkpoint.name(step)}"}
        assert content(resumed, "checkpoints") == later and len(later) == 5 * (STEPS + 1 - step)
        rest = f"snapshots/{checkpoint.name(step + 1)}"
        snapshots = {name: data for name, data in content(whole, "snapshots").items() if name >= rest}
        assert content(resumed, "snapshots") == snapshots and len(snapshots) == STEPS - step


@pytest.mark.parametrize(("accumulation", "ema", "buckets", "learned"), GRID[-len(LEARNED) :])
def test_resumed_at_two_steps(run_of, tmp_path, accumulation, ema, buckets, learned):
    """In the middle of the first epoch and at the beginning of the second."""
    assert_same_from(run_of, tmp_path, (2, 3), accumulation, ema, buckets, learned)


@pytest.mark.slow
@pytest.mark.parametrize(("accumulation", "ema", "buckets", "learned"), GRID)
def test_resumed_at_every_step(run_of, tmp_path, accumulation, ema, buckets, learned):
    assert_same_from(run_of, tmp_path, range(1, STEPS + 1), accumulation, ema, buckets, learned)
