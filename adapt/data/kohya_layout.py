"""kohya's layout: the pictures in `10_sks dog/` show an `sks dog` and are drawn ten times an epoch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from adapt.data.wording import listed
from adapt.errors import DataError

LARGEST_COUNT = 10_000
_COUNTED = re.compile(r"^([0-9]+)_(?=.)")


def count_of(folder: str) -> int | None:
    """The number before the underscore; None for a name without."""
    match = _COUNTED.match(folder)
    return int(match[1]) if match else None


def without_count(folder: str) -> str:
    """`10_sks dog` → `sks dog`."""
    return _COUNTED.sub("", folder, count=1)


def require_counts(folders: Iterable[str]) -> None:
    """Raises DataError when folders repeat their pictures 0 times or absurdly often (a year before an underscore, say)."""
    wrong = [name for name in folders if (count := count_of(name)) is not None and not 1 <= count <= LARGEST_COUNT]
    if wrong:
        raise DataError(
            "Folders begin with a count that is no number of repeats",
            given=listed(wrong),
            allowed=f"1_ to {LARGEST_COUNT}_, or no count",
            next="rename them, or repeats=ignore",
        )


def remark(folders: Iterable[str], obeyed: bool) -> list[str]:
    """One line on what the counts in these folder names do, or would do; none where none are there or asked for."""
    counted = [name for name in dict.fromkeys(folders) if count_of(name) is not None]
    if not counted:
        return ["No sub-folder begins with a count such as 10_cat: repeats=folders repeats nothing"] if obeyed else []
    if obeyed:
        return [f"Pictures are repeated as their folders say ({len(counted)}): {listed(counted)}"]
    return [
        f"Sub-folders that look like kohya's, which begin with a count ({len(counted)}): {listed(counted)}; repeats=folders "
        "draws their pictures so many times as often, now each is drawn once an epoch"
    ]
