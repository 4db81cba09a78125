"""Guidances by the names that users know: `apg:eta=0,stop=0.8`. Imports no torch; `guided` builds them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from adapt.errors import SettingsError, did_you_mean

SCHEDULES = ("constant", "linear", "cosine")
NULL, SAME = "null", "same"
PAIR = re.compile(r",(?=\s*[\w-]+\s*=)")


@dataclass(frozen=True)
class Option:
    """What may be said after a guidance's name.

    Attributes:
        kind: float, int or str.
        default: what holds when it is not said; None: it must be said, or the family decides.
        low, high: bounds of a number.
        choices: of a text; empty: any.
        needed: whether it must be said.
    """

    kind: Callable[[Any], Any]
    default: Any = None
    low: float = float("-inf")
    high: float = float("inf")
    choices: tuple[str, ...] = ()
    needed: bool = False

    @property
    def allowed(self) -> str:
        if self.choices:
            return ", ".join(self.choices)
        if self.kind is str:
            return "a text"
        noun = "a whole number" if self.kind is int else "a number"
        low = f" from {self.low:g}" if isfinite(self.low) else ""
        return noun + low + (f" to {self.high:g}" if isfinite(self.high) else "")

    def read(self, value: Any) -> Any:
        """The value in its kind. Raises ValueError."""
        if isinstance(value, bool) or (self.kind is int and isinstance(value, float)):
            raise ValueError
        read = self.kind(value)
        if self.choices and read not in self.choices:
            raise ValueError
        if self.kind is not str and not (isfinite(read) and self.low <= read <= self.high):
            raise ValueError
        return read


@dataclass(frozen=True)
class Kind:
    """One guidance of the table.

    Attributes:
        says: what it does, in a few words.
        options: by name.
        classifier_free: it pushes away from the negative, as strongly as `guidance_scale` says; only one of them at once.
    """

    says: str
    options: Mapping[str, Option] = field(default_factory=dict)
    classifier_free: bool = False


def _where(start: float, stop: float) -> dict[str, Option]:
    return {"start": Option(float, start, 0, 1), "stop": Option(float, stop, 0, 1)}


_TIMED = {**_where(0.0, 1.0), "schedule": Option(str, "constant", choices=SCHEDULES)}


def _scaled(scale: float) -> dict[str, Option]:
    return {"scale": Option(float, scale, 0, 1000), **_TIMED}


KINDS: dict[str, Kind] = {
    "cfg": Kind("classifier-free: away from the negative", _TIMED, classifier_free=True),
    "adaptive": Kind(
        "classifier-free until the negative says the same, then without it",
        {"threshold": Option(float, 0.991, -1, 1), **_TIMED},
        classifier_free=True,
    ),
    "apg": Kind(
        "adaptive projected: the part of the push that over-saturates is weakened",
        {
            "eta": Option(float, 0.0, -1000, 1000),
            "momentum": Option(float, -0.5, -1, 1),
            "norm": Option(float, 0.0, 0, 1e9),
            **_TIMED,
        },
        classifier_free=True,
    ),
    "cfg-zero": Kind(
        "CFG-Zero*: the null is fitted first; flows begin with zero steps",
        {"zero_steps": Option(int, None, 0, 1000), **_TIMED},
        classifier_free=True,
    ),
    "domain": Kind(
        "away from the base without the adapter",
        {"prompt": Option(str, NULL, choices=(NULL, SAME)), **_scaled(2.0)},
    ),
    "autoguidance": Kind(
        "away from a weaker model: another adapter's path, or a share of this one's scale",
        {"weak": Option(str, needed=True), **_scaled(2.0)},
    ),
    "pag": Kind("away from perturbed self-attention", {"layers": Option(str, "mid"), **_scaled(4.0)}),
    "slg": Kind(
        "away from the network without some of its blocks",
        {"layers": Option(str, needed=True), **_scaled(3.8), **_where(0.01, 0.2)},
    ),
}
"""By name. Scales are neutral at 1: diffusers' `pag_scale` and `skip_guidance_scale` are these minus 1."""

WEAKER = ("domain", "autoguidance")
"""Those that compare with a weaker model."""
ALIASES = {"auto": "autoguidance", "cfg-zero-star": "cfg-zero", "cfg_zero": "cfg-zero", "classifier-free": "cfg"}


@dataclass(frozen=True)
class Named:
    """A guidance as it was asked for, read and judged.

    Attributes:
        name: a key of `KINDS`.
        said: the options that were given, in their order.
    """

    name: str
    said: tuple[tuple[str, Any], ...] = ()

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    def __getitem__(self, option: str) -> Any:
        """What was given, else the default."""
        return dict(self.said).get(option, self.kind.options[option].default)

    def __str__(self) -> str:
        pairs = ",".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in self.said
        )
        return self.name + (f":{pairs}" if pairs else "")

    def told(self) -> str:
        """The same for others' eyes: of a path only the last part."""
        said = tuple((key, re.split(r"[\\/]", value)[-1] if key == "weak" else value) for key, value in self.said)
        return str(Named(self.name, said))


def read(text: str) -> Named:
    """`NAME[:key=value,key=value …]`.

    Raises:
        SettingsError: unknown name or key, a value that cannot be read or is out of range, a key that must be given.
    """
    name, _, rest = text.strip().partition(":")
    name = ALIASES.get(name.strip().lower(), name.strip().lower())
    if name not in KINDS:
        raise _unknown("unknown guidance", name, list(KINDS))
    said = tuple(_pair(name, piece) for piece in PAIR.split(rest)) if rest.strip() else ()
    if len(dict(said)) < len(said):
        raise SettingsError(f"guidance {name}: a key is given twice", given=text)
    named = Named(name, said)
    for key, option in KINDS[name].options.items():
        if option.needed and key not in dict(said):
            raise SettingsError(
                f"guidance {name} needs {key}", given=text, next=f"--guidance {name}:{key}={_example(key)}"
            )
    if named["start"] >= named["stop"]:
        raise SettingsError(f"guidance {name}: start must be before stop", given=text, allowed="0 ≤ start < stop ≤ 1")
    return named


def _pair(name: str, piece: str) -> tuple[str, Any]:
    key, equals, value = piece.partition("=")
    key, options = key.strip().replace("-", "_"), KINDS[name].options
    if not equals:
        raise SettingsError(f"guidance {name}: options are key=value", given=piece, allowed=", ".join(options))
    if key not in options:
        hint = "--guidance-scale sets its scale" if key == "scale" else None
        raise _unknown(f"guidance {name} has no such option", key, list(options), hint)
    try:
        return key, options[key].read(value.strip())
    except ValueError as error:
        raise SettingsError(
            f"guidance {name}: {key} is out of range", given=value, allowed=options[key].allowed
        ) from error


def share_of(text: str) -> float | None:
    """`0.5` → a share of the adapters' scales; None: it is a path.

    Raises:
        SettingsError: a number that is no share, such as `inf`.
    """
    try:
        share = float(text)
    except ValueError:
        return None
    if not isfinite(share):
        raise SettingsError("guidance autoguidance: weak is no share of the adapter's scale", given=text, allowed="0.5")
    return share


def _example(key: str) -> str:
    return {"weak": "0.5", "layers": "7+8+9"}[key]


def _unknown(message: str, given: str, known: list[str], hint: str | None = None) -> SettingsError:
    near = did_you_mean(given, known)
    return SettingsError(
        message, given=given, allowed=", ".join(known), next=hint or (f"did you mean {near}?" if near else None)
    )


def read_all(texts: str | Sequence[str]) -> tuple[Named, ...]:
    """Several guidances that work together; at most one is classifier-free.

    Raises:
        SettingsError: see `read`; two classifier-free ones, or the same one twice.
    """
    given: list[Any] = list(texts) if isinstance(texts, list | tuple) else [texts]
    if not all(isinstance(text, str) for text in given):
        raise SettingsError("guidance is a text or a list of texts", given=repr(texts), allowed="apg:eta=0")
    named = tuple(read(text) for text in given)
    free = [one.name for one in named if one.kind.classifier_free]
    if len(free) > 1:
        raise SettingsError("only one classifier-free guidance works at once", given=", ".join(free))
    if len({one.name for one in named}) < len(named):
        raise SettingsError("a guidance is given twice", given=", ".join(one.name for one in named))
    return named
