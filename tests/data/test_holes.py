"""Holes that inpainting bases learn to fill: what they look like, and what they depend on."""

import numpy as np
import pytest

from adapt.data.holes import SMALLEST, WHOLE, Holes

HOLES = Holes(48)
DIGESTS = [f"{number:x}" for number in range(32)]


@pytest.fixture(scope="module")
def many():
    return [HOLES.hole(digest, number, 40, 60) for digest in DIGESTS for number in range(HOLES.count)]


def box(hole):
    rows, columns = hole.any(1).nonzero()[0], hole.any(0).nonzero()[0]
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def test_they_depend_on_seed_picture_and_number_alone():
    def area(seed, digest, number, count=8):
        return float(Holes(count, seed).hole(digest, number, 99, 99).mean())

    assert len({area(0, "ab", number) for number in range(8)}) > 4
    assert len({area(0, digest, 3) for digest in DIGESTS}) > 16
    assert len({area(seed, "ab", 3) for seed in range(8)}) > 4
    assert area(0, "ab", 3, count=4) == area(0, "ab", 3), "how many there are changes none of them"


def test_a_quarter_is_whole_and_the_others_are_boxes_and_ellipses(many):
    whole = sum(hole.all() for hole in many) / len(many)
    assert whole == pytest.approx(WHOLE, abs=4 * (WHOLE * (1 - WHOLE) / len(many)) ** 0.5)
    parts = [hole for hole in many if not hole.all()]
    filled = []
    for hole in parts:
        top, bottom, left, right = box(hole)
        if top and left and bottom < 40 and right < 60:
            assert (bottom - top) / 40 >= SMALLEST - 1 / 40 and (right - left) / 60 >= SMALLEST - 1 / 60
            filled.append(hole[top:bottom, left:right].mean())
    boxes = sum(share == 1 for share in filled) / len(filled)
    ellipses = [share for share in filled if share < 1]
    assert 0.45 < boxes < 0.58
    assert np.mean(ellipses) == pytest.approx(np.pi / 4, abs=0.03), "an ellipse's share of its box"


def test_they_lie_anywhere(many):
    parts = np.mean([hole for hole in many if not hole.all()], 0)
    assert parts.min() > 0.05, "corners too"
    assert np.abs(parts - parts[::-1, ::-1]).max() < 0.08, "and on no side more than on the other"


def test_a_hole_is_the_same_at_every_size():
    small, large = HOLES.hole("ab", 5, 32, 32), HOLES.hole("ab", 5, 256, 256)
    assert abs(small.mean() - large.mean()) < 0.05
