"""Progress of long work on standard error: a bar on a terminal, plain lines elsewhere. Results never go there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

Report = Callable[[int, int], None]
"""`report(done, total)`."""


class Progress:
    """One bar.

    Args:
        title: what is being done.
        total: how many.
        every: without a terminal, seconds between lines.
    """

    def __init__(self, title: str, total: int, every: float = 10.0) -> None:
        self.title, self.total, self.every = title, total, every
        self.terminal = sys.stderr.isatty()
        self._started = self._said = time.monotonic()
        self._first = 0
        self._bar = self._make_bar() if self.terminal else None

    def _make_bar(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), note)
        bar = Bar(*columns, console=Console(stderr=True))
        self._task = bar.add_task(self.title, total=self.total, note="")
        bar.start()
        return bar

    def start_at(self, done: int) -> None:
        """The work begins here and now: what was done or waited for before says nothing of how long the rest takes."""
        self._first, self._started = done, time.monotonic()
        self(done)

    def __call__(self, done: int, total: int | None = None, note: str = "", left: float | None = None) -> None:
        """`done` of them are done.

        Args:
            left: seconds that the rest will take; None: as long for each as for those that are done.
        """
        self.total = total or self.total
        told = ", ".join(filter(None, (note, self._left(done, left))))
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total, note=told)
        elif done == self.total or time.monotonic() - self._said >= self.every:
            self._said = time.monotonic()
            say(f"{self.title} {done}/{self.total}{told and ', '}{told}")

    def _left(self, done: int, left: float | None) -> str:
        made = done - self._first
        if made <= 0 or done >= self.total:
            return ""
        seconds = (time.monotonic() - self._started) / made * (self.total - done) if left is None else left
        return f"{duration(seconds)} left"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def say(message: str) -> None:
    """One line on standard error."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def duration(seconds: float) -> str:
    """`75` → `1 min 15 s`, `8000` → `2 h 13 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
