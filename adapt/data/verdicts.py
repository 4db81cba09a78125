"""What was found out about pictures, kept by content: a second start looks at what has changed and decodes nothing again.

folder/verdicts/….jsonl      one file a source: a line with the sha256 of the rest, then a line a picture
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adapt.data.cache_folder import default_folder, key_of

VERDICTS = "verdicts"


class VerdictCache:
    """Verdicts of one source by the digest of what they are about. Use it in a `with`: its end writes what is new.

    Only verdicts that were asked for or put since then are kept, so that the file does not outgrow the source. A file that is
    damaged counts as none. That it cannot be written is no fault: the next start judges again.

    Args:
        source: what the pictures came from; another source has another file.
        facts: all that verdicts depend on besides the digest: versions and settings, as JSON takes them.
        folder: the cache's; None: the default one.
    """

    def __init__(self, source: str | Path, facts: object, folder: Path | None = None) -> None:
        where = Path(source).resolve() if Path(source).exists() else source
        self.path = (folder or default_folder()) / VERDICTS / f"{key_of(str(where), facts)[:32]}.jsonl"
        self._known = _read(self.path)
        self._kept: dict[str, bytes] = {}
        self._new = False

    def get(self, digest: str) -> Mapping[str, Any] | None:
        """The verdict; None when there is none."""
        line = self._kept.get(digest) or self._known.get(digest)
        if line is None:
            return None
        self._kept[digest] = line
        verdict: Mapping[str, Any] = json.loads(line)
        return verdict

    def put(self, digest: str, verdict: Mapping[str, Any]) -> None:
        """Keeps a verdict: text, numbers, booleans and lists."""
        self._kept[digest] = json.dumps(verdict).encode()
        self._new = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # stopped half-way: what it did not come to is kept as well
            self._kept = {**self._known, **self._kept}
        if self._new or len(self._kept) < len(self._known):
            with contextlib.suppress(OSError):
                _write(self.path, self._kept)
        else:
            with contextlib.suppress(OSError):
                os.utime(self.path)  # the time of the last use: see `tidy`


def _read(path: Path) -> dict[str, bytes]:
    """Digest → verdict as JSON; nothing where there is no whole file."""
    try:
        wanted, _, rest = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if hashlib.sha256(rest).hexdigest().encode() != wanted:
        return {}
    return {line[:64].decode(): line[64:] for line in rest.splitlines()}


def _write(path: Path, verdicts: Mapping[str, bytes]) -> None:
    data = b"".join(digest.encode() + verdict + b"\n" for digest, verdict in sorted(verdicts.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        beside.write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
