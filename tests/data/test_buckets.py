"""Sizes of one area, the one that cuts least, and the part of a picture that is seen."""

import numpy as np
import pytest
from diffusers.training_utils import find_nearest_bucket

from adapt.data.buckets import Buckets, buckets, crop_box, cut_away, cut_by, default_step, square

SHAPES = [(16, 2), (64, 8), (512, 64), (512, 32), (768, 64), (1024, 64), (1024, 16)]


def kohyas(resolution, step, smallest, largest):
    """Sizes by kohya's rule, written out: for each width the largest height that keeps the area."""
    found = {(resolution, resolution)}
    for width in range(smallest, largest + 1, step):
        height = min(largest, resolution * resolution // width // step * step)
        found |= {(width, height), (height, width)} if height >= smallest else set()
    return found


@pytest.mark.parametrize(("resolution", "step"), SHAPES)
@pytest.mark.parametrize("aspect", [1.0, 1.5, 2.0, 4.0])
def test_sizes_are_multiples_within_area_and_aspect_and_come_turned(resolution, step, aspect):
    sizes = buckets(resolution, step, aspect).sizes
    assert (resolution, resolution) in sizes and len(set(sizes)) == len(sizes)
    for width, height in sizes:
        assert width % step == height % step == 0 and width * height <= resolution**2
        assert max(width, height) <= aspect * min(width, height) and (height, width) in sizes
    assert list(sizes) == sorted(sizes, key=lambda size: size[0] / size[1])
    if aspect == 1:
        assert sizes == ((resolution, resolution),)


@pytest.mark.parametrize(("resolution", "step"), SHAPES)
@pytest.mark.parametrize("aspect", [1.5, 2.0, 3.0])
def test_sizes_are_kohyas_without_those_that_lie_within_another(resolution, step, aspect):
    every = {
        (w, h)
        for w in range(step, 4 * resolution, step)
        for h in range(step, 4 * resolution, step)
        if w * h <= resolution**2 and max(w, h) <= aspect * min(w, h)
    }
    outermost = {(w, h) for w, h in every if not {(w + step, h), (w, h + step)} & every}
    ours = set(buckets(resolution, step, aspect).sizes)
    assert ours <= outermost
    for w, h in outermost - ours:  # of one aspect limit the largest
        assert any(w <= W and h <= H for W, H in ours)
    free = {(w, h) for w, h in ours if max(w, h) < int(aspect * min(w, h)) // step * step}
    assert free <= kohyas(resolution, step, step, 8 * resolution)


def test_the_size_that_cuts_least_is_chosen():
    shelf, dice = buckets(512, 64, 3.0), np.random.default_rng(0)
    listed = [(height, width) for width, height in shelf.sizes]
    for picture in dice.integers(16, 4000, (300, 2)).tolist():
        cuts = {size: cut_by(picture, size) for size in shelf.sizes}
        assert cuts[shelf.nearest(picture)] == min(cuts.values()) == shelf.cut_away(picture)
        height, width = listed[find_nearest_bucket(picture[1], picture[0], listed)]  # diffusers' choice cuts no less
        assert shelf.cut_away(picture) <= cuts[(width, height)]
    assert shelf.nearest((100, 100)) == (512, 512) and shelf.nearest((640, 384)) == (640, 384)
    assert buckets(512, 64, 1.5).nearest((4000, 100)) == max(buckets(512, 64, 1.5).sizes, key=lambda s: s[0] / s[1])


def test_of_sizes_that_cut_alike_the_larger_is_chosen():
    assert Buckets(((256, 256), (512, 512))).nearest((100, 90)) == (512, 512)
    assert Buckets(((4, 2), (2, 4))).nearest((7, 7)) == (4, 2)


def test_what_is_cut_away_is_what_the_box_leaves_out():
    dice = np.random.default_rng(1)
    for width, height, w, h in dice.integers(1, 3000, (500, 4)).tolist():
        left, top, right, bottom = crop_box((width, height), (w, h))
        share = 1 - (right - left) * (bottom - top) / (width * height)
        assert cut_by((width, height), (w, h)) == pytest.approx(share, abs=1e-9)
    assert square(512).cut_away((300, 200)) == pytest.approx(1 / 3)
    assert square(512).cut_away((300, 300)) == 0
    assert cut_away((300, 200), [square(64), Buckets(((96, 64),))]) == pytest.approx(1 / 3)


def test_boxes_have_the_aspect_lie_within_and_move_from_edge_to_edge():
    """Rounding never leads outside, which Pillow would refuse."""
    dice = np.random.default_rng(2)
    for width, height, w, h in dice.integers(1, 5000, (3000, 4)).tolist():
        for at in ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0), tuple(dice.random(2).tolist())):
            left, top, right, bottom = crop_box((width, height), (w, h), at)
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
            assert (right - left) * h == pytest.approx((bottom - top) * w)
        first, last = (crop_box((width, height), (w, h), at) for at in ((0.0, 0.0), (1.0, 1.0)))
        assert first[:2] == (0, 0) and last[2:] == pytest.approx((width, height))


def test_only_the_direction_in_which_something_is_left_moves():
    assert crop_box((100, 40), (40, 40), (0.25, 0.9)) == (15, 0, 55, 40)
    assert crop_box((40, 100), (40, 40), (0.25, 0.9)) == (0, 54, 40, 94)


def test_the_centre_is_what_it_always_was():
    for width, height, w, h in np.random.default_rng(3).integers(1, 2000, (500, 4)).tolist():
        scale = min(width / w, height / h)
        if w * scale <= width and h * scale <= height:
            left, top = (width - w * scale) / 2, (height - h * scale) / 2
            assert crop_box((width, height), (w, h)) == (left, top, left + w * scale, top + h * scale)


def test_enlargement_is_that_of_the_side_that_grows_most():
    assert square(512).enlarged((256, 1024)) == 2 and square(512).enlarged((1024, 1024)) == 0.5
    assert Buckets(((640, 384),)).enlarged((1280, 384)) == 1


@pytest.mark.parametrize(
    ("resolution", "scale", "step"),
    [
        (512, 8, 64),
        (1024, 8, 64),
        (768, 8, 64),
        (640, 8, 64),
        (320, 8, 40),
        (64, 8, 8),
        (64, 4, 8),
        (16, 2, 2),
        (520, 8, 40),
    ],
)
def test_the_step_that_is_taken_when_none_is_given(resolution, scale, step):
    assert default_step(resolution, scale) == step
    assert resolution % step == step % scale == 0
