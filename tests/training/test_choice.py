"""What becomes the adapter, and what never does."""

import json

import pytest
import torch
from tiny_runs import content

from adapt.errors import TrainingError
from adapt.formats import read_lora
from adapt.training import checkpoint, loop, update, validation


# ---------------------------------------------------------------------------------------------- numbers that are none
def test_a_loss_that_is_not_finite_ends_the_run(cut, train, monkeypatch):
    row_losses = loop.row_losses
    monkeypatch.setattr(
        loop, "row_losses", lambda c, rows: row_losses(c, rows) * (float("nan") if rows.step == 4 else 1)
    )
    before = content(cut, "checkpoints", "snapshots")
    with pytest.raises(TrainingError, match=r"loss of step 5 .*seed 3, pictures \d\d.png.*lower learning_rate"):
        train(cut, existing="resume")
    assert content(cut, "checkpoints", "snapshots") == before and not (cut / "adapter").exists()


def test_a_gradient_that_is_not_finite_ends_the_run(cut, train, monkeypatch):
    clip = update.optimizer.clip

    def with_infinity(parameters, longest):
        parameters[3].grad[0, 0] = float("inf")
        return clip(parameters, longest)

    monkeypatch.setattr(update.optimizer, "clip", with_infinity)
    with pytest.raises(TrainingError, match="gradient of step 5"):
        train(cut, existing="resume")
    assert not (cut / "adapter").exists()


def test_a_held_out_loss_that_is_not_finite_ends_the_run(cut, train, monkeypatch):
    monkeypatch.setattr(validation.HeldOut, "table", lambda held_out, *_: torch.full((2, 2), float("nan")))
    with pytest.raises(TrainingError, match="held-out loss at step 6"):
        train(cut, existing="resume")
    assert checkpoint.newest(cut).step == 4 and not (cut / "adapter").exists()


# ---------------------------------------------------------------------------------------------- what is chosen
def test_the_step_with_the_lowest_held_out_loss_is_taken(cut, train, monkeypatch):
    compare = validation.compare
    monkeypatch.setattr(validation, "compare", lambda step, losses, *rest: compare(step, losses + 9, *rest))
    result = train(cut, existing="resume")  # step 3 was measured before, honestly
    assert result.chosen_step == 3 and [m.step for m in result.measurements] == [0, 3, 6]
    taken = read_lora(cut / "snapshots" / "step-000003.safetensors").modules["unet"]
    for name, pair in result.adapter.weights.modules["unet"].items():
        assert pair.up.equal(taken[name].up) and pair.down.equal(taken[name].down)


def test_without_held_out_pictures_the_last_step_is_taken(train, tmp_path):
    result = train(tmp_path / "run", steps=2, validation=None)
    assert result.chosen_step == 2 and result.held_out is None


def test_one_held_out_picture_has_no_standard_error(train, tmp_path):
    """And no `Infinity`, which is not JSON, gets into any file."""
    run = train(tmp_path / "run", steps=2, validation=0.125).folder

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    for path in (run / "adapter" / "adapter.json", run / "checkpoints" / "step-000002" / "state.json"):
        json.loads(path.read_text(), parse_constant=refuse)
    for line in (run / "events.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
