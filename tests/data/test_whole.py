"""What is said of a set as a whole: likeness, sharpness, crops, captions, classes."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from adapt.data import Found, Picture, judge, split
from adapt.data.buckets import buckets
from adapt.data.likeness import NEAR, difference_hash, near_pairs, sharpness
from adapt.data.whole import groups, judge_whole, near_across, shares_cut


@pytest.fixture
def scene():
    """`scene(seed)`: coarse random blocks, as sharp and as different from one another as pictures are."""

    def make(seed, size=(64, 64)):
        values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        return Image.fromarray(values).resize(size, Image.Resampling.NEAREST)

    return make


def found(encoded, images, captions=None, labels=None, kind="sidecars"):
    texts = captions or [f"picture {i}" for i in range(len(images))]
    marks = labels or [None] * len(images)
    pictures = (
        Picture(f"p{i}", None, encoded(image), (text,), mark)
        for i, (image, text, mark) in enumerate(zip(images, texts, marks, strict=True))
    )
    return Found(tuple(pictures), (), kind)


def remarks(a_set, trigger=None):
    return {(f.name, f.kind) for f in judge_whole(a_set, judge(a_set, 0), trigger)}


def test_the_same_picture_scaled_recompressed_and_brighter_is_a_near_duplicate(encoded, scene):
    picture = scene(0)
    variants = [picture, picture.resize((48, 48), Image.Resampling.LANCZOS), picture.point(lambda v: min(255, v + 12))]
    jpeg = Picture("p9", None, encoded(picture, "JPEG", quality=60), ("again",))
    a_set = found(encoded, [*variants, scene(1), scene(2)])
    a_set = Found((*a_set.pictures, jpeg), (), "sidecars")
    assert {name for name, kind in remarks(a_set) if kind == "near duplicate"} == {"p1", "p2", "p9"}


def test_different_pictures_are_far_apart(scene):
    hashes = [difference_hash(scene(i)) for i in range(60)]
    assert min((a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]) > 3 * NEAR


def test_near_pairs_are_those_of_comparing_all_with_all():
    """No pair is lost by looking into bands only."""
    dice = random.Random(0)
    values = [dice.getrandbits(256) for _ in range(40)]
    for value in list(values):
        flips = dice.sample(range(256), dice.randrange(0, 2 * NEAR))
        values.append(value ^ sum(1 << bit for bit in flips))
    hashes = {f"p{i}": value for i, value in enumerate(values)}
    names = list(hashes)
    expected = [
        (a, b) for i, a in enumerate(names) for b in names[i + 1 :] if (hashes[a] ^ hashes[b]).bit_count() <= NEAR
    ]
    assert expected and near_pairs(hashes) == expected


def test_plain_surfaces_are_soft_but_not_alike(encoded):
    plain = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "white")]
    assert remarks(found(encoded, plain)) == {(f"p{i}", "blurry") for i in range(3)}


def test_blur_lowers_sharpness_until_it_is_said(encoded, scene):
    blurred = [scene(0).filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 1, 2, 8)]
    values = [sharpness(image) for image in blurred]
    assert values == sorted(values, reverse=True)
    assert ("p1", "blurry") in remarks(found(encoded, [blurred[0], blurred[3]]))
    assert ("p0", "blurry") not in remarks(found(encoded, [blurred[0], blurred[3]]))


def test_a_crop_that_takes_much_is_said_with_its_share(encoded, scene):
    a_set = found(encoded, [scene(0, (64, 64)), scene(1, (80, 64)), scene(2, (64, 100))])
    findings = [f for f in judge_whole(a_set, judge(a_set, 0)) if f.kind == "cropped"]
    assert [f.name for f in findings] == ["p2"] and "36%" in findings[0].message


def test_a_caption_of_several_pictures_is_said_but_not_that_of_a_class(encoded, scene):
    images, captions = [scene(i) for i in range(3)], ["a cat", "a cat", "a dog"]
    assert ("p0", "repeated caption") in remarks(found(encoded, images, captions))
    assert not remarks(found(encoded, images, captions, kind="classes"))


def test_captions_without_the_trigger_are_named(encoded, scene):
    a_set = found(encoded, [scene(0), scene(1)], ["zxc, a cat", "a dog"])
    assert remarks(a_set, "zxc") == {("p1", "no trigger")} and not remarks(a_set)


def test_uneven_classes_are_counted(encoded, scene):
    labels = ["cat"] * 3 + ["dog"]
    a_set = found(encoded, [scene(i) for i in range(4)], labels=labels, kind="classes")
    (finding,) = judge_whole(a_set, judge(a_set, 0))
    assert finding.kind == "uneven classes" and "3 of cat, 1 of dog" in finding.message
    even = found(encoded, [scene(i) for i in range(4)], labels=["cat", "cat", "dog", "dog"], kind="classes")
    assert not remarks(even)


def test_near_duplicates_stay_on_one_side_of_a_split(encoded, scene):
    images = [image for i in range(6) for image in (scene(i), scene(i).resize((48, 48), Image.Resampling.LANCZOS))]
    judgement = judge(found(encoded, images), 0)
    same = groups(judgement)
    for seed in range(10):
        train, held_out = split(judgement.usable, 0.34, seed, same)
        assert held_out and not {same[p.name] for p in train} & {same[p.name] for p in held_out}


def test_of_every_class_about_the_same_share_is_held_out(encoded, scene):
    labels = ["fox"] * 20 + ["owl"] * 10 + ["bee"] * 5
    pictures = judge(found(encoded, [scene(i) for i in range(35)], labels=labels, kind="classes"), 0).usable
    seen = set()
    for seed in range(10):
        aside = split(pictures, 0.2, seed)[1]
        assert Counter(picture.label for picture in aside) == {"fox": 4, "owl": 2, "bee": 1}
        seen.add(tuple(picture.name for picture in aside))
    assert len(seen) > 5  # which of a class, is up to the seed


def test_one_class_is_split_as_if_there_were_none(encoded, scene):
    images = [scene(i) for i in range(12)]
    plain, marked = (judge(found(encoded, images, labels=labels), 0).usable for labels in (None, ["fox"] * 12))
    for seed in range(5):
        one, other = (split(pictures, 0.25, seed)[1] for pictures in (plain, marked))
        assert [p.name for p in one] == [p.name for p in other]


def test_pictures_that_are_alike_across_two_sets_are_found(encoded, scene):
    """Also where both sets have the same names."""
    train = judge(found(encoded, [scene(0), scene(1), scene(2)]), 0)
    held_out = judge(found(encoded, [scene(7), scene(8), scene(1).resize((48, 48), Image.Resampling.LANCZOS)]), 0)
    assert near_across(train, held_out) == {"p2": "p1"}
    assert near_across(train, judge(found(encoded, [scene(9)]), 0)) == {}


def test_the_share_that_is_cut_off_follows_the_crop(encoded, scene):
    """To buckets, pictures lose less than to a square; what they lose is told for each."""
    a_set = found(encoded, [scene(0, (64, 64)), scene(1, (128, 64)), scene(2, (70, 64))])
    judgement = judge(a_set, 0)
    assert shares_cut(judgement) == {"p0": 0, "p1": 0.5, "p2": 1 - 64 / 70}
    crop = buckets(64, 8).cut_away
    assert shares_cut(judgement, crop)["p1"] == pytest.approx(1 / 6)
    assert {f.name for f in judge_whole(a_set, judgement) if f.kind == "cropped"} == {"p1"}
    assert not [f for f in judge_whole(a_set, judgement, cut=crop) if f.kind == "cropped"]
    (finding,) = [
        f for f in judge_whole(a_set, judgement, cut=lambda size: 0.3 * (size == (70, 64))) if f.kind == "cropped"
    ]
    assert "loses 30% to the crop to its bucket" in finding.message


def test_classes_are_uneven_by_how_often_they_are_drawn(encoded, scene):
    a_set = found(encoded, [scene(i) for i in range(4)], labels=["cat"] * 3 + ["dog"], kind="classes")
    even = Found((*a_set.pictures[:3], replace(a_set.pictures[3], repeats=3.0)), (), "classes")
    assert not remarks(even)
    uneven = Found((*a_set.pictures[:3], replace(a_set.pictures[3], repeats=12.0)), (), "classes")
    assert remarks(uneven) == {("", "uneven classes")}


def test_prior_pictures_need_no_words_of_their_own(encoded, scene):
    """A hundred pictures of `a dog` are what a prior is."""
    a_set = found(encoded, [scene(0), scene(1)], ["a dog", "a dog"])
    prior = Found(tuple(replace(p, prior=True) for p in a_set.pictures), (), "sidecars")
    assert remarks(a_set, "zxc") and not remarks(prior, "zxc")


def test_a_trigger_of_its_own_source_is_put_there_and_a_longer_word_is_none(encoded, scene):
    a_set = found(encoded, [scene(0), scene(1)], ["a dog", "a zxcs dog"])
    assert remarks(a_set, "zxc") == {("p0", "no trigger"), ("p1", "no trigger")}
    own = Found((replace(a_set.pictures[0], trigger="abc"), a_set.pictures[1]), (), "sidecars")
    assert remarks(own, "zxc") == {("p1", "no trigger")}
