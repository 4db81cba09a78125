"""What a user asks of a run while it trains: by a file in the run's folder, or by a signal. Imports no torch.

    requests/sample    draw the previews now         SIGUSR2
    requests/save      write a checkpoint now        SIGUSR1 (SLURM's `--signal=USR1@120` before a job's time is up)
    requests/measure   measure the held-out loss now
    requests/stop      save and stop, as Control-C

The run does it after the step that it is at, says so in `events.jsonl` and removes the file.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from adapt.data.wording import printable
from adapt.errors import RunError, SettingsError, did_you_mean
from adapt.progress import say
from adapt.training import folder

NAME = "requests"
WORDS = ("sample", "save", "measure", "stop")
SIGNALS = {"SIGUSR1": "save", "SIGUSR2": "sample"}
"""Where the system has them: not on Windows."""


def ask(run: Path, word: str) -> Path:
    """Leaves the request in the folder of a run that is training; returns the file, which the run removes.

    Raises:
        SettingsError: no such request.
        RunError: nothing trains there.
    """
    if word not in WORDS:
        raise SettingsError("no such request", given=word, allowed=", ".join(WORDS), next=_meant(word))
    if not folder.is_training(run):
        raise RunError("nothing is training in this folder", given=run, next="give the --output of a run that trains")
    path = run / NAME / word
    try:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    except OSError as error:
        raise RunError(f"the request cannot be written: {error.strerror}", given=path) from error
    return path


def _meant(word: str) -> str | None:
    near = did_you_mean(word, list(WORDS))
    return f"did you mean {near}?" if near else None


class Requests:
    """The requests of one process. Inside the `with` it listens; what was left there before is not meant for this run.

    Args:
        run: the run's folder; None reads no files (processes other than the first).
    """

    def __init__(self, run: Path | None) -> None:
        self.folder = run / NAME if run else None
        self._signalled: set[str] = set()
        self._refused: set[str] = set()
        self._old: dict[int, Any] = {}

    def taken(self) -> set[str]:
        """What was asked for since the last call; the files are gone."""
        found, self._signalled = self._signalled, set()
        return found | {name for name in self._files() if self._remove(name) and self._known(name)}

    def _files(self) -> list[str]:
        if self.folder is None:
            return []
        with suppress(OSError):
            return sorted(path.name for path in self.folder.iterdir())
        return []

    def _remove(self, name: str) -> bool:
        """Whether it could be removed: what cannot would be asked for again at every step."""
        assert self.folder is not None
        try:
            (self.folder / name).unlink()
        except OSError as error:
            if name not in self._refused:
                say(f"warning: the request {printable(name)!r} cannot be removed ({error.strerror}) and is left aside")
            self._refused.add(name)
            return False
        return True

    def _known(self, name: str) -> bool:
        if name not in WORDS:
            meant = _meant(name)
            say(f"warning: no such request: {printable(name)!r}; {meant or 'there are ' + ', '.join(WORDS)}")
        return name in WORDS

    # ------------------------------------------------------------------------------------------------ listening
    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._signalled.add(SIGNALS[signal.Signals(number).name])

    def __enter__(self) -> Self:
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)
            for name in self._files():
                self._remove(name)
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
            self._old = {int(number): signal.signal(number, self._hear) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._old:
            number, handler = self._old.popitem()
            signal.signal(number, handler)
        if self.folder is not None:
            with suppress(OSError):
                self.folder.rmdir()  # only when it is empty
