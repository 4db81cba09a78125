"""At which steps a run is measured, saved and drawn. Imports no torch."""

from __future__ import annotations

from adapt.config import TrainSettings

EARLIEST = -6
"""Logarithmic measuring begins at an eighth of `validate_every`: 2 ** (-6 / 2)."""


def due(settings: TrainSettings, step: int) -> set[str]:
    """What is to be done after this step, in the words of a request: `measure`, `save`, `sample`."""
    last = step == settings.steps
    every = {"save": settings.save_every, "sample": settings.preview_every}
    found = {word for word, n in every.items() if step > 0 and (last or step % n == 0)}
    return found | ({"measure"} if last or measured(settings, step) else set())


def calendar(settings: TrainSettings) -> dict[str, list[int]]:
    """After which steps, from 1, each of them is due: `due` for the whole run at once, without asking step by step."""
    last, every = settings.steps, {"save": settings.save_every, "sample": settings.preview_every}
    found = {word: {*range(n, last + 1, n), last} for word, n in every.items()}
    n = settings.validate_every
    found["measure"] = {last, *(range(n, last + 1, n) if settings.validate_at == "even" else log_spaced(n, last))}
    return {word: sorted(steps) for word, steps in found.items()}


def measured(settings: TrainSettings, step: int) -> bool:
    """Even: every `validate_every` steps. Log: each time √2 times later than before, `validate_every` being one of them.

    A held-out loss turns early with few pictures, and late steps differ little: equal factors tell more than equal
    distances. The steps do not depend on the length of the run, so that a longer one has the same and more.
    """
    if step == 0 or settings.validate_at == "even":
        return step % settings.validate_every == 0
    return step in log_spaced(settings.validate_every, step)


def log_spaced(every: int, last: int) -> list[int]:
    """every · 2^(i/2), rounded, from an eighth of `every` (and step 1) to `last`, without repeats."""
    found, i = [], EARLIEST
    while (step := round(every * 2 ** (i / 2))) <= last:
        found.append(step)
        i += 1
    return sorted({step for step in found if step >= 1})


def rounds(settings: TrainSettings) -> int:
    """How often a whole run is measured, step 0 included."""
    return sum("measure" in due(settings, step) for step in range(settings.steps + 1))


def forwards(settings: TrainSettings, held_out: int, trained: int) -> int:
    """Forward passes of single pictures that one measurement takes, the base's aside (once a run)."""
    kinds = 2 if settings.ema and settings.keep == "best" else 1
    members = held_out if settings.validation_members is None else settings.validation_members
    pictures = held_out * kinds + min(members, trained) if held_out else 0
    return pictures * settings.validation_times * (1 + settings.validation_pairs)
