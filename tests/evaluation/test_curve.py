"""The log ratio weighs every band alike, the curve says where, and what is not defined is left out."""

import json
import math

import pytest
import torch

from adapt.evaluation.curve import bands, mean_log_ratio
from adapt.evaluation.held_out import compare
from adapt.evaluation.measurement import Measurement


def table(seed=0, pictures=30, size=4):
    """Losses of a base whose bands differ by orders, and of an adapter that is 0.9 … 1.1 of it."""
    random = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 0.1, 0.01, 0.001][:size], dtype=torch.float64)
    base = scale * (0.5 + torch.rand(pictures, size, generator=random, dtype=torch.float64))
    return base * (0.9 + 0.2 * torch.rand(pictures, size, generator=random, dtype=torch.float64)), base


def test_it_is_the_mean_over_pictures_of_the_mean_log_over_bands():
    adapted, base = table()
    each = [sum(math.log(adapted[i, k] / base[i, k]) for k in range(4)) / 4 for i in range(30)]
    value, error = mean_log_ratio(adapted, base)
    mean = sum(each) / 30
    assert value == pytest.approx(mean, rel=1e-12)
    assert error == pytest.approx((sum((e - mean) ** 2 for e in each) / 29 / 30) ** 0.5, rel=1e-12)


def test_the_unit_of_a_band_does_not_matter_to_it():
    """The ratio of means is governed by the largest band, the log ratio by none."""
    adapted, base = table()
    unit = torch.tensor([1.0, 1e3, 1e-3, 50.0], dtype=torch.float64)
    assert mean_log_ratio(adapted * unit, base * unit)[0] == pytest.approx(mean_log_ratio(adapted, base)[0], rel=1e-9)
    worse = adapted.clone()
    worse[:, 3] *= 2  # of the smallest band, a thousandth of the loss
    assert compare(0, worse, base).ratio == pytest.approx(compare(0, adapted, base).ratio, rel=0.01)
    assert mean_log_ratio(worse, base)[0] - mean_log_ratio(adapted, base)[0] == pytest.approx(math.log(2) / 4)


def test_base_against_base_is_exactly_0():
    _, base = table()
    assert mean_log_ratio(base, base) == (0.0, 0.0)


def test_a_cell_where_the_base_is_right_is_left_out():
    """Half of the pictures have such a cell in the last band: each picture's mean is over what it has."""
    adapted, base = table()
    base[::2, 3] = 0.0
    each = [
        (adapted[i, :3] / base[i, :3]).log().mean() if i % 2 == 0 else (adapted[i] / base[i]).log().mean()
        for i in range(30)
    ]
    assert mean_log_ratio(adapted, base)[0] == pytest.approx(float(torch.stack(each).mean()), rel=1e-12)
    last = bands(torch.full((30, 4), 0.5), adapted, base)[3]
    assert last.log_ratio == pytest.approx(float((adapted[1::2, 3] / base[1::2, 3]).log().mean()), rel=1e-12)


def test_where_the_base_is_right_everywhere_there_is_no_ratio_and_no_infinity():
    adapted, base = torch.full((3, 2), 0.1, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    measured = compare(1, adapted, base, torch.zeros(3, 2))
    assert measured.log_ratio is None and measured.log_error is None and measured.curve[0].log_ratio is None
    json.dumps(measured.as_dict(), allow_nan=False)


def test_a_loss_of_0_has_no_logarithm():
    assert mean_log_ratio(torch.zeros(2, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)) == (None, None)


def test_one_picture_has_no_standard_error():
    adapted, base = table(pictures=1)
    value, error = mean_log_ratio(adapted, base)
    assert value is not None and error is None


def test_the_curve_is_the_table_by_columns():
    adapted, base = table()
    noise = torch.tensor([[0.1, 0.3, 0.6, 0.9], [0.2, 0.4, 0.7, 1.0]]).repeat(15, 1)
    found = bands(noise, adapted, base)
    assert [band.noise for band in found] == pytest.approx([0.15, 0.35, 0.65, 0.95])
    for k, band in enumerate(found):
        assert (band.loss, band.base) == pytest.approx((float(adapted[:, k].mean()), float(base[:, k].mean())))
        assert (band.log_ratio, band.standard_error) == mean_log_ratio(adapted[:, k : k + 1], base[:, k : k + 1])


# ---------------------------------------------------------------------------------------------- the gap
def test_the_gap_is_what_members_gain_more():
    adapted, base = table()
    held_out, members = compare(5, adapted, base), compare(5, adapted * 0.8, base)
    both = held_out.beside(members)
    assert both.gap == pytest.approx(-math.log(0.8)) and both.members == members.log_ratio
    assert both.gap_error == pytest.approx(math.hypot(held_out.log_error, members.log_error))
    assert both.loss == held_out.loss and held_out.beside(held_out).gap == 0


def test_the_gap_of_what_has_no_ratio_is_none():
    nothing = compare(0, torch.ones(2, 1), torch.zeros(2, 1))
    assert nothing.beside(nothing).gap is None


def test_the_gap_of_single_pictures_has_no_error():
    one = compare(0, [0.5], [1.0])
    assert one.beside(one).gap == 0 and one.beside(one).gap_error is None


# ---------------------------------------------------------------------------------------------- as JSON
def test_a_measurement_survives_json():
    adapted, base = table()
    measured = compare(7, adapted, base, torch.rand(30, 4)).beside(compare(7, adapted, base))
    assert Measurement.of(json.loads(json.dumps(measured.as_dict()))) == measured
    assert set(measured.as_dict()) - set(measured.summary()) == {"curve"}


def test_measurements_of_other_versions_are_read():
    """0.1.0 knew seven fields; a later version may know more."""
    old = {"step": 3, "loss": 0.5, "base": 1.0, "ratio": 0.5, "standard_error": None, "change": 0.0, "pictures": 1}
    assert Measurement.of({**old, "event": "validation", "new": 1}) == compare(3, [0.5], [1.0]).__class__(**old)
