"""Which example stands where: batches of one bucket each, every example as often as it should be, no state.

Each bucket is an endless stream: its examples, `repeats` times an epoch, in an order of that epoch. Batches are cut from
the stream one after the other, across the ends of epochs, so that none is short and nothing is left out. A batch belongs to
the epoch in which it begins; within an epoch the batches of all buckets are spread evenly and at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from adapt.data.draws import generator

Indices = NDArray[np.int64]


class Order:
    """The order of a run.

    With r repeats an example stands in every epoch of its bucket's stream ⌊r⌋ or ⌈r⌉ times, and in the first E of them
    within one of E·r. Where a bucket's examples have equal whole repeats and fill a batch, each stands in every epoch of the
    run within one of r times; a bucket that does not fill a batch shows some of its examples twice in one.

    Args:
        seed: the run's.
        batch: rows of the global batch.
        buckets: number of each example's bucket (n,), counted from 0.
        repeats: how often each example comes an epoch (n,): above 0 for one at least; None: once.
    """

    def __init__(self, seed: int, batch: int, buckets: Indices, repeats: Sequence[float] | None = None) -> None:
        rates = np.ones(len(buckets)) if repeats is None else np.asarray(repeats, np.float64)
        members = (np.flatnonzero((buckets == b) & (rates > 0)) for b in range(buckets.max(initial=-1) + 1))
        start = generator(seed, "repeats", 0, 0).random(len(buckets))
        self.streams = [
            _Stream(seed, number, held, rates[held], start[held]) for number, held in enumerate(members) if len(held)
        ]
        if not self.streams:
            raise ValueError("an order needs an example that is shown")
        self.seed, self.batch = seed, batch
        self.length = sum(stream.rate for stream in self.streams)
        self._first = lru_cache(64)(self._first_step)
        self._plan_of = lru_cache(4)(self._shuffled)

    def item(self, step: int, position: int) -> int:
        """Index of the example there."""
        stream, number = self.place(step)
        return stream.item(number * self.batch + position)

    def bucket(self, step: int) -> int:
        """Number of the bucket that a step's batch comes from."""
        return self.place(step)[0].number

    def place(self, step: int) -> tuple[_Stream, int]:
        """The stream that a step's batch comes from, and how many of its batches came before."""
        epoch = self.epoch(step)
        which, number = self._plan_of(epoch)
        k = step - self._first(epoch)
        return self.streams[which[k]], int(number[k])

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to."""
        return _reached(self._first, step, int(step * self.batch / self.length))

    # ------------------------------------------------------------------------------------------------ how
    def _first_step(self, epoch: int) -> int:
        """Number of batches that begin in earlier epochs."""
        return sum(self._begun(stream, epoch) for stream in self.streams)

    def _begun(self, stream: _Stream, epoch: int) -> int:
        return -(-stream.first(epoch) // self.batch)

    def _shuffled(self, epoch: int) -> tuple[Indices, Indices]:
        """Of each step of an epoch: index of its stream, and number of the batch in that stream."""
        first = [self._begun(stream, epoch) for stream in self.streams]
        counts = [self._begun(stream, epoch + 1) - begun for stream, begun in zip(self.streams, first, strict=True)]
        within = [np.arange(count) for count in counts]
        moments = [
            (k + generator(self.seed, "buckets", epoch, stream.number).random(len(k))) / max(len(k), 1)
            for k, stream in zip(within, self.streams, strict=True)
        ]
        turn = np.argsort(np.concatenate(moments), kind="stable")
        which = np.repeat(np.arange(len(counts)), counts)[turn]
        return which, np.concatenate([k + begun for k, begun in zip(within, first, strict=True)])[turn]


class _Stream:
    """The examples of one bucket, one after the other for ever.

    Args:
        number: the bucket's.
        examples: indices (m,).
        rates: how often each comes an epoch (m,).
        start: where in its round each begins, even draws in [0, 1) (m,).
    """

    def __init__(
        self, seed: int, number: int, examples: Indices, rates: NDArray[np.float64], start: NDArray[np.float64]
    ) -> None:
        self.seed, self.number, self.examples, self._rates = seed, number, examples, rates
        self._start, self.rate = start, float(rates.sum())
        self._whole = bool((rates == np.floor(rates)).all())
        self.first = lru_cache(64)(self._first)
        self._order_of = lru_cache(2)(self._order)

    def item(self, place: int) -> int:
        """Index of the example at a place of the stream."""
        epoch = _reached(self.first, place, int(place / self.rate))
        return int(self._order_of(epoch)[place - self.first(epoch)])

    def _told(self, epoch: int) -> Indices:
        """How often each example came before an epoch (m,): after any number of epochs right to one."""
        return np.floor(epoch * self._rates + self._start).astype(np.int64)

    def _first(self, epoch: int) -> int:
        """The place at which an epoch begins."""
        return epoch * round(self.rate) if self._whole else int(self._told(epoch).sum())

    def _order(self, epoch: int) -> Indices:
        """The examples of an epoch. Each one's c copies stand in a c-th of it each: c repeats are c passes."""
        counts = self._told(epoch + 1) - self._told(epoch)
        size = int(counts.sum())
        draws = np.empty(size)
        draws[generator(self.seed, "order", epoch, self.number).permutation(size)] = np.arange(size) / size
        copy = np.arange(size) - np.repeat(np.cumsum(counts) - counts, counts)
        turn = np.argsort((copy + draws) / np.repeat(counts, counts), kind="stable")
        return np.repeat(self.examples, counts)[turn]


def _reached(start: Callable[[int], int], place: int, guess: int) -> int:
    """The last epoch that starts at or before a place, looked for from a guess on; empty epochs are passed over."""
    epoch = max(guess, 0)
    while start(epoch) > place:
        epoch -= 1
    while start(epoch + 1) <= place:
        epoch += 1
    return epoch
