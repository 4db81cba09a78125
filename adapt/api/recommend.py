"""Writes what a sweep recommends into an adapter's folder, so that everything that reads it follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapt import files
from adapt.adapter import CACHED, FACTS_NAME, Adapter, Facts, home
from adapt.api.network import text_width
from adapt.backbones import Backbone
from adapt.card import is_untouched, render
from adapt.errors import RunError
from adapt.evaluation.grid import Setting
from adapt.evaluation.swept import Swept
from adapt.formats.described import slug
from adapt.formats.readers import UI_FOLDER

CARD = "README.md"


@dataclass(frozen=True)
class Stored:
    """Attributes:
    file: the `adapter.json`.
    before, after: what it recommended, and what it recommends.
    notes: what else was written, or was not and why.
    """

    file: Path
    before: dict[str, Any]
    after: Setting
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        told = {"before": self.before, "after": self.after._asdict(), "notes": list(self.notes)}
        return {"file": str(self.file), **told}

    def __str__(self) -> str:
        names = {"scale": "adapter scale", "guidance_scale": "guidance scale", "steps": "steps"}
        changes = (
            f"{noun} {_number(self.before.get(key))} → {getattr(self.after, key):g}" for key, noun in names.items()
        )
        return "; ".join(
            [f"stored in {self.file}: {', '.join(changes)}; adapt generate draws so by default", *self.notes]
        )


def why_not(adapter: str | Path) -> str | None:
    """Why nothing can be stored for this adapter; None: it can. Needs no torch."""
    weights = Adapter.locate(adapter)
    folder = home(weights)
    if folder is None or not (folder / FACTS_NAME).is_file():
        return f"{weights} has no {FACTS_NAME} beside it"
    if CACHED.search(weights.absolute().parent.as_posix()):
        return "it lies in the Hub's cache; adapt pull NAME --output FOLDER makes a copy of your own"
    return None


def store(adapter: str | Path, swept: Swept, setting: Setting, backbone: Backbone) -> Stored:
    """Writes `recommended` and `sweep` in `adapter.json`; the model card follows unless a person has changed it, and so does the
    file for UIs, which tells its strength.

    Raises:
        RunError: nothing can be stored there (`why_not`), or it cannot be written.
    """
    if (why := why_not(adapter)) is not None:
        raise RunError("the recommended settings cannot be stored", given=why)
    weights = Adapter.locate(adapter)
    folder = home(weights)
    assert folder is not None, "it has an adapter.json"
    before = Adapter.read_facts(adapter)
    after = replace(before, recommended={**before.recommended, **setting._asdict()}, sweep=evidence(swept, setting))
    try:
        files.write_json(folder / FACTS_NAME, after.as_dict())
        notes = [_card(folder, before, after), _kohya(folder, backbone)]
    except OSError as error:
        raise RunError(f"the recommended settings cannot be written: {error.strerror}", given=folder) from error
    return Stored(folder / FACTS_NAME, dict(before.recommended), setting, tuple(filter(None, notes)))


def evidence(swept: Swept, setting: Setting) -> dict[str, Any]:
    """What the values rest on: numbers only, none of this machine."""
    row = next(row for row in swept.rows if row.setting == setting)
    names = ("style", "style_error", "prompt", "diversity", "score")
    figures = {name: round(value, 4) for name in names if (value := getattr(row, name)) is not None}
    return {"settings": len(swept.grid), "pictures": swept.pictures, "references": swept.references,
            **swept.beside, **figures}  # fmt: skip


def _card(folder: Path, before: Facts, after: Facts) -> str | None:
    """Renders the model card anew where it is the one that the facts had before."""
    path, name = folder / CARD, Adapter.load(folder).name
    if not path.is_file():
        return None
    text = path.read_text("utf-8", "replace")
    if not is_untouched(text):
        return f"{CARD} was changed by a person and stays"
    if text != render(name, before):
        return f"{CARD} is of another version or repository: adapt card {folder} renders it anew"
    files.write(path, render(name, after))
    return f"{CARD} says so too"


def _kohya(folder: Path, backbone: Backbone) -> str | None:
    """Writes the file for UIs anew where there is one: the strength stands in it and beside it."""
    adapter = Adapter.load(folder)
    path = folder / UI_FOLDER / f"{slug(adapter.name)}.safetensors"
    if not all(file.is_file() for file in adapter.files(path)):
        return None
    samples = [folder / str(sample.get("file")) for sample in adapter.facts.samples]
    adapter.export(
        path, "kohya", text_width=text_width(backbone), picture=next((file for file in samples if file.is_file()), None)
    )
    return f"{UI_FOLDER}/{path.name} says so too"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else "none"
