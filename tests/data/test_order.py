"""The order: one bucket a batch, every example as often as it should be, wherever one starts reading."""

import math
import time
from collections import Counter

import numpy as np
import pytest

from adapt.data.draws import generator
from adapt.data.order import Order, _reached
from adapt.data.plan import Plan


def order_of(sizes, batch, repeats=None, seed=0):
    """An order of buckets that hold so many examples, shuffled among one another."""
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(1).shuffle(numbers)
    return Order(seed, batch, numbers, repeats), numbers


def epoch_steps(order, epoch):
    """The steps of an epoch, by asking for each step's."""
    step = int(epoch * order.length / order.batch)
    while step > 0 and order.epoch(step - 1) >= epoch:
        step -= 1
    while order.epoch(step) < epoch:
        step += 1
    first = step
    while order.epoch(step) == epoch:
        step += 1
    return range(first, step)


def shown(order, steps):
    return Counter(order.item(step, p) for step in steps for p in range(order.batch))


@pytest.mark.parametrize(("size", "batch"), [(1, 8), (3, 8), (8, 8), (7, 3), (100, 16)])
def test_one_bucket_is_the_order_that_it_always_was(size, batch):
    """The permutation of each epoch, one after the other: runs that began before there were buckets go on as they were."""
    plan = Plan(5, size, batch)
    for step in range(4 * max(size, batch) // batch + 3):
        for position in range(batch):
            epoch, place = divmod(step * batch + position, size)
            assert plan.item(step, position) == generator(5, "order", epoch, 0).permutation(size)[place]
    same = Plan(5, size, batch, np.zeros(size, int), [1.0] * size)
    assert [same.item(s, p) for s in range(40) for p in range(batch)] == [
        plan.item(s, p) for s in range(40) for p in range(batch)
    ]


@pytest.mark.parametrize("repeats", [None, [3.0] * 40, "mixed"])
def test_a_batch_comes_from_one_bucket(repeats):
    repeats = [0.3 + (i % 5) for i in range(40)] if repeats == "mixed" else repeats
    order, numbers = order_of([1, 4, 15, 20], 8, repeats)
    for step in range(200):
        items = [order.item(step, p) for p in range(8)]
        assert {int(numbers[i]) for i in items} == {order.bucket(step)}


@pytest.mark.parametrize(
    ("sizes", "batch"), [([8, 9, 30], 8), ([5, 7], 4), ([20], 8), ([3, 3, 3, 3], 3), ([11, 100], 1)]
)
@pytest.mark.parametrize("repeats", [1.0, 2.0, 7.0])
def test_in_every_epoch_each_picture_comes_within_one_of_its_repeats(sizes, batch, repeats):
    order, _ = order_of(sizes, batch, [repeats] * sum(sizes))
    for epoch in range(6):
        counts = shown(order, epoch_steps(order, epoch))
        assert len(counts) >= sum(sizes) - batch * len(sizes)
        for index in range(sum(sizes)):
            assert abs(counts[index] - repeats) <= 1, (epoch, index, counts[index])


def test_an_epoch_has_the_steps_that_it_needs_and_no_bucket_falls_behind():
    order, _ = order_of([3, 10, 50], 8)
    done = Counter()
    for epoch in range(30):
        steps = epoch_steps(order, epoch)
        done.update(order.bucket(step) for step in steps)
        for bucket, size in enumerate([3, 10, 50]):
            assert done[bucket] == math.ceil((epoch + 1) * size / 8)


@pytest.mark.parametrize("sizes", [[1, 2, 20], [1], [6, 6]])
def test_a_bucket_that_fills_no_batch_is_still_fair_in_the_long_run(sizes):
    """Some stand twice in its batches; over epochs each comes as often as any other."""
    order, numbers = order_of(sizes, 8)
    epochs = 48
    counts = shown(order, range(epoch_steps(order, epochs).start))
    for index, bucket in enumerate(numbers):
        share = 8 / sizes[bucket]  # how often it comes in one batch, at most one batch too many
        assert epochs - 1 <= counts[index] <= epochs + share + 1


def test_fractions_of_repeats_add_up():
    repeats = [0.25, 1.0, 1.5, 3.2, 0.6, 2.0, 0.01, 10.0]
    order, _ = order_of([8], 4, repeats)
    stream = order.streams[0]
    for epochs in (1, 2, 5, 20, 100):
        first = stream.first(epochs)
        counts = Counter(stream.item(place) for place in range(first))
        for index, r in enumerate(repeats):
            assert abs(counts[index] - epochs * r) < 1
    for epoch in range(20):
        counts = Counter(stream.item(place) for place in range(stream.first(epoch), stream.first(epoch + 1)))
        assert all(counts[index] in (math.floor(r), math.ceil(r)) for index, r in enumerate(repeats))


def test_fractions_do_not_all_fall_into_the_same_epochs():
    order, _ = order_of([200], 4, [0.5] * 200)
    lengths = [order.streams[0].first(e + 1) - order.streams[0].first(e) for e in range(10)]
    assert all(70 < length < 130 for length in lengths)


def test_what_repeats_is_spread_over_the_epoch():
    """Ten repeats are ten passes: between two showings of a picture stand nearly all the others."""
    order, _ = order_of([30], 5, [10.0] * 30)
    seen = [order.streams[0].item(place) for place in range(300)]
    assert all(sorted(seen[first : first + 30]) == list(range(30)) for first in range(0, 300, 30))
    mixed, _ = order_of([20], 5, [1.0] * 19 + [19.0])
    places = [k for k in range(38) if mixed.streams[0].item(k) == 19]
    assert max(np.diff(places)) < 12


def test_batches_of_a_bucket_are_spread_over_the_epoch():
    order, _ = order_of([400, 100, 100], 4)
    for epoch in range(3):
        steps = epoch_steps(order, epoch)
        buckets = [order.bucket(step) for step in steps]
        for bucket, total in Counter(buckets).items():
            for part in (0.25, 0.5, 0.75):
                assert abs(buckets[: int(part * len(buckets))].count(bucket) - part * total) <= 4
    assert [order.bucket(s) for s in epoch_steps(order, 0)] != [order.bucket(s) for s in epoch_steps(order, 1)]


def test_batches_of_a_bucket_follow_one_another_without_a_gap():
    order, _ = order_of([5, 17, 40], 8, [1.0, 2.5] * 31)
    numbers = {0: [], 1: [], 2: []}
    for step in range(300):
        stream, number = order.place(step)
        numbers[stream.number].append(number)
    assert all(found == list(range(len(found))) for found in numbers.values())


def test_any_step_can_be_asked_for_first():
    repeats = [0.4 + i % 3 for i in range(31)]
    order, _ = order_of([1, 10, 20], 4, repeats)
    whole = [[order.item(step, p) for p in range(4)] for step in range(400)]
    for step in (399, 0, 250, 17, 251, 398):
        fresh, _ = order_of([1, 10, 20], 4, repeats)
        assert [fresh.item(step, p) for p in (3, 0, 2, 1)] == [whole[step][p] for p in (3, 0, 2, 1)]


@pytest.mark.parametrize("guess", range(-1, 7))
def test_the_epoch_of_a_place_is_found_from_any_guess(guess):
    starts = [0, 3, 3, 3, 10, 11, 20, 20, 30]  # epochs 1, 2 and 6 are empty
    for place, epoch in enumerate([0] * 3 + [3] * 7 + [4] + [5] * 9 + [7] * 10):
        assert _reached(lambda e: starts[e], place, guess) == epoch


def test_buckets_of_one_size_have_orders_of_their_own():
    order, _ = order_of([30, 30], 8)
    first, second = ([int(np.searchsorted(s.examples, s.item(k))) for k in range(30)] for s in order.streams)
    assert first != second


def test_far_away_places_lie_in_the_epoch_that_holds_them():
    order, _ = order_of([3], 8, [0.1, 0.2, 0.05])  # most epochs are empty
    stream, place = order.streams[0], 8 * 10**6
    epoch = next(e for e in range(int(place / 0.35) - 20, 10**9) if stream.first(e + 1) > place)
    held = [stream.item(k) for k in range(stream.first(epoch), stream.first(epoch + 1))]
    assert stream.item(place) == held[place - stream.first(epoch)] == order.item(10**6, 0)


@pytest.mark.parametrize("change", ["seed", "batch"])
def test_seed_and_only_seed_changes_the_stream(change):
    one, _ = order_of([6, 9], 4)
    other, _ = order_of([6, 9], 8, seed=1) if change == "seed" else order_of([6, 9], 8)
    streams = (
        [[s.item(k) for k in range(60)] for s in one.streams],
        [[s.item(k) for k in range(60)] for s in other.streams],
    )
    assert (streams[0] == streams[1]) == (change == "batch")


def test_what_is_never_shown_is_left_out():
    order, _ = order_of([4, 2], 4, [1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    counts = shown(order, range(60))
    assert not counts[1] and not counts[4] and sum(counts.values()) == 240
    with pytest.raises(ValueError, match="an example that is shown"):
        Order(0, 4, np.zeros(3, int), [0.0] * 3)


def test_rows_of_a_plan_with_buckets_do_not_depend_on_how_a_batch_is_cut():
    numbers = np.array([0, 1, 1, 0, 1, 2, 1, 0, 1])
    plan = Plan(3, 9, 8, numbers, [1, 2, 1.5, 1, 1, 3, 1, 1, 0.5])
    for step in (0, 1, 7, 500):
        whole = plan.rows(step, range(8)).items()
        for cut in ([range(4), range(4, 8)], [[p] for p in range(8)], [[7, 0], [3, 2, 1], [6, 5, 4]]):
            parts = {
                p: i for positions in cut for p, i in zip(positions, plan.rows(step, positions).items(), strict=True)
            }
            assert [parts[p] for p in range(8)] == whole


def test_a_hundred_thousand_pictures_cost_nothing_per_step():
    numbers = np.random.default_rng(0).integers(0, 9, 100_000)
    started = time.process_time()
    plan = Plan(0, 100_000, 8, numbers, [1.0, 1.5] * 50_000)
    plan.rows(123_456_789, range(8)).items()  # far away at once, as when a run is resumed
    assert time.process_time() - started < 5
    started = time.process_time()
    for step in range(123_456_789, 123_456_989):
        plan.rows(step, range(8)).items()
    assert (time.process_time() - started) / 200 < 0.02
