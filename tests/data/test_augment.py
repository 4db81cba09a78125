"""Variants are functions of (seed, picture, number); colours change as said; masks and numbers follow the same cut."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from adapt.data.augment import LUMA, STRENGTH, TURN, UNCHANGED, Augmentation, Colour, Variant, turned
from adapt.data.buckets import crop_box
from adapt.data.decode import fit
from adapt.data.view import Sizes, View

ALL = Augmentation(variants=50, random_crop=True, colour=1.0, seed=3)


def test_a_variant_depends_on_seed_picture_and_number_and_on_nothing_else():
    wanted = ALL.variant("aa", 7)
    for digest, number in (("bb", 7), ("aa", 8), ("aa", 0)):
        assert ALL.variant(digest, number) != wanted
    assert replace(ALL, seed=4).variant("aa", 7) != wanted
    assert replace(ALL, variants=9).variant("aa", 7) == wanted == ALL.variant("aa", 7)
    assert len({ALL.variant(f"{k}", n) for k in range(10) for n in range(1, 50)}) == 490


def test_the_first_variant_is_the_plain_one():
    assert ALL.variant("aa", 0) == Variant() == Variant((0.5, 0.5), Colour(1.0, 1.0, 1.0, 0.0))


def test_crops_and_colours_come_one_without_the_other():
    for number in range(1, 20):
        both = ALL.variant("aa", number)
        assert replace(ALL, colour=0.0).variant("aa", number) == Variant(both.at, moment=both.moment)
        assert replace(ALL, random_crop=False).variant("aa", number) == Variant((0.5, 0.5), both.colour)


def test_draws_are_even_in_their_ranges():
    variants = [Augmentation(2, True, 0.5, 0).variant(f"{k}", 1) for k in range(2000)]
    columns = np.array([[*v.at, *v.colour.numbers()] for v in variants])
    low = [0, 0, *[1 - 0.5 * STRENGTH] * 3, -0.5 * TURN]
    high = [1, 1, *[1 + 0.5 * STRENGTH] * 3, 0.5 * TURN]
    even = (columns - low) / (np.array(high) - low)
    assert even.min() >= 0 and even.max() <= 1
    assert np.abs(np.sort(even, 0) - np.linspace(0, 1, 2000)[:, None]).max() < 1.63 / 2000**0.5
    assert np.abs(np.corrcoef(even.T) - np.eye(6)).max() < 4 / 2000**0.5


def test_no_change_of_colours_is_none(noise):
    image = np.asarray(noise(0))
    assert (Colour().applied(image) == image).all()
    assert np.abs(Colour(hue=1.0).applied(image).astype(int) - image).max() <= 1


@pytest.mark.parametrize(
    ("name", "enhancer"), [("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")]
)
@pytest.mark.parametrize("factor", [0.8, 0.95, 1.2])
def test_colours_change_as_pillow_changes_them(noise, name, enhancer, factor):
    image = noise(1)
    expected = np.asarray(getattr(ImageEnhance, enhancer)(image).enhance(factor), int)
    found = Colour(**{name: factor}).applied(np.asarray(image)).astype(int)
    assert np.abs(found - expected).max() <= 1  # Pillow rounds in between


def test_hues_turn_about_grey():
    for hue in (0.03, -0.05, 0.2):
        matrix = turned(hue)
        assert matrix @ np.ones(3) == pytest.approx(np.ones(3)) and matrix @ matrix.T == pytest.approx(np.eye(3))
        assert matrix @ turned(0.1) == pytest.approx(turned(hue + 0.1))
    assert turned(1 / 3) @ [1, 0, 0] == pytest.approx([0, 1, 0])  # red to green to blue
    assert turned(1 / 3) @ [0, 1, 0] == pytest.approx([0, 0, 1])
    grey = np.full((4, 4, 3), 90, np.uint8)
    assert (Colour(saturation=1.2, hue=0.05).applied(grey) == grey).all()


def test_the_order_of_changes():
    image = np.random.default_rng(0).integers(60, 190, (8, 8, 3), dtype=np.uint8)  # nothing is clipped
    x = image @ turned(0.04).T
    grey = (x @ LUMA)[..., None]
    x = grey + 1.1 * (x - grey)
    mean = (x @ LUMA).mean()
    expected = np.rint((mean + 0.9 * (x - mean)) * 1.1)
    assert np.abs(Colour(1.1, 0.9, 1.1, 0.04).applied(image) - expected).max() <= 1


# ---------------------------------------------------------------------------------------------------- views
def view(original, size, at=(0.5, 0.5), flip=False, colour=UNCHANGED):
    return View(original, size, Variant(at, colour), flip)


def test_a_view_is_cut_resized_recoloured_and_mirrored(noise):
    image = noise(2, 40, 30)
    seen = view((40, 30), (16, 24), (0.2, 0.9), True, Colour(1.2)).shown(image)
    by_hand = image.resize((16, 24), Image.Resampling.LANCZOS, crop_box((40, 30), (16, 24), (0.2, 0.9)))
    expected = np.rint(np.asarray(by_hand, float) * 1.2).clip(0, 255)
    assert np.abs(seen - expected[:, ::-1]).max() <= 1
    assert (view((40, 30), (16, 24)).shown(image) == fit(image, 16, 24)).all()


def test_random_crops_show_the_pixels_that_lie_there(noise):
    """Without a change of scale the pixels themselves come out."""
    image = noise(3, 40, 30)
    for left in range(11):
        seen = view((40, 30), (30, 30), (left / 10, 0.3)).shown(image)
        assert (seen == np.asarray(image)[:, left : left + 30]).all()


def test_a_mask_is_averaged_over_what_a_latent_stands_for():
    values = np.random.default_rng(0).integers(0, 256, (24, 48), dtype=np.uint8)
    mask = Image.fromarray(values)
    area = view((48, 24), (24, 24), (0.25, 0.5)).area(mask, 6, 6)  # columns 6 … 30
    expected = values[:, 6:30].reshape(6, 4, 6, 4).mean((1, 3)) / 255
    assert area == pytest.approx(expected, abs=1e-5) and area.dtype == np.float32
    assert view((48, 24), (24, 24), (0.25, 0.5), True).area(mask, 6, 6) == pytest.approx(expected[:, ::-1], abs=1e-5)
    halves = view((48, 24), (12, 12), (0.25, 0.5)).area(mask, 3, 3)  # a latent stands for 8 pixels
    assert halves == pytest.approx(values[:, 6:30].reshape(3, 8, 3, 8).mean((1, 3)) / 255, abs=1e-5)
    white = view((48, 24), (24, 24)).area(Image.new("L", (48, 24), 255), 6, 6)
    assert (white == 1).all()


def test_sizes_are_those_that_sdxl_is_told():
    """A 1200 x 800 picture at 512 x 512: resized to 768 x 512, 256 columns too many."""
    assert view((1200, 800), (512, 512)).sizes == Sizes((800, 1200), (0, 128), (512, 512))
    assert view((1200, 800), (512, 512), (0.25, 0.1)).sizes == Sizes((800, 1200), (0, 64), (512, 512))
    assert view((1200, 800), (512, 512), (0.25, 0.1), True).sizes == Sizes((800, 1200), (0, 192), (512, 512))
    assert view((640, 1600), (640, 384), (0.0, 1.0)).sizes == Sizes((1600, 640), (1216, 0), (384, 640))


def test_views_that_show_the_same_have_the_same_facts():
    whole = view((30, 30), (16, 16)).facts()
    assert view((30, 30), (16, 16), (0.1, 0.9)).facts() == whole == [[16, 16], False]  # nothing is cut off
    assert view((40, 30), (16, 16), (0.5, 0.9)).facts() == whole
    changes = ("brightness", "contrast", "saturation", "hue")
    different = [
        view((40, 30), (16, 16), (0.1, 0.5)),
        view((40, 30), (16, 16), (0.1, 0.5), True),
        view((40, 30), (24, 16), (0.1, 0.5)),
        view((40, 30), (16, 16), (0.2, 0.5)),
        *(view((40, 30), (16, 16), colour=Colour(**{name: 1.1})) for name in changes),
    ]
    assert len({str(v.facts()) for v in different}) == len(different)
