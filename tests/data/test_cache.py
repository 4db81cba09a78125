"""Bit for bit what was put, or nothing: a damaged entry never counts."""

import multiprocessing
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adapt.data import TensorCache, default_folder
from adapt.data.cache import key_of
from adapt.errors import DataError

KEY = key_of("an entry")


def entry():
    generator = torch.Generator().manual_seed(0)
    return {
        "mean": torch.randn(4, 3, 5, generator=generator),
        "half": torch.randn(2, 7, generator=generator).bfloat16(),
        "mask": torch.tensor([[True, False, True]]),
        "ids": torch.arange(3),
        "one": torch.tensor(float("nan")),
        "none": torch.zeros(0, 2),
    }


def same(first, second):
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and first[name].contiguous().reshape(-1).view(torch.uint8).equal(second[name].reshape(-1).view(torch.uint8))
        for name in first
    )


def test_round_trip_is_bit_equal(tmp_path):
    cache = TensorCache(tmp_path / "deep" / "cache")
    assert cache.get(KEY) is None and not cache.folder.exists()
    cache.put(KEY, entry())
    assert same(entry(), cache.get(KEY))
    assert cache.path(KEY) == cache.folder / KEY[:2] / f"{KEY}.safetensors"
    assert [p for p in cache.folder.rglob("*") if p.is_file()] == [cache.path(KEY)]


def test_views_and_shared_memory_are_stored_as_their_values(tmp_path):
    cache, x = TensorCache(tmp_path), torch.arange(24.0).reshape(4, 6)
    tensors = {"all": x, "turned": x.T, "row": x[1], "spread": x[:1].expand(5, 6), "step": x[:, ::2]}
    cache.put(KEY, tensors)
    assert same(tensors, cache.get(KEY))


def test_a_second_put_replaces_the_first(tmp_path):
    cache = TensorCache(tmp_path)
    cache.put(KEY, entry())
    cache.put(KEY, {"x": torch.ones(1)})
    assert same({"x": torch.ones(1)}, cache.get(KEY))


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path):
    """Every byte, one after the other: an entry is whole or it is not there."""
    cache = TensorCache(tmp_path)
    cache.put(KEY, entry())
    path = cache.path(KEY)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        found = cache.get(KEY)
        assert found is None or same(found, entry()), position
        if position % 7 == 0:
            path.write_bytes(data[:position])
            assert cache.get(KEY) is None
    path.write_bytes(data + b"\0")
    assert cache.get(KEY) is None
    cache.put(KEY, entry())
    assert same(entry(), cache.get(KEY))


def test_an_entry_under_another_key_does_not_count(tmp_path):
    cache, other = TensorCache(tmp_path), key_of("another")
    cache.put(KEY, entry())
    cache.path(other).parent.mkdir(parents=True, exist_ok=True)
    cache.path(other).write_bytes(cache.path(KEY).read_bytes())
    assert cache.get(other) is None


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "abc", "G" * 64, "a" * 15, "a" * 16 + "/"])
def test_keys_are_digests(tmp_path, key):
    with pytest.raises(ValueError, match="hexadecimal digest"):
        TensorCache(tmp_path).path(key)


def test_keys_differ_when_any_fact_does():
    facts = [
        ("a",),
        ("a", "b"),
        ("ab",),
        (["a", "b"],),
        ("a", 1),
        ("a", "1"),
        ("a", True),
        ("é",),
        ("e\u0301",),
        ("\ud83d",),
    ]
    assert len({key_of(*fact) for fact in facts}) == len(facts)


@pytest.mark.skipif(sys.platform == "win32", reason="no modes there")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        TensorCache(tmp_path).put(KEY, entry())
    finally:
        os.umask(before)
    assert stat.S_IMODE(TensorCache(tmp_path).path(KEY).stat().st_mode) == 0o666 & ~mask


def test_a_cache_that_cannot_be_written_says_where_and_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        DataError, match=r"cannot be written: .*bytes to .*file.*Next: free space there, or set ADAPT_CACHE"
    ):
        TensorCache(tmp_path / "file").put(KEY, entry())


def test_a_full_disk_leaves_no_part_and_keeps_the_old_entry(tmp_path, monkeypatch):
    cache = TensorCache(tmp_path)
    cache.put(KEY, {"x": torch.ones(1)})

    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        cache.put(KEY, entry())
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [cache.path(KEY)]
    assert same({"x": torch.ones(1)}, cache.get(KEY))


def _write_many(folder, start):
    torch.set_num_threads(1)
    cache = TensorCache(Path(folder))
    start.wait(30)
    for _ in range(60):
        cache.put(KEY, {"x": torch.full((5000,), 3.0)})


def test_two_writers_and_a_reader_at_once(tmp_path):
    """The reader sees a whole entry at each look, never a part of one."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    start, cache, looks = context.Event(), TensorCache(tmp_path), 0
    writers = [context.Process(target=_write_many, args=(str(tmp_path), start)) for _ in range(2)]
    for writer in writers:
        writer.start()
    cache.put(KEY, {"x": torch.full((5000,), 3.0)})
    start.set()
    while any(writer.is_alive() for writer in writers):
        found = cache.get(KEY)
        assert found is not None and bool((found["x"] == 3.0).all())
        looks += 1
    assert [writer.exitcode for writer in writers] == [0, 0] and looks > 3
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("ADAPT_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "adapt"
    for unusable in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert default_folder() == tmp_path / ".cache" / "adapt"
