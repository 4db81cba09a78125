"""kohya's folders with counts: told, and obeyed only when that is asked for."""

import pytest

from adapt.data import find
from adapt.data.folders import Reading
from adapt.data.kohya_layout import count_of, without_count
from adapt.errors import DataError

OBEYED = Reading(repeats="folders")


@pytest.fixture
def layout(tmp_path, png, write):
    """Ten times a dog, three times a cat that has a caption file, a picture without a count."""
    names = {"10_sks dog__a_png": png(0), "3_cat__b_png": png(1), "3_cat__b_txt": "my cat", "plain__c_png": png(2)}
    return write(tmp_path, **names)


def repeats(found):
    return {picture.name: picture.repeats for picture in found.pictures}


def test_counts_do_nothing_unless_asked_for_and_that_is_said(layout):
    found = find(layout)
    assert set(repeats(found).values()) == {1.0}
    (note,) = [warning for warning in found.warnings if "count" in warning]
    assert "10_sks dog, 3_cat" in note and "repeats=folders" in note and "plain" not in note


def test_counts_are_obeyed_when_asked_for_and_that_is_said(layout):
    found = find(layout, OBEYED)
    assert repeats(found) == {"10_sks dog/a.png": 10.0, "3_cat/b.png": 3.0, "plain/c.png": 1.0}
    assert "Pictures are repeated as their folders say (2): 10_sks dog, 3_cat" in found.warnings


@pytest.mark.parametrize("reading", [Reading(), OBEYED])
def test_class_tokens_are_the_caption_where_there_is_none(layout, reading):
    texts = {picture.name: picture.captions for picture in find(layout, reading).pictures}
    assert texts == {"10_sks dog/a.png": ("sks dog",), "3_cat/b.png": ("my cat",), "plain/c.png": ("plain",)}


def test_folders_without_counts_are_not_mentioned(tmp_path, png, write):
    write(tmp_path, cat__a_png=png(0), **{"2cats__b_png": png(1), "_10__c_png": png(2)})
    found = find(tmp_path, OBEYED)
    assert find(tmp_path).warnings == () and set(repeats(found).values()) == {1.0}
    assert found.warnings == ("No sub-folder begins with a count such as 10_cat: repeats=folders repeats nothing",)


@pytest.mark.parametrize("folder", ["0_cat", "20240131_holiday", "10001_x", "99999999999999999999_x"])
def test_counts_that_are_no_repeats_are_refused_only_when_they_count(tmp_path, png, write, folder):
    write(tmp_path, **{f"{folder}__a_png": png(0)})
    assert repeats(find(tmp_path)) == {f"{folder}/a.png": 1.0}
    with pytest.raises(DataError, match=rf"no number of repeats.*{folder}.*1_ to 10000_.*repeats=ignore"):
        find(tmp_path, OBEYED)


@pytest.mark.parametrize(
    ("name", "count", "rest"),
    [("10_cat", 10, "cat"), ("1_a_b", 1, "a_b"), ("007_x", 7, "x"), ("10_", None, "10_"), ("cat_10", None, "cat_10"),
     ("10 cat", None, "10 cat"), ("-3_cat", None, "-3_cat"), ("1.5_cat", None, "1.5_cat"), ("", None, "")],
)  # fmt: skip
def test_the_count_of_a_name(name, count, rest):
    assert (count_of(name), without_count(name)) == (count, rest)
