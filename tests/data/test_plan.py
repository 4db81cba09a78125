"""Promise 1: every draw is a pure function of (seed, step, position), and has the distribution that it says."""

import math
import random

import numpy as np
import pytest
import torch

from adapt.data.plan import Plan, generator, normal

PLAN = Plan(seed=7, size=12, batch=8)
STREAMS = ("flip", "caption", "drop", "noise", "posterior", "lora-dropout-0")


def _draws(rows):
    """Everything that a step draws, by name; one entry a row."""
    return {
        "items": rows.items(),
        "flips": rows.flipped(0.5),
        "captions": rows.choice([3] * len(rows.positions)),
        "variants": rows.variants(50),
        "dropped": rows.dropped(0.5).tolist(),
        "quantiles": rows.quantiles().tolist(),
        "noise": list(rows.noise((2, 3))),
        "posterior": list(rows.noise((2, 3), "posterior")),
    }


def _row(draws, index):
    """One row of `_draws`, comparable with ==."""
    return {k: v[index].tolist() if isinstance(v[index], torch.Tensor) else v[index] for k, v in draws.items()}


@pytest.mark.parametrize("cut", [[range(4), range(4, 8)], [[p] for p in range(8)], [[7, 0, 3], [5, 1], [2, 6, 4]]])
def test_rows_do_not_depend_on_how_a_batch_is_cut(cut):
    for step in (0, 1, 1000):
        whole = _draws(PLAN.rows(step, range(8)))
        for positions in cut:
            part = _draws(PLAN.rows(step, positions))
            for index, position in enumerate(positions):
                assert _row(part, index) == _row(whole, position), (step, position)


def test_rows_do_not_depend_on_what_was_drawn_before():
    wanted = _row(_draws(PLAN.rows(5, range(8))), 3)
    for step in (9, 0, 5):
        _draws(PLAN.rows(step, [6, 2]))
    assert _row(_draws(Plan(7, 12, 8).rows(5, [3])), 0) == wanted


def test_no_global_random_state_is_used_or_moved():
    def state():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    before, wanted = state(), _row(_draws(PLAN.rows(3, range(8))), 2)
    assert state() == before
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    assert _row(_draws(PLAN.rows(3, range(8))), 2) == wanted


def test_these_bits_are_fixed():
    """A resumed run may be months old: a change of these numbers is a change of every run."""
    assert [PLAN.item(0, p) for p in range(4)] == [8, 4, 0, 2]
    assert PLAN.uniform("flip", 2, 3) == 0.8071897105186785
    assert PLAN.rows(1, [5]).noise((3,)).flatten().tolist() == pytest.approx(
        [-1.3415416479110718, -1.1027792692184448, 1.1207661628723145]
    )
    assert PLAN.rows(1, [5]).quantiles().tolist() == [0.1421144806067689]


def test_each_epoch_shows_each_picture_once_in_another_order():
    seen = [PLAN.item(*divmod(k, 8)) for k in range(12 * 6)]
    epochs = [seen[first : first + 12] for first in range(0, len(seen), 12)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


@pytest.mark.parametrize(("size", "batch"), [(1, 8), (3, 8), (8, 8), (7, 3), (100, 1)])
def test_epochs_are_whole_for_any_size_and_batch(size, batch):
    plan = Plan(0, size, batch)
    seen = [plan.item(*divmod(k, batch)) for k in range(3 * size)]
    assert all(sorted(seen[first : first + size]) == list(range(size)) for first in range(0, 3 * size, size))


def test_the_batch_size_does_not_change_the_order():
    orders = [[Plan(3, 10, batch).item(*divmod(k, batch)) for k in range(40)] for batch in (1, 4, 8)]
    assert orders[0] == orders[1] == orders[2]


@pytest.mark.parametrize("coordinate", ["seed", "step", "position", "stream"])
def test_every_coordinate_matters(coordinate):
    values = {
        "seed": [generator(seed, "noise", 1, 1).random() for seed in range(50)],
        "step": [generator(0, "noise", step, 1).random() for step in range(50)],
        "position": [generator(0, "noise", 1, position).random() for position in range(50)],
        "stream": [generator(0, stream, 1, 1).random() for stream in (*STREAMS, *(f"lora-{i}" for i in range(44)))],
    }[coordinate]
    assert len(set(values)) == 50
    noises = [normal(0, stream, 1, 1, (4,)).tolist() for stream in STREAMS]
    assert len({tuple(noise) for noise in noises}) == len(STREAMS)


def test_step_and_position_are_not_confused():
    assert generator(0, "noise", 1, 2).random() != generator(0, "noise", 2, 1).random()
    assert generator(1, "2/noise", 0, 0).random() != generator(12, "noise", 0, 0).random()


def test_neighbours_share_no_random_numbers():
    """Counters of neighbouring rows lie far enough apart for any number of draws."""
    first, second = (generator(0, "noise", 0, position).random(20_000) for position in (0, 1))
    assert not np.isin(first, second).any()


def _largest_gap(sample):
    """Kolmogorov and Smirnov's distance from the even distribution."""
    ordered = np.sort(sample)
    steps = np.arange(1, len(ordered) + 1) / len(ordered)
    return max(np.abs(ordered - steps).max(), np.abs(ordered - steps + 1 / len(ordered)).max())


def test_quantiles_are_even_over_the_run_and_spread_within_a_batch():
    quantiles = torch.stack([PLAN.rows(step, range(8)).quantiles() for step in range(500)])
    assert float(quantiles.min()) >= 0 and float(quantiles.max()) < 1
    assert float(quantiles.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(quantiles.var()) == pytest.approx(1 / 12, rel=0.05)
    for position in range(8):  # each position alone is even, too
        assert _largest_gap(quantiles[:, position].numpy()) < 1.63 / 500**0.5
    gaps = quantiles.sort(1).values.diff(dim=1)
    assert float(gaps.max()) < 0.3  # independent draws leave gaps of more than half
    assert len(set(quantiles[:, 0].tolist())) == 500


def test_rates_are_what_was_asked_for():
    rows = [PLAN.rows(step, range(8)) for step in range(150)]
    n = 150 * 8
    for probability in (0.1, 0.5):
        margin = 4 * (probability * (1 - probability) / n) ** 0.5
        assert sum(sum(r.flipped(probability)) for r in rows) / n == pytest.approx(probability, abs=margin)
        assert sum(int(r.dropped(probability).sum()) for r in rows) / n == pytest.approx(probability, abs=margin)
    assert not any(any(r.flipped(0.0)) or r.dropped(0.0).any() for r in rows)
    assert all(all(r.flipped(1.0)) and r.dropped(1.0).all() for r in rows)
    counts = np.bincount([c for r in rows for c in r.choice([3] * 8)], minlength=3)
    assert len(counts) == 3 and np.abs(counts / n - 1 / 3).max() < 4 * (2 / 9 / n) ** 0.5
    assert PLAN.rows(0, range(8)).choice([1] * 8) == [0] * 8 == PLAN.rows(0, range(8)).variants(1)
    variants = np.bincount([v for r in rows for v in r.variants(4)], minlength=4)
    assert len(variants) == 4 and np.abs(variants / n - 1 / 4).max() < 4 * (3 / 16 / n) ** 0.5
    assert [r.variants(3) for r in rows] != [r.choice([3] * 8) for r in rows]


def test_flips_and_drops_are_independent():
    rows = [PLAN.rows(step, range(8)) for step in range(200)]
    flips = np.array([u for r in rows for u in r.uniform("flip").tolist()])
    drops = np.array([u for r in rows for u in r.uniform("drop").tolist()])
    assert abs(np.corrcoef(flips, drops)[0, 1]) < 4 / 1600**0.5


def test_noise_is_standard_normal_and_independent_between_rows():
    noise = torch.stack([PLAN.rows(step, range(8)).noise((16, 16)) for step in range(20)]).double()
    values, n = noise.flatten(), noise.numel()
    assert noise.shape == (20, 8, 16, 16)
    assert abs(float(values.mean())) < 4 / n**0.5
    assert float(values.var()) == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert _largest_gap(torch.special.ndtr(values).numpy()) < 1.95 / n**0.5
    correlations = torch.corrcoef(noise.view(160, -1)) - torch.eye(160)
    assert float(correlations.abs().max()) < 6 / math.sqrt(256)
    assert PLAN.rows(0, [0]).noise((2,)).dtype == torch.float32
