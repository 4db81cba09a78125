"""A cache keeps its size: the longest unused goes first, and nothing that a running program uses."""

import multiprocessing
import os
import sys
import time

import pytest
import torch

from adapt.data import TensorCache
from adapt.data.cache import key_of
from adapt.data.cache_folder import limit
from adapt.data.tidy import USERS, Trimmed, Use, trim
from adapt.errors import DataError, SettingsError

KEYS = [key_of(number) for number in range(6)]
NOW = time.time()


def aged(cache, key, days):
    """Puts an entry that was last used so many days ago; its size."""
    cache.put(key, {"x": torch.zeros(256)})
    os.utime(cache.path(key), (NOW - 86400 * days,) * 2)
    return cache.path(key).stat().st_size


@pytest.fixture
def cache(tmp_path):
    """Six entries of one size; the first was used longest ago."""
    cache = TensorCache(tmp_path)
    sizes = {aged(cache, key, 60 - number) for number, key in enumerate(KEYS)}
    cache.size = sizes.pop()
    assert not sizes
    return cache


def there(cache):
    return [key for key in KEYS if cache.path(key).exists()]


def test_a_cache_within_its_limit_is_left_alone(cache):
    assert trim(cache.folder, 6 * cache.size) == Trimmed(0, 0, 6 * cache.size) and there(cache) == KEYS


@pytest.mark.parametrize(("allowed", "left"), [(5.99, 5), (5, 5), (2.5, 2), (0.5, 0), (0, 0)])
def test_what_was_used_longest_ago_goes_first_and_no_more_than_needed(cache, allowed, left):
    found = trim(cache.folder, int(allowed * cache.size))
    assert there(cache) == KEYS[6 - left :]
    assert found == Trimmed(6 - left, (6 - left) * cache.size, left * cache.size)


def test_what_a_run_reads_or_writes_stays(cache):
    new = key_of("new")
    cache.use()
    cache.get(KEYS[0])
    cache.put(new, {"x": torch.zeros(256)})
    trim(cache.folder, 0)
    assert there(cache) == [KEYS[0]] and cache.path(new).exists()


def test_without_a_use_reading_leaves_no_trace(cache):
    before = cache.path(KEYS[0]).stat().st_mtime_ns
    cache.get(KEYS[0])
    assert cache.path(KEYS[0]).stat().st_mtime_ns == before and not (cache.folder / USERS).exists()


def _run(folder, ready, end):
    torch.set_num_threads(1)
    cache = TensorCache(folder)
    cache.use()
    cache.get(KEYS[0])
    ready.set()
    end.wait(30)
    os._exit(0)  # as if it were killed: nothing is given back


def test_another_program_keeps_what_it_uses_until_it_ends_even_when_it_is_killed(cache):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ready, end = context.Event(), context.Event()
    program = context.Process(target=_run, args=(cache.folder, ready, end))
    program.start()
    assert ready.wait(30)
    trim(cache.folder, 0)
    assert there(cache) == [KEYS[0]]
    end.set()
    program.join(30)
    trim(cache.folder, 0)
    assert there(cache) == [] and list((cache.folder / USERS).iterdir()) == []


def test_what_was_used_since_an_earlier_program_began_stays(cache):
    """Of two programs, the one that began first counts."""
    use = Use(cache.folder)
    lock = next((cache.folder / USERS).iterdir())
    os.utime(lock, (NOW - 86400 * 57.5,) * 2)
    later = [Use(cache.folder) for _ in range(8)]
    trim(cache.folder, 0)
    assert there(cache) == KEYS[3:]
    del use, later


def test_an_entry_that_is_used_meanwhile_stays(cache, monkeypatch):
    from adapt.data import tidy

    entries = tidy._entries

    def listed(folder):
        for entry in entries(folder):
            if entry.path.endswith(f"{KEYS[1]}.safetensors"):
                os.utime(entry.path)  # after it was looked at
            yield entry

    monkeypatch.setattr(tidy, "_entries", listed)
    trim(cache.folder, 0)
    assert KEYS[1] in there(cache)


def test_what_was_left_half_written_goes_after_a_day(cache):
    place = cache.path(KEYS[0]).parent
    old, new = place / ".old.tmp", place / ".new.tmp"
    for path, days in ((old, 2), (new, 0)):
        path.write_bytes(b"x")
        os.utime(path, (NOW - 86400 * days,) * 2)
    trim(cache.folder, 0)
    assert new.exists() and not old.exists()


def test_a_cache_that_is_not_there_is_empty(tmp_path):
    assert trim(tmp_path / "none", 0) == Trimmed(0, 0, 0) and not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written.*ADAPT_CACHE"):
        TensorCache(tmp_path / "file").use()


def test_the_limit_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("ADAPT_CACHE_LIMIT", raising=False)
    assert limit() == 50 * 2**30
    monkeypatch.setenv("ADAPT_CACHE_LIMIT", "1.5")
    assert limit() == 1.5 * 2**30
    monkeypatch.setenv("ADAPT_CACHE_LIMIT", "inf")
    assert limit() > 2**60
    for wrong in ("0", "-1", "nan", "ten"):
        monkeypatch.setenv("ADAPT_CACHE_LIMIT", wrong)
        with pytest.raises(SettingsError, match="ADAPT_CACHE_LIMIT is no size"):
            limit()
