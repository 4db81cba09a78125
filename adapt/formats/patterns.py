"""peft's `rank_pattern` and `alpha_pattern`: regular expressions out of somebody else's file, tried within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from adapt.errors import AdapterError

MOST_EXPRESSIONS, LONGEST, MOST_REPEATS = 200, 512, 2
"""What is tried: expressions that are no plain names, letters of a name, repetitions in one expression."""
SPECIAL = re.compile(r"[][.^$*+?{}|()\\]")


def by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """What `rank_pattern` or `alpha_pattern` gives a module: the first pattern that matches the end of its name.

    Raises:
        AdapterError: patterns that could take for ever.
    """
    if not patterns:
        return default
    names, expressions = _table(tuple(patterns.items()))
    found = [names[key] for key in _keys(module) if key in names]
    found += [(number, value) for number, pattern, value in expressions if pattern.match(_short(module))]
    return min(found, key=lambda entry: entry[0])[1] if found else default


def _keys(module: str) -> Iterator[str]:
    """`a.b` → `^a.b`, `a.b`, `b`: the plain names that fit it."""
    yield f"^{module}"
    while module:
        yield module
        module = module.partition(".")[2]


def _short(module: str) -> str:
    if len(module) > LONGEST:
        raise AdapterError(
            "the adapter's header has patterns, and a layer's name is too long to try them", given=module[:40]
        )
    return module


@lru_cache(maxsize=64)
def _table(
    patterns: tuple[tuple[str, Any], ...],
) -> tuple[dict[str, tuple[int, Any]], list[tuple[int, re.Pattern[str], Any]]]:
    """Plain names by themselves, other expressions in order; each with its place."""
    names: dict[str, tuple[int, Any]] = {}
    expressions = []
    for number, (pattern, value) in enumerate(patterns):
        anchor, text = ("^", pattern[1:]) if pattern.startswith("^") else ("", pattern)
        plain = re.sub(r"\\([.\-])", r"\1", text)
        if re.escape(plain) == text or not SPECIAL.search(text):
            names.setdefault(anchor + plain, (number, value))
        else:
            expressions.append((number, _bounded(pattern), value))
    if len(expressions) > MOST_EXPRESSIONS:
        raise AdapterError(
            "the adapter's header has too many patterns", given=len(expressions), allowed=MOST_EXPRESSIONS
        )
    return names, expressions


def _bounded(pattern: str) -> re.Pattern[str]:
    """The expression at the end of a name, compiled; repetitions of groups can take exponential time."""
    repeats = re.findall(r"(?<!\\)[*+{]", pattern)
    if re.search(r"\)[*+{]", pattern) or len(repeats) > MOST_REPEATS or len(pattern) > 10 * LONGEST or "(?" in pattern:
        raise AdapterError("the adapter's header holds a pattern that could take for ever", given=pattern[:60])
    return re.compile(rf"(.*\.)?({pattern})$")
