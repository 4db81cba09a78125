"""The learning rate as a function of the step, and the steps that epochs make."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from adapt.config import TrainSettings, resolve
from adapt.config.run import steps_of
from adapt.errors import SettingsError
from adapt.training.optimizer import learning_rate

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial", "rex")


def rates(**settings):
    settings = TrainSettings(learning_rate=1.0, **settings)
    rate = learning_rate(settings)
    return [rate(step) for step in range(settings.steps)]


def test_rex_is_the_papers():
    """Chen et al. 2021: the rate is lr (1 - t/T) / (1/2 + (1 - t/T) / 2)."""
    assert rates(schedule="rex", steps=4, warmup=0) == pytest.approx([1, 0.75 / 0.875, 0.5 / 0.75, 0.25 / 0.625])


def test_rex_after_warm_up_runs_over_what_is_left():
    found = rates(schedule="rex", steps=12, warmup=4)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    z = [(step + 1 - 4) / 8 for step in range(4, 11)]
    assert found[4:11] == pytest.approx([(1 - t) / (0.5 + 0.5 * (1 - t)) for t in z])
    assert 0 < found[-1] == found[-2]  # the last step is never for nothing


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_is_highest_then_never_rises_and_teaches_at_every_step(name):
    found = rates(schedule=name, steps=50, warmup=0 if name == "constant" else 10)
    assert all(math.isfinite(rate) and 0 < rate <= 1 for rate in found)
    if name != "constant":
        assert found[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(later <= rate for rate, later in pairwise(found[9:]))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_longer_than_the_run_lasts_for_all_of_it(name):
    warm = rates(schedule=name, steps=4, warmup=20)
    assert warm == pytest.approx([1] * 4 if name == "constant" else [0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "polynomial", "cosine_with_restarts"])
def test_the_schedules_of_diffusers(schedule):
    """Ours at a step is diffusers' after it, so that warm-up wastes no step at a rate of 0."""
    from diffusers.optimization import get_scheduler

    more = {"polynomial": {"schedule_power": 2.0}, "cosine_with_restarts": {"schedule_cycles": 3}}.get(schedule, {})
    found = rates(schedule=schedule, steps=30, warmup=5, **more)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    power, cycles = more.get("schedule_power", 1.0), more.get("schedule_cycles", 1)
    theirs = get_scheduler(
        schedule, optimizer, num_warmup_steps=5, num_training_steps=30, num_cycles=cycles, power=power
    )
    for rate in found[:-1]:
        optimizer.step()
        theirs.step()
        assert rate == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)


def test_three_restarts_rise_three_times():
    found = rates(schedule="cosine_with_restarts", steps=60, warmup=0, schedule_cycles=3)
    assert sum(later > rate for rate, later in pairwise(found)) == 2


# ---------------------------------------------------------------------------------------------- epochs
@pytest.mark.parametrize(
    ("epochs", "pictures", "batch", "steps"),
    [
        (1, 8, 4, 2),
        (1, 9, 4, 3),
        (10, 9, 8, 12),
        (0.1, 30, 3, 1),
        (2.5, 10, 5, 5),
        (1, 1, 64, 1),
        (100, 48, 8, 600),
        (3, 7.5, 4, 6),
        (10, 0.1 + 0.2, 3, 1),
    ],
)
def test_epochs_in_steps(epochs, pictures, batch, steps):
    """The least number of steps after which each picture was seen so often; batches go on into the next epoch."""
    assert steps_of(epochs, pictures, batch) == steps
    assert steps * batch >= epochs * pictures - 1e-9 > (steps - 1) * batch


def test_a_length_takes_the_place_of_one_from_elsewhere(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 10\n")
    assert resolve(file).settings.epochs == 10
    both = resolve(file, ["steps=7"])
    assert (both.settings.steps, both.settings.epochs) == (7, None) and both.origins["epochs"] == "default"
    stored = {**TrainSettings(steps=70).model_dump(mode="json")}
    assert resolve(None, ["epochs=3"], stored).settings.epochs == 3
    assert resolve(None, [], stored).settings.steps == 70
    with pytest.raises(SettingsError, match="give one of them"):
        resolve(file, ["steps=7", "epochs=2"])


def test_where_an_optimizers_own_default_comes_from():
    found = resolve(None, ["optimizer=prodigy"])
    assert found.settings.learning_rate == 1 and found.origins["learning_rate"] == "prodigy"
    assert resolve(None, ["optimizer=prodigy", "learning_rate=0.5"]).origins["learning_rate"] == "command line"
    assert found.origins["ema"] == "default"
