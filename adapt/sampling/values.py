"""Values that a user gives, judged one by one. Imports no torch."""

from __future__ import annotations

from math import isfinite
from numbers import Integral, Real
from typing import Any

from adapt.errors import SettingsError


def require_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise SettingsError(f"{name} is a text", given=repr(value))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(f"{name} is no valid text", given=repr(value), next="type or save it as UTF-8") from error


def require_whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    if value is None:
        return
    wrong = isinstance(value, bool) or not isinstance(value, Integral)
    if wrong or value < low or (high is not None and value > high):
        bound = f"a whole number from {low}" + (f" to {high}" if high else "")
        raise SettingsError(f"{name} is out of range", given=repr(value), allowed=bound)


def require_number(name: str, value: Any, low: float, high: float | None, next: str | None = None) -> None:
    if value is None:
        return
    wrong = isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value)
    if wrong or value < low or (high is not None and value > high):
        bound = f"a number from {low}" + (f" to {high}" if high else "")
        raise SettingsError(f"{name} is out of range", given=repr(value), allowed=bound, next=next)
