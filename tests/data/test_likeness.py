"""Near duplicates are found among any number of pictures: as comparing all with all would, in a fraction of the time."""

import random
import time

import numpy as np
import pytest

from adapt.data.likeness import NEAR, near_pairs


def every_pair(values):
    return {(i, j) for j in range(len(values)) for i in range(j) if (values[i] ^ values[j]).bit_count() <= NEAR}


def components(count, pairs):
    root = list(range(count))

    def top(i):
        while root[i] != i:
            i = root[i]
        return i

    for a, b in pairs:
        root[max(top(a), top(b))] = min(top(a), top(b))
    return [top(i) for i in range(count)]


@pytest.mark.parametrize("plain", [0, 128, 200])
@pytest.mark.parametrize("seed", range(4))
def test_each_has_its_first_and_all_that_are_alike_hang_together(plain, seed):
    """Families of pictures that change from one to the next; `plain` bits are the same in all."""
    dice, values = random.Random(seed), []
    for _ in range(12):
        value = dice.getrandbits(256 - plain)
        for _ in range(dice.randrange(1, 12)):
            values.append(value)
            value ^= sum(1 << bit for bit in dice.sample(range(256 - plain), dice.randrange(0, 14)))
    dice.shuffle(values)
    pairs = [(int(a), int(b)) for a, b in near_pairs({str(i): value for i, value in enumerate(values)})]
    wanted = every_pair(values)
    assert set(pairs) <= wanted and pairs == sorted(set(pairs))
    first = {b: min(a for a, c in wanted if c == b) for _, b in wanted}
    assert {b: min(a for a, c in pairs if c == b) for _, b in pairs} == first
    assert components(len(values), pairs) == components(len(values), wanted)
    assert len(pairs) <= 2 * len(values)


@pytest.mark.parametrize("apart", range(1, NEAR + 2))
def test_the_limit_is_exact_wherever_the_bits_lie(apart):
    dice = random.Random(apart)
    for _ in range(30):
        value = dice.getrandbits(256)
        other = value ^ sum(1 << bit for bit in dice.sample(range(256), apart))
        assert bool(near_pairs({"a": value, "b": other})) == (apart <= NEAR)


@pytest.mark.parametrize("band", range(NEAR + 1))
def test_one_band_that_agrees_is_enough(band):
    """Twelve bits differ, one in each band but this one."""
    other = sum(1 << (255 - bit) for bit in range(NEAR + 1) if bit != band)
    assert near_pairs({"a": 0, "b": other}) == [("a", "b")]


def test_nothing_and_one():
    assert near_pairs({}) == [] == near_pairs({"a": 5})


def test_many_copies_and_many_frames_of_one_scene_give_few_pairs_fast():
    started, dice = time.process_time(), random.Random(0)
    assert near_pairs({str(i): 77 for i in range(5000)}) == [("0", str(i)) for i in range(1, 5000)]
    scene = dice.getrandbits(256)
    frames = {str(i): scene ^ sum(1 << bit for bit in dice.sample(range(256), 5)) for i in range(1500)}
    assert len(near_pairs(frames)) <= 2 * 1500
    assert time.process_time() - started < 10


def test_it_stays_fast_when_many_pictures_are_plain_at_the_edges():
    """Half of them have a white margin: 96 rows of bits say nothing. All with all would be 200 million comparisons."""
    bits = np.random.default_rng(0).integers(0, 2, (20_000, 256), np.uint8)
    bits[::2, :48] = bits[::2, 208:] = 0
    hashes = {str(i): int.from_bytes(np.packbits(row).tobytes(), "big") for i, row in enumerate(bits)}
    started = time.process_time()
    assert near_pairs(hashes) == []
    assert time.process_time() - started < 8
