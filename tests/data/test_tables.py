"""Local copies of data sets give the pictures and captions that went in, and leave nothing behind."""

import gc
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from adapt.data import find, judge, tables
from adapt.errors import DataError

datasets = pytest.importorskip("datasets")

TEXTS = ("a red fox", "two blue birds", "a house")


@pytest.fixture(scope="module", autouse=True)
def silent():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def rows(png):
    """name of the columns → Dataset of three pictures, undecoded."""

    def make(**columns):
        features = datasets.Features({"image": datasets.Image(), **{name: kind for name, (kind, _) in columns.items()}})
        image = [{"bytes": png(i), "path": f"{i}.png"} for i in range(3)]
        return datasets.Dataset.from_dict(
            {"image": image, **{n: v for n, (_, v) in columns.items()}}, features=features
        )

    return make


def text(values=TEXTS):
    return {"text": (datasets.Value("string"), list(values))}


def labels():
    return {"label": (datasets.ClassLabel(names=["red_kite", "owl"]), [1, 0, -1])}


def write(dataset, folder, kind):
    folder.mkdir(exist_ok=True)
    if kind == "parquet":
        dataset.to_parquet(folder / "train-00000-of-00001.parquet")
    elif kind == "hub":
        (folder / "data").mkdir()
        dataset.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
        (folder / "README.md").write_text("# a data set\n")
    elif kind == "disk":
        dataset.save_to_disk(str(folder))
    elif kind == "dictionary":
        datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("kind", ["parquet", "hub", "disk", "dictionary"])
def test_pictures_and_captions_come_out_as_they_went_in(tmp_path, rows, png, kind, state):
    folder = write(rows(**text()), tmp_path / "set", kind)
    before = state(folder)
    found = find(folder)
    assert found.kind == "table"
    assert [p.captions for p in found.pictures] == [(t,) for t in TEXTS]
    assert [p.read() for p in found.pictures] == [png(i) for i in range(3)]
    assert [p.name for p in found.pictures] == ["row-000000", "row-000001", "row-000002"]
    assert found.warnings == (("Only the split train is used, not test",) if kind == "dictionary" else ())
    assert state(folder) == before


def test_labels_have_names_and_become_captions(tmp_path, rows):
    found = find(write(rows(**labels()), tmp_path / "set", "parquet"))
    assert [(p.captions, p.label) for p in found.pictures] == [
        (("owl",), "owl"),
        (("red kite",), "red_kite"),
        ((), None),
    ]
    assert found.warnings == ("Pictures without a caption, trained with an empty one (1): row-000002",)


def test_text_wins_over_the_label_and_may_be_a_list(tmp_path, rows):
    several = {"captions": (datasets.List(datasets.Value("string")), [["a", "b"], [], ["c"]])}
    found = find(write(rows(**several, **labels()), tmp_path / "set", "disk"))
    assert [p.captions for p in found.pictures] == [("a", "b"), ("red kite",), ("c",)]


def test_a_damaged_picture_is_a_fault_of_its_row_not_of_the_table(tmp_path, png):
    image = [{"bytes": png(0), "path": None}, {"bytes": png(1)[:100], "path": None}]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    dataset = datasets.Dataset.from_dict({"image": image, "text": ["a", "b"]}, features=features)
    judgement = judge(find(write(dataset, tmp_path / "set", "parquet")), 16)
    assert [fault.name for fault in judgement.faults] == ["row-000001"]


def test_no_network_no_cache_and_no_words(tmp_path, rows):
    """A child with a home of its own and without sockets."""
    folder = write(rows(**text()), tmp_path / "set", "hub")
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        f"from adapt.data import find; print(len(find({str(folder)!r}).pictures))"
    )
    keep = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HOME": str(home / "hf"), "TMPDIR": str(temporary)}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=keep, cwd=root, timeout=60)
    assert done.stdout == "3\n", done.stderr
    assert done.stderr == ""
    assert [p for p in home.rglob("*") if p.is_file()] == [] and list(temporary.iterdir()) == []


def refused(folder, *words):
    with pytest.raises(DataError) as error:
        find(folder)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_tables_that_are_wrong(tmp_path, rows):
    bare = rows(**text()).remove_columns("image")
    refused(
        write(bare, tmp_path / "bare", "parquet"), "The table has no pictures", "with columns text", "allowed: a column"
    )
    torn = write(rows(**text()), tmp_path / "torn", "parquet")
    file = next(torn.glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-50])
    refused(torn, "The table cannot be read", str(torn))
    lost = write(rows(**text()), tmp_path / "lost", "disk")
    next(lost.glob("*.arrow")).unlink()
    refused(lost, "The table cannot be read", str(lost))


def test_pictures_that_a_table_only_names(tmp_path, png):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "0.x").write_bytes(png(0))
    dataset = datasets.Dataset.from_dict({"image": ["0.x", "1.x"], "text": ["a", "b"]})
    refused(write(dataset, folder, "parquet"), "Rows of the table have no picture", "row-000001", "1.x")
    (folder / "1.x").write_bytes(png(1))
    assert [p.read() for p in find(folder).pictures] == [png(0), png(1)]


def test_splits_without_train_are_refused(tmp_path, rows):
    datasets.DatasetDict({"a": rows(), "b": rows()}).save_to_disk(str(tmp_path / "set"))
    refused(tmp_path / "set", "several splits and none is train", "a, b", "Next: give a folder")
    assert len(find(tmp_path / "set" / "a").pictures) == 3


def test_progress_bars_are_left_as_they_were(tmp_path, rows):
    folder = write(rows(**text()), tmp_path / "set", "disk")
    datasets.enable_progress_bars()
    find(folder)
    assert not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    find(folder)
    assert datasets.are_progress_bars_disabled()


def test_pictures_are_not_decoded_while_reading(tmp_path, rows, monkeypatch):
    from PIL import Image

    folder = write(rows(**text()), tmp_path / "set", "disk")
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("decoded"))
    assert len(find(folder).pictures) == 3


@pytest.mark.parametrize("kind", ["parquet", "disk"])
def test_pictures_stay_on_disk(tmp_path, kind):
    """20 MiB of pictures, of which none is held. (`datasets` copies parquet files row group by row group.)"""
    image = [{"bytes": bytes([i]) * 2**20, "path": None} for i in range(20)]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": image, "text": ["x"] * 20}, features=features)
    folder = write(table, tmp_path / "set", kind)
    find(folder)  # what is imported and cached by the first call is none of the pictures
    del image, table
    tracemalloc.start()
    found = find(folder)
    assert tracemalloc.get_traced_memory()[kind == "disk"] < 2**20
    tracemalloc.reset_peak()
    assert [p.read()[:1] for p in found.pictures] == [bytes([i]) for i in range(20)]
    assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
    tracemalloc.stop()


def test_the_temporary_folder_lasts_as_long_as_the_pictures(tmp_path, rows, png, monkeypatch):
    folder = write(rows(**text()), tmp_path / "set", "parquet")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    pictures = find(folder).pictures[:1]
    gc.collect()
    assert pictures[0].read() == png(0) and list((tmp_path / "temporary").iterdir())
    del pictures
    gc.collect()
    assert not list((tmp_path / "temporary").iterdir())


def test_one_parquet_file_is_a_table(tmp_path, rows, png):
    folder = write(rows(**text()), tmp_path / "set", "parquet")
    found = find(next(folder.glob("*.parquet")))
    assert [(p.read(), p.captions) for p in found.pictures] == [(png(i), (t,)) for i, t in enumerate(TEXTS)]


def test_cells_without_a_picture_are_named(tmp_path, png):
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    image = [{"bytes": png(0), "path": "0.png"}, None, None]
    table = datasets.Dataset.from_dict({"image": image, "text": ["a", "b", "c"]}, features=features)
    refused(write(table, tmp_path / "set", "parquet"), "Rows of the table have no picture", "row-000001", "row-000002")


@pytest.mark.parametrize("kind", ["binary", "large_binary"])
def test_a_column_of_plain_bytes(tmp_path, png, kind):
    features = datasets.Features({"jpg": datasets.Value(kind), "prompt": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"jpg": [png(0), png(1)], "prompt": ["a", "b"]}, features=features)
    found = find(write(table, tmp_path / "set", "parquet"))
    assert [(p.read(), p.captions) for p in found.pictures] == [(png(0), ("a",)), (png(1), ("b",))]
    numbers = datasets.Dataset.from_dict({"image": [1, 2], "text": ["a", "b"]})
    refused(write(numbers, tmp_path / "numbers", "parquet"), "Rows of the table have no picture", "row-000000")


def test_processes_of_one_run_share_one_arrow_copy(tmp_path, rows, png, monkeypatch):
    """Two readers of the folder that the launcher gives them, and nothing of their own elsewhere."""
    folder = write(rows(**text()), tmp_path / "set", "parquet")
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    own.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    monkeypatch.setenv(tables.SHARED, str(shared))
    for source in (folder, folder / "train-00000-of-00001.parquet"):
        first, second = find(source), find(source)
        assert [p.read() for p in (*first.pictures, *second.pictures)] == [png(i) for i in range(3)] * 2
        copies = {path: path.stat().st_mtime_ns for path in shared.rglob("*.arrow")}
        assert [p.read() for p in find(source).pictures] == [png(i) for i in range(3)]
        assert {path: path.stat().st_mtime_ns for path in shared.rglob("*.arrow")} == copies
    assert len(copies) == 2 and list(own.iterdir()) == []
