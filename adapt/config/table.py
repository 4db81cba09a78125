"""`docs/settings.md`, written from the model: `python -m adapt.config.table > docs/settings.md`; with the word `presets`,
`docs/presets.md` (`make docs` writes both)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from adapt.config import presets
from adapt.config.fields import Section
from adapt.config.settings import SECTIONS, kind

HEAD = """# Settings

Written from the code by `make docs`; do not edit. `adapt train --settings` prints the same. Settings have one name everywhere:
`rank=16` on the command line, `rank: 16` in a YAML file, `TrainSettings(rank=16)` in Python. `course` settings decide what is
learned: a resumed run keeps them unless a change is allowed by name. `show` settings decide only what is written and shown.
A step is always an optimizer step.
"""


def names(section: type[Section]) -> list[str]:
    """The settings of one section, in the order of its file."""
    return list(section.__annotations__)


def ordered() -> list[str]:
    """All settings, section by section."""
    return [name for section in SECTIONS for name in names(section)]


def markdown() -> str:
    """One table a section."""
    return HEAD + "".join(f"{line}\n" for section in SECTIONS for line in _section(section))


def _section(section: type[Section]) -> Iterator[str]:
    title = (section.__doc__ or "").strip().split("\n")[0]
    yield from (
        "",
        f"## {title.removesuffix('.')}",
        "",
        "| setting | default | at resume | what it is |",
        "|---|---|---|---|",
    )
    for name in names(section):
        field = section.model_fields[name]
        yield f"| `{name}` | {_default(field.default)} | {kind(name)} | {field.description} |"


def _default(value: Any) -> str:
    return "none" if value in (None, ()) else str(value)


if __name__ == "__main__":
    sys.stdout.write(presets.markdown() if sys.argv[1:] == ["presets"] else markdown())
