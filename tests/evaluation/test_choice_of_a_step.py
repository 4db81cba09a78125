"""What is chosen is a function of the measurements alone."""

import itertools
from dataclasses import replace

import pytest
import torch

from adapt.evaluation.choice import best, choose
from adapt.evaluation.held_out import compare
from adapt.evaluation.hold_out_size import hold_out_note, hold_out_share, hold_out_size
from adapt.evaluation.measurement import Measurement


def at(step, loss):
    return Measurement(step, loss, 1.0, loss, 0.01, 0.0, 8)


def test_the_lowest_loss_is_chosen_whatever_the_order():
    measured = [at(0, 0.1), at(10, 0.5), at(20, 0.3), at(30, 0.4)]
    assert {choose(order).step for order in itertools.permutations(measured)} == {20}  # not 0: nothing was trained


def test_the_earlier_step_of_a_tie_is_chosen():
    assert choose([at(30, 0.5), at(10, 0.5)]).step == 10


BANDS = torch.tensor([[1.0, 0.01]] * 4)
"""Four pictures in two bands of noise, whose losses differ by two orders."""
ONE_HARD = torch.tensor([[0.1, 0.1]] * 3 + [[5.0, 5.0]])


@pytest.mark.parametrize(
    ("base", "worse", "better"),
    [
        (BANDS, BANDS * torch.tensor([0.95, 2.0]), BANDS * torch.tensor([1.0, 0.5])),
        (ONE_HARD, torch.tensor([[0.1, 0.1]] * 3 + [[4.0, 4.0]]), torch.tensor([[0.05, 0.05]] * 3 + [[4.4, 4.4]])),
    ],
    ids=["bands", "pictures"],
)
def test_no_band_and_no_picture_chooses_alone(base, worse, better):
    """By the mean loss the worse one would be taken."""
    first, second = compare(10, worse, base), compare(20, better, base)
    assert first.loss < second.loss and first.log_ratio > second.log_ratio
    assert choose([first, second]) == second and best([second, first]) == second
    # Where the base is right at some time, the mean loss counts what becomes of that; and so where no ratio is known.
    right = base * torch.tensor([1.0, 0.0])
    assert choose([compare(10, worse, right), compare(20, better, right)]).step == 10
    assert choose([first, replace(second, log_ratio=None)]) == first


def test_without_a_measurement_nothing_is_chosen():
    assert choose([]) is None and choose([at(0, 0.5)]) is None


# ---------------------------------------------------------------------------------------------- how many are held out
@pytest.mark.parametrize(
    ("pictures", "held_out"), [(0, 0), (1, 0), (11, 0), (12, 4), (20, 4), (23, 5), (48, 10), (200, 40), (100_000, 40)]
)
def test_a_fifth_but_4_to_40_and_none_of_few(pictures, held_out):
    assert hold_out_size(pictures) == held_out


def test_more_pictures_never_hold_out_fewer_and_leave_enough():
    sizes = [hold_out_size(n) for n in range(400)]
    assert sizes == sorted(sizes)
    assert all(size <= n / 3 for n, size in enumerate(sizes))


def test_few_pictures_are_told():
    assert "no held-out evidence" in hold_out_note(11)
    assert "only indicate" in hold_out_note(15)
    assert hold_out_note(16) is None


def test_auto_is_that_share_and_everything_else_is_itself():
    assert hold_out_share("auto", 48) == (10 / 48, None)
    assert hold_out_share("auto", 8)[0] is None and hold_out_share("auto", 8)[1]
    for value in (None, 0.25, "a/folder"):
        assert hold_out_share(value, 8) == (value, None)
