"""The same pictures and captions from every kind of folder; whatever is wrong is named, all of it at once."""

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from adapt.data import Picture, find
from adapt.errors import DataError


def captions(found):
    return {picture.name: picture.captions for picture in found.pictures}


def table(found):
    return [(picture.captions, picture.label) for picture in found.pictures]


# ------------------------------------------------------------------------------------------------ where captions are
def test_caption_files(tmp_path, png, write):
    write(
        tmp_path,
        b_png=png(1),
        b_txt="a bird\n\n  a second line \n",
        a_JPG=png(0),
        a_caption="\ufeffan apple",
        c_bmp=png(2),
    )
    found = find(tmp_path)
    assert captions(found) == {"a.JPG": ("an apple",), "b.png": ("a bird", "a second line"), "c.bmp": ()}
    assert found.kind == "sidecars" and found.pictures[0].read() == png(0)
    assert found.warnings == ("Pictures without a caption, trained with an empty one (1): c.bmp",)


@pytest.mark.parametrize("column", ["text", "caption", "captions"])
def test_metadata_jsonl(tmp_path, png, write, column):
    rows = [
        {"file_name": "sub/b.png", column: ["one", "two"]},
        {"file_name": "a.png", column: "a, b"},
        {"file_name": "a.png", column: "c"},
        {"file_name": "./d.png", column: None},
    ]
    write(tmp_path, a_png=png(0), sub__b_png=png(1), d_png=png(2), metadata_jsonl="\n".join(map(json.dumps, rows)))
    found = find(tmp_path)
    assert captions(found) == {"a.png": ("a, b", "c"), "d.png": (), "sub/b.png": ("one", "two")}
    assert found.kind == "metadata"


def test_metadata_csv_takes_cells_as_they_are_written(tmp_path, png, write):
    text = 'file_name,text,label\r\na.png,"001, true\nNA",1\r\nsub\\b.png,NA,two\r\n'
    write(tmp_path, a_png=png(0), sub__b_png=png(1), metadata_csv="\ufeff" + text)
    assert table(find(tmp_path)) == [(("001, true NA",), "1"), (("NA",), "two")]


def test_metadata_in_a_sub_folder_is_relative_to_it(tmp_path, png, write):
    write(tmp_path, s__a_png=png(0), s__metadata_csv="file_name,text\na.png,in s\n", a_png=png(1))
    assert captions(find(tmp_path)) == {"a.png": (), "s/a.png": ("in s",)}


def test_class_folders(tmp_path, png, write):
    write(tmp_path, **{"tabby-cat__a_png": png(0), "10_old_dog__b_png": png(1), "images__c_png": png(2)})
    found = find(tmp_path)
    assert [(p.name, p.captions, p.label) for p in found.pictures] == [
        ("10_old_dog/b.png", ("old dog",), "old_dog"),
        ("images/c.png", (), None),
        ("tabby-cat/a.png", ("tabby cat",), "tabby-cat"),
    ]
    assert found.kind == "classes" and any("begin with a count" in warning for warning in found.warnings)


def test_a_label_column_gives_label_and_caption(tmp_path, png, write):
    write(tmp_path, a_png=png(), metadata_csv="file_name,label\na.png,red-kite\n")
    assert table(find(tmp_path)) == [(("red kite",), "red-kite")]


def test_the_nearest_caption_wins(tmp_path, png, write):
    write(tmp_path, cat__a_png=png(0), cat__a_txt="beside", cat__b_png=png(1), cat__c_png=png(2), cat__d_png=png(3))
    write(tmp_path, cat__d_txt=" \n", metadata_csv="file_name,text\ncat/a.png,row\ncat/b.png,row\n")
    found = find(tmp_path)
    expected = {"cat/a.png": ("beside",), "cat/b.png": ("row",), "cat/c.png": ("cat",), "cat/d.png": ()}
    assert captions(found) == expected
    assert "Metadata rows unused, because a caption file beside the picture wins (1): cat/a.png" in found.warnings


@pytest.mark.parametrize("kind", ["sidecars", "jsonl", "csv", "parquet"])
def test_every_kind_of_folder_gives_the_same(tmp_path, png, write, kind):
    texts = {f"p{i}.png": f"picture {i}, with a comma" for i in range(4)}
    write(tmp_path, **{f"p{i}_png": png(i) for i in range(4)})
    rows = [{"file_name": name, "text": text} for name, text in texts.items()]
    if kind == "sidecars":
        write(tmp_path, **{f"p{i}_txt": f"picture {i}, with a comma" for i in range(4)})
    elif kind == "jsonl":
        write(tmp_path, metadata_jsonl="\n".join(map(json.dumps, rows)))
    elif kind == "csv":
        write(tmp_path, metadata_csv="file_name,text\n" + "".join(f'{n},"{t}"\n' for n, t in texts.items()))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    found = find(tmp_path)
    assert {p.name: p.captions for p in found.pictures} == {name: (text,) for name, text in texts.items()}
    assert [p.read() for p in found.pictures] == [png(i) for i in range(4)]
    assert found.warnings == ()


# ------------------------------------------------------------------------------------------------ order, odd files
def test_the_order_is_that_of_the_names(tmp_path, png, write, monkeypatch):
    write(
        tmp_path,
        **{
            f"{folder}{name}_png": png(i)
            for i, (folder, name) in enumerate(
                (folder, name) for folder in ("", "z__", "a__") for name in ("b", "10", "9", "é")
            )
        },
    )
    outside = tmp_path.parent / f"{tmp_path.name}-outside.png"
    outside.write_bytes(png(99))
    (tmp_path / "aa.png").symlink_to(outside)
    expected = find(tmp_path)
    assert len(expected.pictures) == 13 and [p.name for p in expected.pictures] == sorted(
        p.name for p in expected.pictures
    )
    real = os.listdir

    def shuffled(path):
        names = real(path)
        random.Random(str(path)).shuffle(names)
        return names

    monkeypatch.setattr(os, "listdir", shuffled)
    assert find(tmp_path) == expected


def test_loops_pipes_sockets_and_hidden_files_are_skipped(tmp_path, png, write):
    write(tmp_path, a_png=png(0), b__c_png=png(1), **{".hidden_png": png(2), ".git__d_png": png(3)})
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "a-link").symlink_to(tmp_path / "b")
    (tmp_path / "twin.png").hardlink_to(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        found = find(tmp_path)
    assert [p.name for p in found.pictures] == ["a.png", "b/c.png"]
    text = " | ".join(found.warnings)
    assert "same file as another, used once (1): twin.png" in text and "lead nowhere (1): self.png" in text


def test_pictures_behind_links_are_found(tmp_path, png, write):
    """The Hub's cache is such a folder: links to blobs, and equal captions are one blob."""
    write(tmp_path, blobs__1_x=png(0), blobs__2_x=png(1), blobs__3_x="a thing")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name, blob in (("a.png", "1.x"), ("b.png", "2.x"), ("a.txt", "3.x"), ("b.txt", "3.x")):
        (folder / name).symlink_to(f"../blobs/{blob}")
    assert captions(find(folder)) == {"a.png": ("a thing",), "b.png": ("a thing",)}


@pytest.mark.parametrize(
    "name", ["two\nlines.png", "☃ 🦊.png", "a.b.c.png", b"\xff\xfe.png".decode(errors="surrogateescape")]
)
def test_odd_names(tmp_path, png, name):
    (tmp_path / name).write_bytes(png())
    (tmp_path / name).with_suffix(".txt").write_text("odd")
    [picture] = find(tmp_path).pictures
    assert picture.captions == ("odd",) and picture.read() == png()
    picture.name.encode()


def test_letters_composed_and_decomposed_match(tmp_path, png, write):
    (tmp_path / "cafe\u0301.png").write_bytes(png())
    write(tmp_path, metadata_csv="file_name,text\ncaf\u00e9.png,coffee\n")
    assert [p.captions for p in find(tmp_path).pictures] == [("coffee",)]


def test_what_lies_beside_is_a_warning_or_nothing(tmp_path, png, write):
    write(
        tmp_path,
        a_png=png(),
        a_txt="a",
        LICENSE_txt="free",
        README_md="hi",
        gone_txt="where",
        b_gif=b"GIF89a",
        Thumbs_db=b"",
    )
    assert find(tmp_path).warnings == (
        "Caption files without a picture of the same name (1): gone.txt",
        "Pictures of a type that is not read, to be converted to PNG (1): b.gif",
    )


def test_control_characters_become_spaces(tmp_path, png, write):
    write(tmp_path, a_png=png(), metadata_jsonl=json.dumps({"file_name": "a.png", "text": "a\tb\x07c\ud83d"}))
    assert find(tmp_path).pictures[0].captions == ("a b c?",)


def test_nothing_is_changed(tmp_path, png, write, state):
    write(tmp_path, a_png=png(0), a_txt="a", s__b_png=png(1), s__metadata_csv="file_name,text\nb.png,b\n")
    before = state(tmp_path)
    find(tmp_path)
    assert state(tmp_path) == before


# ------------------------------------------------------------------------------------------------ bad input
def refused(source, *words):
    with pytest.raises(DataError) as error:
        find(source)
    line = str(error.value)
    assert error.value.exit_code == 2 and "\n" not in line
    for word in words:
        assert word in line, line
    return error.value


def test_no_folder(tmp_path, png, write):
    refused(tmp_path / "gone", "does not exist", str(tmp_path / "gone"), "Next: give a folder of pictures")
    refused(tmp_path, "is empty", str(tmp_path), ".png, .jpg")
    write(tmp_path, a_png=png())
    refused(tmp_path / "a.png", "is a file, not a folder", f"Next: give a folder of pictures: {tmp_path}")
    refused("bad\0name", "The folder")
    refused("~no-such-user-here/x", "The folder")


def test_no_pictures(tmp_path, write):
    write(tmp_path, a_gif=b"GIF89a", b_txt="b", LICENSE_md="x")
    refused(tmp_path, "no pictures", "3 files of type .gif, .md, .txt", ".png, .jpg, .jpeg, .webp, .bmp", "convert")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a caf\u00e9".encode("latin-1"), "not UTF-8 at byte 5"),
        ("hello".encode("utf-16"), "UTF-16, not UTF-8, at byte 0"),
        ("hello".encode("utf-16-le"), "NUL at byte 1"),
        (b"x" * (2**20 + 1), "larger than 1024 KiB"),
    ],
)
def test_caption_files_that_are_not_utf8(tmp_path, png, write, content, words):
    write(tmp_path, **{f"p{i}_png": png(i) for i in range(7)}, **{f"p{i}_txt": content for i in range(7)})
    refused(tmp_path, "p0.txt: " + words, "p4.txt", "and 2 more", "allowed: UTF-8 text", "Next: save them as UTF-8")


@pytest.mark.parametrize(("first", "second"), [("a.png", "a.jpg"), ("a.png", "A.png"), ("s/a.png", "s/a.webp")])
def test_the_same_stem_twice(tmp_path, png, first, second):
    for i, name in enumerate((first, second)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(i))
    refused(tmp_path, "differ only in the ending", first, second, "Next: rename or remove one")
    rows = [json.dumps({"file_name": name, "text": name}) for name in (first, second)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    assert len(find(tmp_path).pictures) == 2
    (tmp_path / first).with_suffix(".txt").write_text("whose?")
    if first.lower() != second.lower():
        refused(tmp_path, "differ only in the ending")


def test_two_caption_files_for_one_picture(tmp_path, png, write):
    write(tmp_path, a_png=png(), a_txt="one", a_caption="two")
    refused(tmp_path, "two caption files", "a.caption and a.txt", "keep one")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "metadata.csv",
            "file_name,text\na.png,a\nb.png,b\nc.png,c\n",
            ("no pictures here", "b.png, c.png", "Next: add"),
        ),
        ("metadata.csv", "file_name,text\n../a.png,a\n", ("no pictures here", "../a.png")),
        ("metadata.csv", "image,text\na.png,a\n", ("lacks a column", "columns image, text", "file_name and text")),
        ("metadata.csv", "file_name,size\na.png,1\n", ("lacks a column", "columns file_name, size")),
        ("metadata.csv", "file_name,text\na.png,one, two\n", ("line 2 has more values", "double quotes")),
        (
            "metadata.csv",
            'file_name,text\na.png,"open\n',
            ("metadata.csv cannot be read", "unexpected end of data after line 1"),
        ),
        ("metadata.csv", "file_name,text\n,a\n", ("line 2: no file_name",)),
        ("metadata.csv", "", ("has no rows", "Next: fill or remove it")),
        ("metadata.csv", b"file_name,text\na.png,\xe9\n", ("not UTF-8 at byte 21",)),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a"}\n{"file_name": ', ("line 2 is no JSON",)),
        ("metadata.jsonl", '[{"file_name": "a.png"}]', ("line 1 is no JSON object",)),
        ("metadata.jsonl", '{"file_name": 3, "text": "a"}', ("line 1: no file_name",)),
        ("metadata.jsonl", '{"file_name": "a.png", "text": {"en": "a"}}', ("line 1: a caption is text", "not dict")),
        ("metadata.parquet", b"PAR1 not really", ("table cannot be read", "metadata.parquet")),
    ],
)
def test_metadata_that_is_wrong(tmp_path, png, write, name, content, words):
    write(tmp_path, a_png=png())
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    refused(tmp_path, *words)


def test_two_metadata_files(tmp_path, png, write):
    write(tmp_path, a_png=png(), metadata_csv="file_name,text\na.png,a\n", metadata_jsonl="{}")
    refused(tmp_path, "several metadata files", "metadata.csv, metadata.jsonl", "keep one")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user")
def test_what_another_user_may_not_read(png, write):
    """Root may read everything: a child without its rights looks. (pytest's own folders are closed to it.)"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, a_png=png(), locked__b_png=png(1), c_png=png(2), c_txt="x")
        folder.chmod(0o755)
        (folder / "locked").chmod(0)
        assert "locked" in _as_nobody(folder)
        (folder / "locked").chmod(0o755)
        (folder / "c.txt").chmod(0)
        assert "c.txt: Permission denied" in _as_nobody(folder)


def _as_nobody(folder):
    code = f"import os; os.setuid(65534)\ntry: find({str(folder)!r})\nexcept DataError as e: print(e)"
    imports = "from adapt.data import find\nfrom adapt.errors import DataError\n"
    done = subprocess.run([sys.executable, "-c", imports + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------------------ a picture's bytes
def test_a_file_that_is_gone_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read: No such file.*a\.png"):
        Picture("a.png", tmp_path / "a.png", None).read()


def test_an_enormous_file_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="too large"):
        Picture("a.png", tmp_path / "a.png", None).read()


def test_finding_and_judging_import_no_torch():
    code = "import sys, adapt.data, adapt.data.find, adapt.data.judge; print({'torch', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "set()", done.stderr


def test_every_public_name_is_there_and_no_module_hides_it():
    code = (
        "import adapt.data.encode, adapt.data.find, adapt.data.split, adapt.data.decode, adapt.data as d\n"
        "print([n for n in d.__all__ if not callable(getattr(d, n))], d.__all__ == sorted(d.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[] True", done.stderr
