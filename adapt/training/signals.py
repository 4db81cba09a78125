"""Ctrl-C and SIGTERM: finish the step, save, leave. A second one ends at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """`number` is the signal that asked to stop, or 0. Outside the main thread it never does.

    Args:
        alone: False for one of several processes: after a failure one more signal is survived, because when one process dies,
            launchers send the others SIGTERM, before they could say why they end.
    """

    def __init__(self, alone: bool = True) -> None:
        self.number, self.alone = 0, alone
        self._old: dict[int, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()  # the next one has its usual effect

    def _restore(self) -> None:
        while self._old:
            number, handler = self._old.popitem()
            signal.signal(number, handler)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._old = {int(number): signal.signal(number, self._ask) for number in CAUGHT}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or self.alone:
            self._restore()
