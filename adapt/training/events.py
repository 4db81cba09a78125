"""`events.jsonl`: what happened in a run, one JSON object a line, only ever appended to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NAME = "events.jsonl"


class Events:
    """Args:
    folder: the run's; None writes nothing (processes other than the first).
    """

    def __init__(self, folder: Path | None) -> None:
        self.path = folder / NAME if folder else None
        if self.path is not None and self.path.is_file():
            _close_torn_line(self.path)

    def add(self, kind: str, values: dict[str, Any]) -> None:
        """Appends `{"event": kind, **values}`."""
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, **values}, ensure_ascii=False) + "\n")


def _close_torn_line(path: Path) -> None:
    """A killed run may have left half a line: the next event starts on a line of its own."""
    with path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """All whole events, in order. Steps that ran again after a kill stand there twice; the later one counts."""
    events = []
    for line in (folder / NAME).read_text("utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # torn by a kill
    return events


def losses(folder: Path) -> dict[int, float]:
    """The training loss by step."""
    return {e["step"]: e["loss"] for e in read(folder) if e["event"] == "step"}
