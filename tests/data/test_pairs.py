"""Edit pairs are found in metadata, in tables and in a folder of the same names; sources are not trained by themselves."""

import json

import pytest

from adapt.data import find, judge
from adapt.data.pairs import COLUMNS, require_sources, with_sources_of, without_sources
from adapt.errors import DataError


@pytest.fixture
def place(tmp_path, png):
    """Two pairs without metadata: `before/0.png` became `after/0.png` …"""
    for number in range(2):
        for name in ("before", "after"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.png").write_bytes(png(2 * number + (name == "after")))
    return tmp_path


def told(place, *rows):
    (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return find(place)


def of(found):
    return {p.name: (p.source.read() if p.source else None, p.captions) for p in found.pictures}


@pytest.mark.parametrize("column", COLUMNS)
def test_every_usual_column_names_the_source(place, png, column):
    rows = [{"file_name": f"after/{i}.png", column: f"before/{i}.png", "text": f"edit {i}"} for i in range(2)]
    found = told(place, *rows)
    assert of(found) == {f"after/{i}.png": (png(2 * i), (f"edit {i}",)) for i in range(2)}
    assert judge(found, 16).faults == ()


def test_columns_of_diffusers_scripts_and_one_source_of_two_pictures(place, png):
    found = told(
        place,
        *({"edited_image": f"after/{i}.png", "input_image": "before/0.png", "edit_prompt": "snow"} for i in range(2)),
    )
    assert of(found) == {
        "after/0.png": (png(0), ("snow",)),
        "after/1.png": (png(0), ("snow",)),
        "before/1.png": (None, ("before",)),
    }


def test_a_source_with_a_row_of_its_own_is_trained_too(place):
    rows = [{"file_name": f"after/{i}.png", "source": f"before/{i}.png", "text": "a"} for i in range(2)]
    found = told(place, *rows, {"file_name": "before/0.png", "source": "after/0.png", "text": "back"})
    assert sorted(p.name for p in found.pictures) == ["after/0.png", "after/1.png", "before/0.png"]


def test_sources_that_are_not_there_or_two_are_named(place):
    with pytest.raises(DataError, match=r"sources that are not there.*before/7.png"):
        told(place, {"file_name": "after/0.png", "source": "before/7.png", "text": "a"})
    rows = [{"file_name": "after/0.png", "source": f"before/{i}.png", "text": "a"} for i in range(2)]
    with pytest.raises(DataError, match=r"two sources.*after/0.png"):
        told(place, *rows)


def test_a_folder_of_the_same_names(place, png):
    found = with_sources_of(find(place / "after"), place / "before")
    assert [(p.name, p.source.read()) for p in found.pictures] == [("0.png", png(0)), ("1.png", png(2))]
    inside = with_sources_of(find(place), place / "before")  # the folder lies among the pictures
    assert [(p.name, p.source.read()) for p in inside.pictures] == [("after/0.png", png(0)), ("after/1.png", png(2))]
    (place / "after" / "2.png").write_bytes(png(9))
    with pytest.raises(DataError, match=r"no source of the same name.*2.png"):
        with_sources_of(find(place / "after"), place / "before")


def test_bases_that_do_not_edit_leave_sources_alone_and_say_so(place):
    found = told(place, {"file_name": "after/0.png", "source": "before/0.png", "text": "a"})
    plain = without_sources(found)
    assert all(picture.source is None for picture in plain.pictures)
    assert any("Sources of pictures (1)" in line for line in plain.warnings)
    require_sources(found.pictures[:1], 1, "the base edits pictures")
    with pytest.raises(DataError, match="1 of 1 pictures have no source"):
        require_sources(plain.pictures[:1], 1, "the base edits pictures")


def test_edits_of_one_source_stand_on_one_side_and_may_have_the_same_words(place):
    from adapt.data.whole import groups, judge_whole

    told(place, *({"file_name": f"after/{i}.png", "source": "before/0.png", "text": "snow"} for i in range(2)))
    found = find(place)
    judgement = judge(found, 16)
    sides = groups(judgement)
    assert sides["after/0.png"] == sides["after/1.png"] != sides["before/1.png"]
    assert "repeated caption" not in {finding.kind for finding in judge_whole(found, judgement)}


def test_tables_hold_both_pictures(tmp_path, png):
    datasets = pytest.importorskip("datasets")
    columns = {
        name: [{"bytes": png(i + k), "path": None} for i in range(2)]
        for k, name in ((0, "input_image"), (5, "edited_image"))
    }
    kinds = {"input_image": datasets.Image(), "edit_prompt": datasets.Value("string"), "edited_image": datasets.Image()}
    table = datasets.Dataset.from_dict({**columns, "edit_prompt": ["snow", "rain"]}, features=datasets.Features(kinds))
    datasets.disable_progress_bars()
    table.to_parquet(tmp_path / "train.parquet")
    found = find(tmp_path / "train.parquet")
    assert [(p.read(), p.source.read(), p.captions) for p in found.pictures] == [
        (png(5), png(0), ("snow",)),
        (png(6), png(1), ("rain",)),
    ]
