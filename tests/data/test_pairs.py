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


def test_a_column_control_is_one_of_them():
    assert {"control", "control_file_name", "control_image"} < set(COLUMNS)


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


def test_a_table_without_words_where_folders_sources_or_references_say_enough(place, png):
    """Classes come from the folders, captions from nowhere else."""
    found = told(place, *({"file_name": f"after/{i}.png", "control": f"before/{i}.png"} for i in range(2)))
    assert of(found) == {f"after/{i}.png": (png(2 * i), ("after",)) for i in range(2)}
    found = told(place, *({"file_name": f"after/{i}.png", "image_prompt": f"before/{i}.png"} for i in range(2)))
    assert [(p.label, p.reference.read()) for p in found.pictures] == [("after", png(0)), ("after", png(2))]
    with pytest.raises(DataError, match=r"lacks a column.*image_prompt"):
        told(place, {"file_name": "after/0.png", "size": 3})


@pytest.mark.parametrize("column", ["image_prompt", "reference_image"])
@pytest.mark.parametrize("kind", ["parquet", "disk"])
def test_tables_hold_references_and_controls(tmp_path, png, kind, column):
    """The picture that is learned is told apart whatever stands first; a row may lack a reference."""
    datasets = pytest.importorskip("datasets")
    cells = {
        name: [{"bytes": png(i + k), "path": None} for i in range(3)] for name, k in ((column, 5), ("control", 10))
    }
    cells[column][2] = None
    kinds = {name: datasets.Image() for name in (*cells, "image")}
    table = datasets.Dataset.from_dict(
        {**cells, "image": [{"bytes": png(i), "path": None} for i in range(3)]}, features=datasets.Features(kinds)
    )
    datasets.disable_progress_bars()
    table.to_parquet(tmp_path / "train.parquet") if kind == "parquet" else table.save_to_disk(str(tmp_path / "set"))
    found = find(tmp_path / "train.parquet" if kind == "parquet" else tmp_path / "set").pictures
    read = [(p.read(), p.source.read(), p.reference and p.reference.read()) for p in found]
    assert read == [(png(i), png(10 + i), png(5 + i) if i < 2 else None) for i in range(3)]
    assert judge(find(tmp_path / ("train.parquet" if kind == "parquet" else "set")), 16).faults == ()
