"""Where caches lie, how large they may grow, and what their entries are called. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from pathlib import Path

from adapt.errors import SettingsError

LIMIT = 50.0
"""GiB that the cache may hold unless `$ADAPT_CACHE_LIMIT` says otherwise."""


def default_folder() -> Path:
    """`$ADAPT_CACHE`, or `adapt` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache` on Linux)."""
    if chosen := os.environ.get("ADAPT_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "adapt" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "adapt"
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "adapt"


def key_of(*facts: object) -> str:
    """Key of what a value depends on: sha256 of the facts as JSON (text, numbers, booleans, lists)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def limit() -> int:
    """Bytes that the cache may hold: `$ADAPT_CACHE_LIMIT` in GiB, else 50 GiB.

    Raises:
        SettingsError: it is no number above 0.
    """
    given = os.environ.get("ADAPT_CACHE_LIMIT") or str(LIMIT)
    try:
        gib = float(given)
    except ValueError:
        gib = math.nan
    if not gib > 0:
        raise SettingsError("ADAPT_CACHE_LIMIT is no size", given=given, allowed="GiB, above 0; inf: no limit")
    return int(min(gib * 2**30, 2**62))
