"""webdataset archives: members of one key belong together, bytes stay in the archive until they are asked for."""

import io
import json
import tarfile
import tracemalloc

import pytest

from adapt.data import find, judge
from adapt.data.folders import Reading
from adapt.data.picture import Span
from adapt.errors import DataError


@pytest.fixture
def shard(tmp_path):
    """name, members in order → a tar file."""

    def make(name, members, format_=tarfile.PAX_FORMAT, mode="w"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, mode, format=format_) as tar:
            for member, content in members:
                info = tarfile.TarInfo(member)
                data = content.encode() if isinstance(content, str) else content
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return make


def captions(found):
    return {p.name: p.captions for p in found.pictures}


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_of_one_key_belong_together(shard, png, encoded, noise, format_):
    jpeg = encoded(noise(1), "JPEG")
    members = [
        ("0001.png", png(0)), ("0001.txt", "a cat\n\nanother caption"), ("0002.jpg", jpeg),
        ("0002.json", json.dumps({"caption": "a dog", "width": 24})), ("dir/0003.PNG", png(3)),
        ("dir/0003.json", json.dumps({"text": ["x", "y"]})), ("0004.webp", encoded(noise(4), "WEBP")),
    ]  # fmt: skip
    found = find(shard("a.tar", members, format_))
    assert captions(found) == {
        "0001.png": ("a cat", "another caption"), "0002.jpg": ("a dog",), "dir/0003.png": ("x", "y"), "0004.webp": ()
    }  # fmt: skip
    assert [p.read() for p in found.pictures[:3]] == [png(0), jpeg, png(3)]
    assert found.kind == "archives" and found.warnings == (
        "Pictures without a caption, trained with an empty one (1): 0004.webp",
    )
    assert not judge(found, 16).faults


def test_long_names_and_names_in_any_script(shard, png):
    names = ["x" * 200, "dossier/écran 图片", "a" * 90 + "/" + "b" * 120]
    found = find(shard("a.tar", [(f"{name}.png", png(i)) for i, name in enumerate(names)]))
    assert [p.name for p in found.pictures] == [f"{name}.png" for name in names]
    assert [p.read() for p in found.pictures] == [png(i) for i in range(3)]


def test_text_beside_wins_over_json_and_the_key_ends_at_the_first_dot(shard, png):
    members = [
        ("a.png", png(0)),
        ("a.txt", "text"),
        ("a.json", '{"caption": "json"}'),
        ("b.v2.png", png(1)),
        ("b.txt", "b"),
    ]
    found = find(shard("a.tar", [*members, ("c.json", '{"prompt": "asked"}'), ("c.png", png(2))]))
    assert captions(found) == {"a.png": ("text",), "c.png": ("asked",)}  # `v2.png` is no ending of a picture
    assert [w for w in found.warnings if "without a picture of the same key (1): b" in w]


def test_hidden_members_folders_and_links_are_skipped(tmp_path, png):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (
            ("d", tarfile.DIRTYPE),
            ("l.png", tarfile.SYMTYPE),
            ("f.png", tarfile.FIFOTYPE),
            ("s.png", tarfile.GNUTYPE_SPARSE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name in ("._a.png", "__MACOSX/a.png", ".git/b.png", "./c.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png(0))
            tar.addfile(info, io.BytesIO(png(0)))
    assert [p.name for p in find(path).pictures] == ["c.png"]


def test_a_folder_or_a_row_of_archives(shard, png, tmp_path, monkeypatch):
    for i in range(3):
        shard(f"s/shard-{i:03d}.tar", [("0.png", png(i)), ("0.txt", f"shard {i}")])
    expected = {f"shard-{i:03d}/0.png": (f"shard {i}",) for i in range(3)}
    assert captions(find(tmp_path / "s")) == expected
    assert captions(find(tmp_path / "s" / "shard-{000..002}.tar")) == expected
    monkeypatch.chdir(tmp_path / "s")
    assert captions(find("shard-{001..002}.tar")) == dict(list(expected.items())[1:])
    with pytest.raises(DataError, match=r"2 of 4 archives are missing.*shard-003\.tar, shard-004\.tar"):
        find("shard-{001..004}.tar")
    with pytest.raises(DataError, match="range of archives is empty"):
        find("shard-{002..001}.tar")


def test_two_ranges_and_archives_of_one_name(shard, png, tmp_path):
    for a in (8, 9, 10):
        for b in (0, 1):
            shard(f"s/{a}/x{b}.tar", [("0.png", png(a + b))])
    found = find(tmp_path / "s" / "{8..10}" / "x{0..1}.tar")
    assert len({p.name for p in found.pictures}) == 6
    assert [p.read() for p in found.pictures] == [png(a + b) for a in (8, 9, 10) for b in (0, 1)]


def test_masks_in_archives(shard, png, encoded, noise):
    mask = encoded(noise(9).convert("L"))
    path = shard("a.tar", [("0.png", png(0)), ("0.mask.png", mask), ("1.png", png(1))])
    assert [p.mask.read() if p.mask else None for p in find(path, Reading(masks="files")).pictures] == [mask, None]
    assert {p.mask for p in find(path).pictures} == {None}
    assert {p.mask for p in find(path, Reading(masks="alpha")).pictures} == {"alpha"}


def test_edit_pairs_in_archives(shard, png):
    members = [
        ("0.source.png", png(0)), ("0.png", png(1)), ("0.txt", "make it snow"),
        ("1.input_image.png", png(2)), ("1.edited_image.png", png(3)), ("1.json", json.dumps({"edit_prompt": "rain"})),
    ]  # fmt: skip
    found = find(shard("a.tar", members)).pictures
    assert [(p.source.read(), p.read(), p.captions) for p in found] == [
        (png(0), png(1), ("make it snow",)), (png(2), png(3), ("rain",)),
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"0: several sources"):
        find(shard("b.tar", [*members, ("0.source.webp", png(5))]))


def test_pictures_stay_in_the_archive(shard):
    """20 MiB of pictures, of which nothing is read before it is asked for, and then no more than one."""
    path = shard("a.tar", [(f"{i}.png", bytes([i]) * 2**20) for i in range(20)])
    tracemalloc.start()
    found = find(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    assert {len(p.read()) for p in found.pictures} == {2**20}
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_headers_are_not_kept_while_an_archive_is_read(shard):
    path = shard("a.tar", [(f"{i:05d}.png", b"x") for i in range(3000)])
    tracemalloc.start()
    found = find(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.pictures) == 3000 and peak - held < 2 * 2**20


def test_nothing_is_unpacked_or_changed(shard, png, tmp_path, state):
    shard("s/a.tar", [("../0.png", png(0)), ("/etc/1.png", png(1))])
    before = state(tmp_path)
    assert len(find(tmp_path / "s").pictures) == 2
    assert state(tmp_path) == before


# ------------------------------------------------------------------------------------------------ faults
def refused(path, *words):
    with pytest.raises(DataError) as error:
        find(path)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_captions_that_are_wrong_are_all_named(shard, png):
    wrong = {
        "a": ("txt", "caf\u00e9".encode("latin-1"), "a: not UTF-8 at byte 3"), "b": ("txt", b"x\0y", "b: NUL at byte 1"),
        "c": ("json", b"{", "c: no JSON"), "d": ("json", b"[1]", "d: no JSON object"),
        "e": ("json", b'{"caption": {"en": "x"}}', "e: a caption is text"),
    }  # fmt: skip
    members = [
        row for key, (kind, text, _) in wrong.items() for row in ((f"{key}.png", png(0)), (f"{key}.{kind}", text))
    ]
    refused(
        shard("a.tar", members), "Captions in the archives cannot be read", *(words for *_, words in wrong.values())
    )
    refused(shard("b.tar", [("a.png", png(0)), ("a.json", "[" * 10**5)]), "a: no JSON")
    refused(shard("c.tar", [("a.png", png(0)), ("a.txt", "x" * (2**20 + 1))]), "a: larger than 1024 KiB")


def test_two_pictures_of_a_key(shard, png):
    refused(shard("a.tar", [("a.png", png(0)), ("a.jpg", png(1))]), "several pictures", "given: a", "keep one of each")


def test_no_pictures(shard, tmp_path):
    refused(shard("a.tar", [("a.txt", "x")]), "The archives hold no pictures", "a.tar")
    refused(shard("b.tar", []), "The archives hold no pictures")


def test_archives_that_are_none(tmp_path, shard, png):
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "text.tar").write_bytes(b"hello " * 500)
    refused(tmp_path / "empty.tar", "The archive cannot be read", "empty.tar")
    refused(tmp_path / "text.tar", "The archive cannot be read", "text.tar")
    refused(shard("packed.tar", [("a.png", png(0))], mode="w:gz"), "The archive cannot be read", "unpack .tar.gz")
    refused(tmp_path / "gone.tar", "does not exist", "gone.tar")


def test_a_cut_or_damaged_archive_is_never_taken_for_a_shorter_one(shard, png):
    path = shard("a.tar", [(f"{i}.png", png(i)) for i in range(4)])
    whole = path.read_bytes()
    headers = [span.content.start - 512 for span in find(path).pictures]
    end = headers[-1] + 512 + -(-len(png(3)) // 512) * 512
    for length in range(512, end, 509):
        if length in headers:
            continue
        path.write_bytes(whole[:length])
        try:
            last = find(path).pictures[-1]
        except DataError:
            continue
        assert judge(find(path), 16).faults, f"cut at {length}: {last.name}"
    for header in headers[1:]:
        damaged = bytearray(whole)
        damaged[header + 150] ^= 1  # its checksum
        path.write_bytes(damaged)
        refused(path, "The archive cannot be read", f"damaged at byte {header}")


def test_an_archive_that_shrinks_meanwhile(shard, png):
    path = shard("a.tar", [("a.png", png(0)), ("b.png", png(1))])
    found = find(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cut off: the archive ends before it"):
        found.pictures[1].read()
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        found.pictures[0].read()
    with pytest.raises(DataError, match="too large"):
        Span(path, 0, 2**40).read()
