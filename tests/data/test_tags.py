"""Variants of captions made of tags: what stays, what moves, what is left out; the same for ever."""

import math
from dataclasses import replace
from itertools import permutations

import pytest

from adapt.data import Picture
from adapt.data.captions import holds, names_a_side
from adapt.data.tags import Tags, arranged, parts_of, wordings

CAPTION = "zxc, a, b, c, d, e"


def tags_of(text):
    return tuple(text.split(", "))


def test_kept_tags_stay_and_the_others_only_change_places():
    for text in wordings(CAPTION, Tags(0, keep=2, variants=30)):
        assert tags_of(text)[:2] == ("zxc", "a") and sorted(tags_of(text)) == sorted(tags_of(CAPTION))


def test_without_shuffling_or_dropout_every_variant_is_the_caption():
    assert wordings(CAPTION, Tags(0, shuffle=False, variants=3)) == (CAPTION,) * 3


def test_variants_depend_on_seed_caption_and_number_alone():
    few, many = (wordings(CAPTION, Tags(7, dropout=0.3, variants=n)) for n in (5, 40))
    assert many[:5] == few == wordings(CAPTION, Tags(7, dropout=0.3, variants=5))
    assert wordings(CAPTION, Tags(8, dropout=0.3, variants=40)) != many
    other = wordings(CAPTION.replace("a", "A"), Tags(7, dropout=0.3, variants=40))
    assert [text.replace("A", "a") for text in other] != list(many)
    assert len(set(many)) > 20


def test_every_tag_stands_before_every_other_as_often_as_behind_it():
    texts = [tags_of(text) for text in wordings(CAPTION, Tags(3, variants=8))]
    for a, b in permutations(tags_of(CAPTION), 2):
        assert sum(text.index(a) < text.index(b) for text in texts) == 4


def test_all_orders_come_about_equally_often():
    counts = dict.fromkeys(permutations("abc"), 0)
    for seed in range(300):
        for text in wordings("a, b, c", Tags(seed, variants=4)):
            counts[tags_of(text)] += 1
    expected = 300 * 4 / 6
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 4 * 20.5  # chi², 5 degrees, p = 0.001, pairs


def test_tags_are_left_out_as_often_as_asked_each_for_itself():
    texts = [
        tags_of(text) for seed in range(200) for text in wordings(CAPTION, Tags(seed, keep=1, dropout=0.3, variants=4))
    ]
    for tag in "abcde":
        share = sum(tag in text for text in texts) / len(texts)
        assert abs(share - 0.7) < 4 * math.sqrt(0.21 / len(texts))
    both = sum("a" in text and "b" in text for text in texts) / len(texts)
    assert abs(both - 0.49) < 0.07
    assert all(text[0] == "zxc" for text in texts)


def test_dropout_alone_keeps_the_order():
    for text in wordings(CAPTION, Tags(0, shuffle=False, dropout=0.5, variants=20)):
        assert [tag for tag in tags_of(CAPTION) if tag in tags_of(text)] == [tag for tag in tags_of(text) if tag]


def test_an_opposite_variant_leaves_out_other_tags():
    """The two of a pair share their order, not what they lack."""
    pairs = [wordings(CAPTION, Tags(seed, dropout=0.5, variants=2)) for seed in range(20)]
    assert any(set(tags_of(a)) != set(tags_of(b)) for a, b in pairs)


def test_all_or_none_may_be_left_out():
    assert set(wordings("a, b", Tags(0, dropout=1.0))) == {""}
    assert set(wordings("a, b", Tags(0, keep=1, dropout=1.0))) == {"a"}


def test_the_trigger_stays_in_front_besides_what_is_kept():
    for text in wordings("x, a zxc b, y, z", Tags(0, keep=1, dropout=0.9, variants=30, trigger="zxc")):
        assert text.startswith("a zxc b, x")
    assert parts_of("cats, cat, dog", Tags(0, trigger="cat")).first == ("cat",)  # cats is another word


def test_a_fence_says_what_stays_in_front_and_at_the_end():
    rule = Tags(0, keep=1, variants=30, fence="|||")
    for text in wordings("a, b ||| c, d, e ||| f, g", rule):
        assert text.startswith("a, b, ") and text.endswith(", f, g") and sorted(text) == sorted("a, b, c, d, e, f, g")
    assert parts_of("a, b ||| c, d", rule).last == ()
    assert parts_of("a, b", rule).first == ("a",)  # no fence: keep counts
    assert parts_of("a ||| b, zxc, c", replace(rule, trigger="zxc")).first == ("a", "zxc")
    assert parts_of("a ||| b ||| c ||| d, e", rule).last == ("c", "d", "e")
    assert wordings("a ||| b", replace(rule, shuffle=False, variants=1)) == ("a, b",)


def test_readers_see_captions_without_fences():
    rule = Tags(0, fence="|||")
    picture = Picture("p", None, b"", ("c, d ||| b, a ||| e", "b,a"), tags=rule)
    assert picture.plain == ("c, d, b, a, e", "b,a")
    assert replace(picture, tags=None).plain == picture.captions


def test_an_order_follows_its_draws():
    parts = parts_of("k, a, b, c", Tags(0, keep=1))
    assert arranged(parts, Tags(0), [0.9, 0.1, 0.5], [1, 1, 1]) == "k, b, c, a"
    assert arranged(parts, Tags(0, dropout=0.2), [0.9, 0.1, 0.5], [0.2, 0.19, 1]) == "k, c, a"


@pytest.mark.parametrize("caption", ["", " ", ",", ", ,,", "one", "one,", "ü, 🦊, \u202e"])
def test_odd_captions_have_variants_too(caption):
    rule = Tags(0, dropout=0.5)
    assert len(wordings(caption, rule)) == 8
    assert all(set(text) <= set(caption) | {",", " "} for text in wordings(caption, rule))


def test_each_caption_of_a_picture_is_drawn_as_often_as_another():
    """One that has nothing to move counts as much as one with many orders."""
    picture = Picture("p", None, b"", ("prose about a cat", CAPTION), tags=Tags(0, variants=6))
    assert len(picture.texts) == 12 and picture.texts[:6] == ("prose about a cat",) * 6
    assert Picture("p", None, b"").texts == ("",) and Picture("p", None, b"", ("a", "b")).texts == ("a", "b")
    assert Picture("p", None, b"", tags=Tags(0, variants=2)).texts == ("", "")


# ------------------------------------------------------------------------------------------------ words
@pytest.mark.parametrize(
    ("caption", "says"),
    [
        ("a dog looking left", True), ("LEFT ear", True), ("right-handed batter", True), ("right_hand up", True),
        ("the rightmost tree", True), ("leftward glance", True), ("lefthanded", True), ("(left)", True), ("left", True),
        ("left, right", True), ("bright sky", False), ("copyright", False), ("leftover food", False), ("cleft chin", False),
        ("righteous", False), ("", False), ("aleft", False), ("2left", False),
    ],
)  # fmt: skip
def test_left_and_right_are_words(caption, says):
    assert names_a_side(caption) is says
    assert Picture("p", None, b"", ("plain", caption)).flippable is not says


@pytest.mark.parametrize(
    ("caption", "trigger", "held"),
    [
        ("a cat", "cat", True), ("a catalogue", "cat", False), ("a bobcat", "cat", False), ("cat, dog", "cat", True),
        ("a zxc dog", "zxc dog", True), ("a zxc  dog", "zxc dog", False), ("C++ code", "C++", True), ("(cat)", "cat", True),
        ("Cat", "cat", False), ("", "cat", False), ("a.b", "a+b", False), ("ein Fuchsß", "Fuchs", False), ("图, 猫", "猫", True),
    ],
)  # fmt: skip
def test_a_trigger_is_a_word_of_its_own(caption, trigger, held):
    assert holds(caption, trigger) is held
