"""What settings make of pictures: which sizes, how many draws, what is refused and what is told."""

import pytest

from adapt.api.sizes import augmentation, draws, in_use, remarks, shelves
from adapt.config import TrainSettings, validate
from adapt.data import Picture
from adapt.data.augment import Augmentation
from adapt.data.buckets import buckets, square
from adapt.errors import SettingsError


def settings(**changes):
    return TrainSettings(**{"resolution": 512, **changes})


def pictures(*sizes, repeats=1.0):
    return [Picture(f"{i}", None, b"", size=size, repeats=repeats) for i, size in enumerate(sizes)]


def test_the_resolution_that_is_measured_comes_first():
    assert shelves(settings(), 8) == (square(512),)
    assert shelves(settings(resolutions=(768, 512, 256)), 8) == (square(512), square(768), square(256))
    assert shelves(settings(buckets=True), 8) == (buckets(512, 64, 2.0),)
    fine = settings(buckets=True, bucket_step=32, bucket_aspect=1.5, resolutions=(512, 768))
    assert shelves(fine, 8) == (buckets(512, 32, 1.5), buckets(768, 32, 1.5))


@pytest.mark.parametrize(
    "wrong",
    [{"resolution": 516}, {"resolutions": (512, 516)}, {"buckets": True, "bucket_step": 12},
     {"buckets": True, "bucket_step": 48}, {"buckets": True, "bucket_step": 1024}],
)  # fmt: skip
def test_sides_that_the_base_cannot_take_are_refused(wrong):
    with pytest.raises(SettingsError, match="does not fit"):
        shelves(settings(**wrong), 8)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"bucket_step": 64}, "are of buckets=true"),
        ({"bucket_aspect": 3}, "are of buckets=true"),
        ({"variants": 4}, "go with crop=random or colour"),
        ({"resolution": 512, "resolutions": (256, 768)}, "none of resolutions"),
        ({"resolutions": (512, 512)}, "different sides"),
        ({"resolutions": (512, 8)}, "of 16 px or more"),
        ({"crop": "center"}, "centre"),
        ({"colour": 1.5}, "colour"),
        ({"mask_outside": -0.1}, "mask_outside"),
        ({"buckets": True, "bucket_aspect": 0.5}, "bucket_aspect"),
        ({"crop": "random", "variants": 1}, "variants"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, reason):
    with pytest.raises(SettingsError, match=reason):
        validate(given)


def test_variants_are_made_only_where_something_varies():
    assert augmentation(settings(seed=4)) == Augmentation(1, False, 0.0, 4)
    assert augmentation(settings(crop="random", variants=5)) == Augmentation(5, True, 0.0, 0)
    assert augmentation(settings(colour=0.3)) == Augmentation(8, False, 0.3, 0)


def test_an_epoch_has_each_picture_as_often_as_it_repeats_at_every_resolution():
    few = pictures((512, 512), (600, 400)) + pictures((9, 9), repeats=2.5)
    assert draws(few, settings()) == 4.5 and draws(few, settings(resolutions=(512, 256))) == 9


def test_pictures_are_counted_by_bucket():
    shelf = (buckets(512, 64),)
    assert in_use(pictures((600, 400), (300, 200), (10, 10), (1, 9)), shelf) == {
        (640, 384): 2,
        (512, 512): 1,
        (384, 640): 1,
    }


def test_buckets_that_hold_less_than_a_batch_are_told():
    some = pictures(*[(600, 400)] * 8, *[(400, 600)] * 3)
    (told,) = remarks(some, settings(buckets=True, batch_size=8), 8)
    assert told.startswith("1 of 2 buckets (384 x 640) hold fewer pictures than a batch of 8")
    assert remarks(some, settings(buckets=True, batch_size=3), 8) == []
    assert remarks(some, settings(batch_size=64), 8) == []  # a set smaller than a batch is no matter of buckets
