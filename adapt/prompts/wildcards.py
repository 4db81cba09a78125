"""A folder of `.txt` files: `__animal__` is one line of `animal.txt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from adapt.errors import DataError, SettingsError, did_you_mean
from adapt.prompts.grammar import WEIGHT, Option, parse


@dataclass(frozen=True)
class Wildcards:
    """The lines of a folder's files, by the names of the files.

    Attributes:
        folder: with `.txt` files, one text a line; subfolders are part of the name (`__colours/warm__`). Empty lines and
            lines that begin with `#` are left out; a line may hold variants and wildcards again, and begin with a weight
            (`0.5::`). None: there are none.
    """

    folder: Path | None = None
    _read: dict[str, tuple[Option, ...]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """Names and files, in the order of the names.

        Raises:
            SettingsError: there is no folder.
            DataError: it has no file.
        """
        if self.folder is None:
            raise SettingsError(
                "the prompt has wildcards, and it is not said where they are", allowed="a folder of .txt files",
                next=r"--wildcards DIR; or write \_\_ for underscores that are text",
            )  # fmt: skip
        found = sorted(self.folder.rglob("*.txt")) if self.folder.is_dir() else []
        if not found:
            raise DataError(
                "there are no wildcards", given=self.folder, allowed="a folder of .txt files", next="check --wildcards"
            )
        return {path.relative_to(self.folder).with_suffix("").as_posix(): path for path in found}

    def options(self, name: str) -> tuple[Option, ...]:
        """What a name stands for: each different line once, in the files' order.

        Args:
            name: of a file, with its folders or without; `*` stands for any characters.

        Raises:
            SettingsError: no file has this name, or a line cannot be read.
            DataError: a file is not UTF-8 or has no lines.
        """
        if name not in self._read:
            options = [option for file in self._named(name) for option in self._lines(file)]
            self._read[name] = tuple(dict.fromkeys(options))
        return self._read[name]

    def _named(self, name: str) -> list[str]:
        found = [n for n in self.files if fnmatchcase(n, name)] or [
            n for n in self.files if fnmatchcase(n, f"*/{name}")
        ]
        if not found:
            near = did_you_mean(name, list(self.files))
            raise SettingsError(
                "there is no such wildcard", given=f"__{name}__", allowed=", ".join(list(self.files)[:20]),
                next=f"did you mean __{near}__?" if near else None,
            )  # fmt: skip
        return found

    def _lines(self, name: str) -> list[Option]:
        try:
            lines = self.files[name].read_text("utf-8-sig").splitlines()
        except (UnicodeDecodeError, OSError) as error:
            raise DataError("a wildcard's file cannot be read", given=f"{name}.txt", next="save it as UTF-8") from error
        filled = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
        if not filled:
            raise DataError("a wildcard's file has no lines", given=f"{name}.txt", allowed="one text a line")
        return [_option(line) for line in filled]


def _option(line: str) -> Option:
    weight = WEIGHT.match(line)
    return Option(parse(line[weight.end() :].lstrip()), float(weight[1])) if weight else Option(parse(line))
