"""Files are whole or absent, and the same bytes for the same contents."""

import os
import stat

import pytest
import torch

from adapt import files


def _tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _names(folder):
    return [p.name for p in folder.iterdir()]


def _make(path, **content):
    with files.whole_folder(path) as inside:
        for name, text in content.items():
            (inside / name).parent.mkdir(exist_ok=True)
            (inside / name).write_text(text)
    return path


@pytest.fixture
def folder(tmp_path):
    with files.whole_folder(tmp_path / "state") as inside:
        (inside / "deep").mkdir()
        (inside / "deep" / "weights").write_bytes(bytes(range(64)))
        (inside / "state.json").write_text('{"step": 3}')
        (inside / "empty").touch()
    return tmp_path / "state"


def test_a_whole_folder_is_undamaged_and_leaves_nothing_beside(folder):
    assert files.damage(folder) is None
    assert _names(folder.parent) == ["state"]


def test_an_exception_leaves_the_old_folder_and_nothing_else(tmp_path):
    path = _make(tmp_path / "state", a="old", b="old too")
    before = _tree(tmp_path)
    with pytest.raises(KeyError), files.whole_folder(path) as inside:
        (inside / "a").write_text("new")
        raise KeyError
    assert _tree(tmp_path) == before
    with pytest.raises(KeyError), files.whole_folder(tmp_path / "other") as inside:
        (inside / "a").write_text("new")
        raise KeyError
    assert _tree(tmp_path) == before and _names(tmp_path) == ["state"]


def test_a_new_folder_takes_the_place_of_the_old_one_whole(tmp_path):
    _make(tmp_path / "state", a="old", gone="old")
    _make(tmp_path / "state", a="new")
    assert sorted(_tree(tmp_path)) == ["state/a", "state/manifest.json"]
    assert (tmp_path / "state" / "a").read_text() == "new"
    assert files.damage(tmp_path / "state") is None


def test_a_failed_replacement_puts_the_old_folder_back(tmp_path, monkeypatch):
    path = _make(tmp_path / "state", a="old")
    before, rename, calls = _tree(tmp_path), os.rename, []

    def broken(source, target, **options):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk gone")
        return rename(source, target, **options)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(OSError, match="disk gone"):
        _make(path, a="new")
    assert len(calls) >= 2
    assert _tree(tmp_path) == before


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, monkeypatch):
    path = _make(tmp_path / "state", a="old")
    before, rename, calls = _tree(tmp_path), os.rename, []

    class Killed(BaseException):
        pass

    def killed(source, target, **options):
        calls.append(target)
        if len(calls) == 2:
            raise Killed
        return rename(source, target, **options)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, "rename", killed)
        _make(path, a="new")
    assert not path.exists()
    files.sweep(tmp_path)  # as the next run does
    assert _tree(tmp_path) == before


def test_every_flipped_byte_is_noticed(folder):
    names = ("deep/weights", "state.json", "manifest.json")
    for name in names:
        path = folder / name
        content = path.read_bytes()
        for offset in range(0, len(content), 3):
            for bit in (1, 32):  # 32 changes the case of letters
                broken = bytearray(content)
                broken[offset] ^= bit
                path.write_bytes(broken)
                assert files.damage(folder) is not None, (name, offset, bit)
        path.write_bytes(content)
    assert files.damage(folder) is None


def test_every_missing_or_truncated_file_is_noticed(folder):
    for name in ("deep/weights", "state.json", "empty", "manifest.json"):
        path = folder / name
        content = path.read_bytes()
        path.unlink()
        assert name in files.damage(folder)
        path.write_bytes(content)
        for length in {0, len(content) // 2, max(0, len(content) - 1)} - {len(content)}:
            path.write_bytes(content[:length])
            assert files.damage(folder) is not None, (name, length)
        path.write_bytes(content)
    assert files.damage(folder) is None


def test_a_file_that_the_disk_cannot_read_is_damage(folder, monkeypatch):
    def broken(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(files, "digest", broken)
    assert files.damage(folder).endswith("cannot be read: Input/output error")


@pytest.mark.parametrize("manifest", ["[]", "{}", "null", '{"state.json": 3}', '{"a\\u0000b": "x"}', "[" * 100_000])
def test_a_manifest_that_says_nothing_is_damage(folder, manifest):
    (folder / "manifest.json").write_text(manifest)
    assert isinstance(files.damage(folder), str)


def test_write_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    files.write(path, "old")
    files.write(path, b"new")
    assert path.read_bytes() == b"new" and _names(tmp_path) == ["file.json"]

    def full(path):
        raise OSError("no space left")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="no space"):
        files.write(path, "newer")
    assert path.read_bytes() == b"new" and _names(tmp_path) == ["file.json"]


@pytest.mark.skipif(os.name == "nt", reason="umask is POSIX's")
def test_modes_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        files.write(tmp_path / "a", "x")
        _make(tmp_path / "folder", b="x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder" / "b").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_sweep_takes_only_what_a_write_left(tmp_path):
    (tmp_path / f"{files.TEMPORARY}ab-folder").mkdir()
    (tmp_path / f"{files.TEMPORARY}ab-folder" / "x").touch()
    (tmp_path / f"{files.TEMPORARY}cd-file").touch()
    (tmp_path / "mine.tmp-").touch()
    files.sweep(tmp_path)
    assert _names(tmp_path) == ["mine.tmp-"]


def test_json_is_sorted_and_readable(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "a": "ü",\n  "b": 1\n}\n'


def _tensors():
    generator = torch.Generator().manual_seed(0)
    big = torch.randn(6, 4, generator=generator)
    halves = big.chunk(2)
    return {
        "b.weight": big.t(),  # not contiguous
        "a": halves[0],  # two that share one storage
        "c": halves[1],
        "half": torch.arange(3).half(),
        "bf16": torch.arange(5).bfloat16(),
        "long": torch.arange(4),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
    }


def test_safetensors_bytes_are_read_by_safetensors(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load

    content = files.safetensors_bytes(_tensors(), {"z": "1", "a": 'ü \\ "'})
    read = load(content)
    assert read.keys() == _tensors().keys()
    assert all(
        torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in _tensors().items()
    )
    (tmp_path / "x.safetensors").write_bytes(content)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "z": "1", "a": 'ü \\ "'}
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_equal_tensors_are_equal_bytes_whatever_their_order():
    tensors, metadata = _tensors(), {str(i): "x" for i in range(20)}
    backwards = dict(reversed(tensors.items())), dict(reversed(metadata.items()))
    assert files.safetensors_bytes(tensors, metadata) == files.safetensors_bytes(*backwards)
    changed = {**tensors, "scalar": torch.tensor(4.0)}
    assert files.safetensors_bytes(tensors, metadata) != files.safetensors_bytes(changed, metadata)
