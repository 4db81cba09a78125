"""The settings of a sweep: every combination once, in a fixed order, and nothing out of range."""

import pytest

from adapt.errors import SettingsError
from adapt.evaluation.grid import MOST, Grid, Setting, around


def test_every_combination_is_there_once_whatever_the_order_and_repetitions_of_its_axes():
    grid = Grid((1.0, 0.5, 1.0), (3.0, 1.0), (20, 10))
    assert grid.shape == (2, 2, 2)
    assert grid.settings[0] == Setting(0.5, 1.0, 10) and grid.settings[1] == Setting(0.5, 1.0, 20)
    assert len(set(grid.settings)) == len(grid) == 8


def test_guidance_doubles_what_a_picture_costs_and_costs_nothing_where_it_is_off():
    assert (Setting(1, 1.0, 20).evaluations, Setting(1, 1.5, 20).evaluations) == (20, 40)


def test_around_holds_the_present_setting_and_leaves_guidance_off_where_it_is():
    present = Setting(0.8, 3.0, 20)
    assert present in around(present).settings and len(around(present)) == 27
    assert around(Setting(1.0, 1.0, 4)).guidance_scales == (1.0,)
    assert max(around(Setting(1.0, 3.0, 900)).steps) == 1000


@pytest.mark.parametrize(
    "axes",
    [
        ((), (3.0,), (10,)),
        ((1.0,), (0.5,), (10,)),
        ((1.0,), (float("nan"),), (10,)),
        ((float("inf"),), (3.0,), (10,)),
        ((1.0,), (3.0,), (0,)),
        ((1.0,), (3.0,), (2.5,)),
        (tuple(map(float, range(MOST + 1))), (3.0,), (10,)),
    ],
)
def test_axes_out_of_range_are_refused(axes):
    with pytest.raises(SettingsError, match="the sweep"):
        Grid(*axes)
