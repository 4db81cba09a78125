"""Too little memory, told in one line: when, how much was asked for, what to set. Imports no torch."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adapt.errors import TrainingError

if TYPE_CHECKING:
    from adapt.config import TrainSettings

PHRASES = ("out of memory", "can't allocate memory", "not enough memory")
"""In what torch says on CUDA and MPS, on CPUs, and on CPUs under Windows."""
UNTOUCHED = "the last checkpoint is untouched, and --resume goes on from it (--allow NAME for what is set anew)"


def asked_for(error: BaseException) -> str | None:
    """How much did not fit, of how much, as far as an error says it; None: it is about something else."""
    text = str(error)
    if not isinstance(error, MemoryError) and not any(phrase in text for phrase in PHRASES):
        return None
    found = re.search(r"tried to allocate ([\d.]+) ?(\w+)", text, re.IGNORECASE)
    total = re.search(r"(?:total capacity of|max allowed:) ([\d.]+ \w+)", text)
    more = f"{_size(*found.groups())} more" if found else "more than there is"
    return f"{more}, of {total[1]}" if total else more


def _size(number: str, unit: str) -> str:
    return f"{float(number) / 2**30:.2f} GiB" if unit == "bytes" else f"{number} {unit}"


@contextmanager
def within_memory(doing: Callable[[], str], next: str) -> Iterator[None]:
    """Work that may need more memory than there is.

    Args:
        doing: says when it ran out.

    Raises:
        TrainingError: it did. What failed is let go of, so that who catches this has its memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's are of the second kind
        wanted = asked_for(error)
        if wanted is None:
            raise
        traceback.clear_frames(error.__traceback__)
        raise TrainingError(f"memory ran out {doing()}", given=wanted, next=next) from error


def measures(settings: TrainSettings) -> str:
    """What lowers the memory of a run with these settings."""
    found = ["memory=fit (tries what fits)"]
    found += [] if settings.gradient_checkpointing else ["gradient_checkpointing=true"]
    share = settings.batch_size
    several = settings.accumulation < share  # rows at once, in one process
    found += [f"accumulation={share}", f"batch_size below {share}"] if several else ["a lower resolution"]
    return ", ".join(found[:-1]) + f" or {found[-1]}"
