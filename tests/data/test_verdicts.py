"""A second start decodes nothing again, and never believes what it should not."""

import json
from importlib import import_module

import pytest

from adapt.data import Found, Picture, judge
from adapt.data.judge import verdicts_of
from adapt.data.verdicts import VerdictCache


@pytest.fixture
def folder(tmp_path, png, monkeypatch):
    """Files of three pictures: a good one, one cut off, a tiny one; their verdicts go to a cache of the test's own."""
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in {"a": png(0, 40, 30), "b": png(1)[:200], "c": png(2, 8, 8)}.items():
        (folder / f"{name}.png").write_bytes(data)
    return folder


def found(folder):
    return Found(tuple(Picture(path.name, path, None, ("x",)) for path in sorted(folder.iterdir())), (), "sidecars")


def judged(folder, background="white"):
    with verdicts_of(folder, background) as verdicts:
        return judge(found(folder), 0, background=background, verdicts=verdicts)


MODULE = import_module("adapt.data.media.pictures")


@pytest.fixture
def decoded(monkeypatch):
    """The pictures that were decoded, one after the other."""
    calls, examine = [], MODULE.examine
    monkeypatch.setattr(MODULE, "examine", lambda data, background: (calls.append(data), examine(data, background))[1])
    return calls


def test_the_second_time_nothing_is_decoded_and_the_judgement_is_the_same(folder, decoded):
    first = judged(folder)
    assert len(decoded) == 3 and [f.kind for f in first.faults] == ["unreadable", "small"]
    second = judged(folder)
    assert second == first and len(decoded) == 3
    assert second.looks["a.png"].size == (40, 30) and second.looks["a.png"].likeness == first.looks["a.png"].likeness
    assert [p.digest for p in second.pictures] == [p.digest for p in first.pictures]
    assert second.usable[0].size == (40, 30)
    assert judge(found(folder), 0) == first  # and the same as without


def test_what_is_new_or_changed_is_decoded(folder, decoded, png):
    judged(folder)
    (folder / "b.png").write_bytes(png(3, 40, 30))
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes())  # known by its content
    del decoded[:]
    assert [p.name for p in judged(folder).usable] == ["a.png", "b.png", "d.png"]
    assert decoded == [png(3, 40, 30)]


@pytest.mark.parametrize("change", ["background", "source", "version"])
def test_a_verdict_counts_only_for_what_it_depends_on(folder, decoded, monkeypatch, change, tmp_path):
    judged(folder)
    del decoded[:]
    if change == "background":
        judged(folder, "black")
    elif change == "source":
        judged(folder.rename(tmp_path / "elsewhere"))
    else:
        monkeypatch.setattr(MODULE, "VERSION", 99)
        judged(folder)
    assert len(decoded) == 3


def test_every_damage_of_the_file_means_judging_again(folder, decoded):
    first = judged(folder)
    path = verdicts_of(folder).path
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 3
        path.write_bytes(damaged)
        assert not verdicts_of(folder)._known
    for length in (0, 10, 65, len(data) - 1):
        path.write_bytes(data[:length])
        assert not verdicts_of(folder)._known
    assert judged(folder) == first and len(decoded) == 6
    assert path.read_bytes() == data


def test_the_file_does_not_outgrow_the_pictures(folder):
    judged(folder)
    lines = len(verdicts_of(folder).path.read_bytes().splitlines())
    for name in ("b", "c"):
        (folder / f"{name}.png").unlink()
    judged(folder)
    assert lines == 4 and len(verdicts_of(folder).path.read_bytes().splitlines()) == 2


def test_what_was_judged_before_a_stop_is_kept(folder, decoded):
    judged(folder)
    with pytest.raises(KeyboardInterrupt), verdicts_of(folder) as verdicts:
        verdicts.put("f" * 64, {"fault": ["small", "is small"]})
        raise KeyboardInterrupt
    del decoded[:]
    assert verdicts_of(folder).get("f" * 64) == {"fault": ["small", "is small"]}
    judged(folder)
    assert not decoded


def test_a_cache_that_cannot_be_written_is_no_fault(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "file"))
    assert len(judged(folder).usable) == 1


def test_nothing_is_written_when_nothing_is_new(folder, tmp_path):
    judged(folder)
    path = verdicts_of(folder).path
    inode = path.stat().st_ino
    judged(folder)
    assert path.stat().st_ino == inode
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_verdicts_are_json(tmp_path):
    with VerdictCache("somewhere", [1], tmp_path) as verdicts:
        verdicts.put("0" * 64, {"likeness": 2**255 + 1, "sharpness": 0.1, "size": [3, 4], "text": "ü\n"})
    line = verdicts.path.read_bytes().splitlines()[1]
    assert json.loads(line[64:])["likeness"] == 2**255 + 1
    assert VerdictCache("somewhere", [1], tmp_path).get("0" * 64)["text"] == "ü\n"
    assert VerdictCache("somewhere", [2], tmp_path).get("0" * 64) is None
