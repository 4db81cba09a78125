"""The folder of a run: who may write there, and whether a run may go on.

run.json  events.jsonl  report.html  checkpoints/  snapshots/  words/  previews/  adapter/
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from adapt import files
from adapt.config import COURSE, TrainSettings, kind
from adapt.errors import RunError

Existing = Literal["refuse", "resume", "auto", "fresh"]
"""What to do with a run that is there: `refuse`; `resume` it (an error without one); `auto`: resume if there is one;
`fresh`: delete it and start over."""

RUN, LOCK = "run.json", ".lock"
FACTS = ("data", "base", "machine")
START = "init_from_digest"
"""Of the adapter that a run starts from; None for most."""
OURS = (
    *("checkpoints", "events.jsonl", "snapshots", "words", "previews", "requests", "tensorboard", "adapter"),
    *("report.html", "comparison.png", RUN),
)
"""In the order in which they are deleted: as long as anything is left, the folder holds a run."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder is ours alone inside the `with`; the lock of a dead process is none.

    Raises:
        RunError: another process writes there, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise RunError(
            "another run is writing to this output folder", given=folder, next="wait for it, or give another --output"
        ) from error
    except OSError as error:
        raise RunError(f"the output folder cannot be written: {error.strerror}", given=folder) from error
    there = (folder / RUN).exists()
    try:
        files.sweep(folder)
        for part in (
            folder / "checkpoints",
            folder / "snapshots",
            *(folder / "words").glob("*/embeddings"),
            *(folder / "previews").glob("*"),
        ):
            files.sweep(part)
        yield
    except BaseException as error:
        if not there and not any((folder / name).exists() for name in OURS if name != RUN):
            (folder / RUN).unlink(missing_ok=True)  # nothing was trained: nothing stays
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise RunError(
                f"the output folder cannot be written any more: {error.strerror}",
                given=error.filename or folder,
                next="make room, then the same command with --resume; older checkpoints are untouched",
            ) from error
        raise
    finally:
        with suppress(OSError):  # Windows removes no open file: there it stays, and locks nobody out
            (folder / LOCK).unlink()  # before the release: afterwards it may be another run's
        lock.release()
        for path in made:
            with suppress(OSError):
                path.rmdir()  # only when it is empty


def is_training(folder: Path) -> bool:
    """Whether a process holds the folder now; the lock of a dead one is none."""
    from filelock import FileLock, Timeout

    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def check_output(folder: Path, existing: Existing) -> bool:
    """Whether a run is to be resumed; needs no torch and changes nothing.

    Raises:
        RunError: a run is there and neither resume nor fresh was asked for; there is none to resume; the folder holds
            something else; it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError("the output folder is a file", given=folder)
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise RunError("the output folder cannot be written", given=folder, next="give another --output")
    there = (folder / RUN).is_file()
    if there and existing == "refuse":
        raise RunError(
            "the output folder holds a run", given=folder, next="--resume goes on with it, --fresh starts over"
        )
    if not there and existing == "resume":
        raise RunError("there is no run to resume", given=folder, next="leave --resume out")
    if not there and _content(folder):
        raise RunError("the output folder is not empty and holds no run", given=folder, next="give a new --output")
    return there and existing in ("resume", "auto")


def _content(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if not p.name.startswith(".")] if folder.is_dir() else []


def clear(folder: Path) -> None:
    """Deletes what a run wrote there, and nothing else."""
    for name in OURS:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def read(folder: Path) -> dict[str, Any]:
    """`run.json`.

    Raises:
        RunError: not readable.
    """
    try:
        values: dict[str, Any] = json.loads((folder / RUN).read_text("utf-8"))
        if not values.keys() >= {"settings", *FACTS}:
            raise ValueError
    except (OSError, ValueError, AttributeError) as error:
        raise RunError("run.json cannot be read", given=folder, next="start over with --fresh") from error
    return values


def base_of(folder: Path, resuming: bool, given: str | None) -> str:
    """The base that was given, else the resumed run's own, else `icons`."""
    own = str(read(folder).get("base_reference", "icons")) if resuming else "icons"
    return given or own


_DEFAULTS = TrainSettings().model_dump(mode="json")
"""What an older version did without knowing the setting."""


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name → (then, now) for settings, data, base, machine and start of two `run.json`s."""
    flat_then, flat_now = (
        {**_DEFAULTS, **r["settings"], **{k: r[k] for k in FACTS}, START: r.get(START)} for r in (then, now)
    )
    return {name: (flat_then.get(name), value) for name, value in flat_now.items() if flat_then.get(name) != value}


def require_same_course(changes: Mapping[str, tuple[Any, Any]], allowed: Sequence[str]) -> None:
    """Raises `RunError` when something that alters the course has changed and is not allowed by name."""
    altering = {name: c for name, c in changes.items() if alters(name) and name not in allowed}
    if altering:
        listed = ", ".join(f"{name} {old!r} → {new!r}" for name, (old, new) in altering.items())
        flags = " ".join(f"--allow {name}" for name in altering)
        raise RunError(
            "resuming with these changes would alter the course of the run",
            given=listed,
            next=f"undo them, or allow them by name: {flags}",
        )


def alters(name: str) -> bool:
    """Whether a change of this name changes what is learned; another machine or version only ends bit-equality."""
    if name in TrainSettings.model_fields:
        return kind(name) == COURSE
    return name in ("data", "base", START)
