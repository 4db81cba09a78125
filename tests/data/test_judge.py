"""Every picture is opened before step 1; all that is wrong is in one line, and nothing of the user's is touched."""

import random

import pytest
from PIL import Image

from adapt.data import Found, Picture, find, judge, split
from adapt.errors import DataError, SettingsError


def found(**contents):
    return Found(
        tuple(Picture(name, None, data, ("a thing",)) for name, data in sorted(contents.items())), (), "pictures"
    )


def words(caption):
    return len(caption.split()), 4


def kinds(judgement):
    return {(finding.name, finding.kind) for finding in judgement.warnings}


def bad_pictures(png, encoded):
    return {
        "cut": png()[:300],
        "empty": b"",
        "page": b"<html>",
        "dot": encoded(Image.new("RGB", (1, 1))),
        "strip": encoded(Image.new("RGB", (20000, 3))),
        "gif": encoded(Image.new("RGB", (32, 32)), "GIF"),
        "tiff": encoded(Image.new("F", (32, 32)), "TIFF"),
    }


def test_every_bad_picture_is_named_in_one_line(png, encoded):
    bad = bad_pictures(png, encoded)
    judgement = judge(found(**bad, good=png(1)), 16)
    assert {fault.name for fault in judgement.faults} == set(bad)
    assert {fault.name for fault in judgement.faults if fault.kind == "small"} == {"dot", "strip"}
    with pytest.raises(DataError) as error:
        judgement.require()
    line = str(error.value)
    assert line.startswith("7 of 8 pictures cannot be used (given: cut is cut off or damaged")
    assert "dot is 1 x 1 pixels: 16 or more a side are needed" in line and "and 2 more" in line
    assert line.endswith("Next: remove or replace them, or skip_bad=true") and "\n" not in line
    assert error.value.exit_code == 2


def test_bad_pictures_can_be_skipped_but_not_all(png, encoded):
    bad = bad_pictures(png, encoded)
    assert [p.name for p in judge(found(**bad, good=png(1)), 16).require(skip_bad=True)] == ["good"]
    with pytest.raises(DataError, match="No picture can be used"):
        judge(found(**bad), 16).require(skip_bad=True)


def test_a_file_that_goes_away_is_a_fault(tmp_path, png, write):
    write(tmp_path, a_png=png(0), b_png=png(1))
    here = find(tmp_path)
    (tmp_path / "a.png").unlink()
    assert [(f.name, f.kind) for f in judge(here, 16).faults] == [("a.png", "unreadable")]


def test_what_is_worth_knowing(png, noise, encoded):
    frames = [noise(seed) for seed in (5, 6)]
    judgement = judge(
        found(
            plain=png(0, 40, 40),
            twin=encoded(noise(0, 40, 40), "BMP"),
            moving=encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
            clear=encoded(Image.new("RGBA", (40, 40), (9, 9, 9, 9))),
            long=png(3, 200, 40),
        ),
        32,
    )
    assert not judgement.faults
    assert kinds(judgement) == {
        ("twin", "duplicate"),
        ("moving", "animated"),
        ("moving", "enlarged"),
        ("clear", "transparent"),
        ("long", "narrow"),
    }
    assert [f.message for f in judgement.warnings if f.name == "twin"] == ["shows the same pixels as plain: remove one"]


@pytest.mark.parametrize(("count", "few"), [(1, True), (4, True), (5, False)])
def test_very_few_pictures(png, count, few):
    judgement = judge(found(**{f"p{i}": png(i) for i in range(count)}), 16)
    assert ("", "few") in kinds(judgement) if few else not judgement.warnings


def test_captions_that_are_missing_or_too_long(png):
    captions = ((), ("one two three four",), ("one two three four five", "x"), ("x",), ("x",))
    pictures = tuple(Picture(f"p{i}", None, png(i), c) for i, c in enumerate(captions))
    judgement = judge(Found(pictures, (), "sidecars"), 16, words)
    assert kinds(judgement) == {("p0", "no caption"), ("p2", "long caption")}
    assert "5 tokens: the text encoder reads the first 4" in judgement.warnings[1].message
    assert kinds(judge(Found(pictures, (), "sidecars"), 16)) == {("p0", "no caption")}


def test_the_same_colour_in_another_shape_is_no_duplicate(encoded):
    shapes = {f"p{w}": encoded(Image.new("RGB", (w, 1024 // w), "red")) for w in (16, 32, 64)}
    assert "duplicate" not in {f.kind for f in judge(found(**shapes), 16).warnings}


def test_lines_group_warnings_of_one_kind(png):
    lines = judge(found(**{f"p{i}": png(i) for i in range(8)}), 64).lines()
    assert lines == [
        "8 pictures, enlarged: p0, p1, p2, p3, p4 and 3 more (the first is 24 x 20 pixels: it is enlarged to 64)"
    ]


def test_the_same_judgement_each_time_with_progress(png, encoded):
    contents = {f"p{i:02d}": png(i % 7) for i in range(20)} | bad_pictures(png, encoded)
    seen = []
    first = judge(found(**contents), 64, words, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 27) for i in range(1, 28)]
    assert all(judge(found(**contents), 64, words) == first for _ in range(3))


def test_nothing_is_changed(tmp_path, png, write, state):
    write(tmp_path, a_png=png(0), b_png=png(1)[:200], a_txt="a")
    before = state(tmp_path)
    judge(find(tmp_path), 16).require(skip_bad=True)
    assert state(tmp_path) == before


def test_a_wrong_background_is_a_setting_not_a_fault(png):
    with pytest.raises(SettingsError):
        judge(found(a=png()), 16, background="no-such-colour")


# ------------------------------------------------------------------------------------------------ split
def test_split_is_a_function_of_contents_and_seed(png):
    pictures = found(**{f"p{i:02d}": png(i) for i in range(20)}).pictures
    train, held = split(pictures, 0.2, 7)
    assert len(held) == 4 and sorted((*train, *held), key=lambda p: p.name) == list(pictures)
    assert [p for p in pictures if p in train] == list(train)
    shuffled = random.Random(1).sample(pictures, len(pictures))
    assert {p.name for p in split(shuffled, 0.2, 7)[1]} == {p.name for p in held}
    renamed = [Picture(f"z{i}", None, p.content) for i, p in enumerate(reversed(pictures))]
    assert {p.content for p in split(renamed, 0.2, 7)[1]} == {p.content for p in held}
    assert len({tuple(p.name for p in split(pictures, 0.2, seed)[1]) for seed in range(10)}) > 5


def test_exact_duplicates_stay_on_one_side(png, noise, encoded):
    pictures = found(**{f"p{i:02d}": png(i // 3) for i in range(30)}).pictures
    for seed in range(20):
        train, held = split(pictures, 0.3, seed)
        assert len(held) == 9 and not {p.content for p in train} & {p.content for p in held}
    same = found(a=png(0), b=encoded(noise(0), "BMP"), c=png(1))
    digests = judge(same, 16).digests
    sides = [{p.name for p in split(same.pictures, 0.5, seed, digests)[1]} for seed in range(20)]
    assert all(side in ({"c"}, {"a", "b"}) for side in sides)


def test_neither_side_may_be_empty(png):
    for pictures in (found(a=png()), found(a=png(), b=png())):
        with pytest.raises(DataError, match="Too few different pictures"):
            split(pictures.pictures, 0.5, 0)
    train, held = split(found(a=png(0), b=png(1)).pictures, 0.01, 0)
    assert len(train) == len(held) == 1
    train, held = split(found(a=png(0), b=png(1)).pictures, 0.99, 0)
    assert len(train) == len(held) == 1
    for fraction in (0, 1, -1, 2, float("nan")):
        with pytest.raises(SettingsError, match="out of range"):
            split(found(a=png(0), b=png(1)).pictures, fraction, 0)
