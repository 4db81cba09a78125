"""`adapt classes`: the classes of an adapter: listed, renamed, removed, merged."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli import options
from adapt.cli.saving import require_free, save
from adapt.errors import SettingsError


def classes(
    adapter: Annotated[str, typer.Argument(help="An adapter's folder, a run's folder, or user/name on the Hub.")],
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Another name; may be given several times.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Without this class; may be given several times.")
    ] = None,
    merge: Annotated[
        str | None, typer.Option(metavar="ADAPTER", help="With the classes of another that grew from the same.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A new folder for the adapter with other classes.")] = None,
    json: options.Json = False,
) -> None:
    """List the classes of an adapter; or rename, remove and merge some. The others go on drawing the same bytes."""
    from adapt.adapter import Adapter

    changes = bool(rename or remove or merge)
    if changes != (output is not None):
        next = "--output FOLDER" if changes else "--rename OLD=NEW, --remove NAME, --merge ADAPTER"
        raise SettingsError("a change of classes and --output go together", next=next)
    labels: tuple[str, ...] = Adapter.labels_of(adapter)
    if output is not None:
        require_free(output)
        if output.suffix == ".safetensors":
            raise SettingsError("classes are more than one file", given=output, next="--output FOLDER")
        from adapt.api.class_tools import edited

        other = Adapter.load(merge) if merge else None
        made = edited(Adapter.load(adapter), rename=_pairs(rename or []), remove=remove or [], merge=other)
        save(made, output, proof=False)
        labels = made.labels
    typer.echo(
        json_.dumps({"classes": list(labels)}, ensure_ascii=False) if json else "\n".join(labels) or "no classes"
    )


def _pairs(texts: list[str]) -> dict[str, str]:
    found = {old.strip(): new.strip() for old, _, new in (text.partition("=") for text in texts)}
    if not all(found.values()):
        raise SettingsError("--rename cannot be read", given=", ".join(texts), allowed="OLD=NEW")
    return found
