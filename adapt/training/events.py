"""`events.jsonl`: what happened in a run, one JSON object a line, only ever appended to. Imports no torch.

`docs/watching.md` says what every event and every field means; a test compares it with `SCHEMA` and with what runs write.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "events.jsonl"

EVERY = ("event", "time")
"""Fields of all events."""
SCHEMA = {
    "step": ("step", "loss", "learning_rate", "seconds", "memory_gib"),
    "validation": (
        *("step", "loss", "base", "ratio", "standard_error", "change", "pictures", "log_ratio", "log_error", "curve"),
        *("weights", "judged", "members", "gap", "gap_error", "anchored"),
    ),
    "skipped": ("step", "reason"),
    "snapshot": ("step", "weights"),
    "preview": ("step", "prompts", "seconds"),
    "request": ("step", "request"),
    "checkpoint": ("step",),
    "resume": ("step", "changes"),
    "stopped": ("step", "reason"),
    "finished": ("step", "chosen_step", "weights", "proof"),
}
"""Event → its own fields."""

Listener = Callable[[str, dict[str, Any]], None]
"""`listener(event, fields)` is told every event too (trackers)."""


class Events:
    """Args:
    folder: the run's; None writes nothing (processes other than the first).
    """

    def __init__(self, folder: Path | None) -> None:
        self.path = folder / NAME if folder else None
        self.listeners: list[Listener] = []
        if self.path is not None and self.path.is_file():
            _close_torn_line(self.path)

    def add(self, kind: str, values: dict[str, Any]) -> None:
        """Appends `{"event": kind, "time": seconds since 1970, **values}`."""
        if self.path is None:
            return
        event = {"event": kind, "time": round(time.time(), 3), **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
        for listener in self.listeners:
            listener(kind, values)


def _close_torn_line(path: Path) -> None:
    """A killed run may have left half a line: the next event starts on a line of its own."""
    with path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """All whole events, in order. Steps that ran again after a kill stand there twice; the later one counts."""
    events = []
    # Not `splitlines`: a prompt may hold U+2028 and other characters that it takes for ends of lines.
    for line in (folder / NAME).read_text("utf-8", "replace").split("\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


def losses(folder: Path) -> dict[int, float]:
    """The training loss by step."""
    return {e["step"]: e["loss"] for e in read(folder) if e["event"] == "step"}
