"""Runs over pictures of several shapes: cut into batches of one size, resumed and shared out exactly, with masks and variants."""

import signal

import numpy as np
import pytest
import torch
from PIL import Image
from shares import record
from tiny_runs import content, tiny

from adapt.api.forecast import forecast
from adapt.api.gather import gather
from adapt.errors import SettingsError, Stopped
from adapt.training import loop

SHAPES = ((16, 16), (24, 16), (16, 24), (32, 16), (20, 20), (24, 16), (60, 40), (16, 26))
MIXED = {"buckets": True, "crop": "random", "colour": 0.5, "variants": 3, "flip": 0.5, "resolutions": (16, 24)}


@pytest.fixture(scope="module")
def shaped(tmp_path_factory):
    """Eight pictures of several aspects with captions; one is never mirrored."""
    folder, random = tmp_path_factory.mktemp("shaped"), np.random.default_rng(4)
    for number, (width, height) in enumerate(SHAPES):
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("looking left" if number == 3 else f"picture {number}", encoding="utf-8")
    return folder


@pytest.fixture
def batches(monkeypatch):
    """Shapes of the latents of each piece that was trained on."""
    seen, step = [], loop.row_losses.__globals__
    noises = step["noises"]
    monkeypatch.setitem(
        step, "noises", lambda course, rows, x: (seen.append(tuple(x.shape)), noises(course, rows, x))[1]
    )
    return seen


def weights(base, data, **changes):
    """LoRA weights after a few steps, without what surrounds a run."""
    return record(base, data, torch.float32, **{"batch_size": 2, "validation": None, **changes})["weights"]


def equal(first, second):
    return all(w.equal(second[name]) for name, w in first.items())


def test_batches_have_one_size_each_and_several_sizes_come(shaped, tiny_base, batches, monkeypatch):
    monkeypatch.setattr("shares.STEPS", 14)
    found = weights(tiny_base, shaped, **MIXED)
    assert len(batches) == 14 and {shape[:2] for shape in batches} == {(2, 4)}
    sizes = {shape[2:] for shape in batches}
    assert len(sizes) >= 4 and any(height != width for height, width in sizes)
    assert all(height * width <= 12 * 12 for height, width in sizes)
    assert all(bool(w.isfinite().all()) for w in found.values())


def test_a_bucketed_run_that_was_stopped_is_the_run_that_was_not(train, shaped, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole" / "run", data=shaped, **MIXED)
    take_step = loop.Trainer.take_step

    def stopping(trainer):
        if trainer.step == 3:
            signal.raise_signal(signal.SIGTERM)
        return take_step(trainer)

    monkeypatch.setattr(loop.Trainer, "take_step", stopping)
    with pytest.raises(Stopped):
        train(tmp_path / "cut" / "run", data=shaped, **MIXED)
    monkeypatch.setattr(loop.Trainer, "take_step", take_step)
    resumed = train(tmp_path / "cut" / "run", data=shaped, existing="resume")
    assert content(resumed.folder, "adapter") == content(whole.folder, "adapter")
    assert content(resumed.folder, "snapshots") == content(whole.folder, "snapshots")


def test_how_a_batch_is_cut_changes_nothing_but_rounding(shaped, tiny_base):
    whole = record(tiny_base, shaped, torch.float64, **MIXED, batch_size=4, accumulation=1)
    pieces = record(tiny_base, shaped, torch.float64, **MIXED, batch_size=4, accumulation=4)
    assert whole["rows"].keys() == pieces["rows"].keys()
    assert all(torch.equal(value, pieces["rows"][key]) for key, value in whole["rows"].items())
    assert max(float((w - pieces["weights"][n]).abs().max()) for n, w in whole["weights"].items()) <= 1e-9


def test_a_square_set_is_trained_as_without_buckets(captioned, tiny_base):
    """Buckets of square pictures are one bucket: the same bits."""
    assert equal(weights(tiny_base, captioned), weights(tiny_base, captioned, buckets=True))


@pytest.fixture(scope="module")
def with_masks(shaped, tmp_path_factory):
    """The same pictures with masks; `white` ones leave nothing out."""

    def make(white):
        folder = tmp_path_factory.mktemp("masks")
        for number, (width, height) in enumerate(SHAPES):
            for suffix in ("png", "txt"):
                (folder / f"{number}.{suffix}").write_bytes((shaped / f"{number}.{suffix}").read_bytes())
            mask = np.full((height, width), 255, np.uint8)
            mask[:, : 0 if white else width // 2] = 0
            if number % 2 == 0:  # the others count everywhere
                Image.fromarray(mask).save(folder / f"{number}-masklabel.png")
        return folder

    return make


def test_white_masks_change_no_bit_and_others_do(tiny_base, shaped, with_masks):
    settings = {"buckets": True, "crop": "random", "variants": 2}
    plain = weights(tiny_base, shaped, **settings)
    assert equal(plain, weights(tiny_base, with_masks(True), masks="files", **settings))
    half = with_masks(False)
    found = [weights(tiny_base, half, masks="files", mask_outside=outside, **settings) for outside in (0.0, 0.5, 1.0)]
    assert not equal(plain, found[0]) and not equal(found[0], found[1]) and equal(plain, found[2])


def test_a_forecast_counts_buckets_and_measures_the_largest(shaped, tiny_base):
    settings = tiny(**MIXED)
    pictures = gather(shaped, settings, str(tiny_base))
    settled, cost = forecast(str(tiny_base), pictures, settings)
    assert settled.resolution == 24 and cost.buckets >= 4
    assert cost.largest == (24, 24) or cost.largest[0] * cost.largest[1] <= 24 * 24
    assert cost.epochs == pytest.approx(6 * 2 / (2 * len(pictures.train)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"buckets": True, "bucket_step": 3}, "bucket_step does not fit"),
        ({"buckets": True, "bucket_step": 12}, "bucket_step does not fit"),
        ({"resolutions": (16, 17)}, "resolution does not fit the base"),
        ({"resolution": 17}, "resolution does not fit the base"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_written(train, tmp_path, changes, reason):
    with pytest.raises(SettingsError, match=reason):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
