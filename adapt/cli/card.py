"""`adapt card`: the model card of an adapter, rendered anew."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli import options
from adapt.errors import RunError


def card(
    adapter: Annotated[Path, typer.Argument(help="An adapter's folder, or a run's folder.")],
    output: Annotated[
        Path | None, typer.Option(help="Where the card goes; default: README.md in the adapter's folder; - is stdout.")
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="REPO", help="user/name that its code names; default: the folder's name.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="The adapter's licence, such as cc-by-4.0; default: its base's.")
    ] = None,
    data_license: Annotated[str | None, typer.Option(metavar="ID", help="Licence of the training pictures.")] = None,
    data_source: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Where the training pictures are from.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Replace a card that a person has changed.")] = False,
    json: options.Json = False,
) -> None:
    """Render an adapter's model card from its adapter.json. A card that a person has changed is not replaced unasked.

    Example:

        adapt card runs/my-style --data-license cc-by-4.0 --data-source "my own drawings"
    """
    from dataclasses import replace

    from adapt import files
    from adapt.adapter import FACTS_NAME, Adapter, home
    from adapt.card import is_untouched, render
    from adapt.hub import Wishes

    weights = Adapter.locate(adapter)
    folder = home(weights)
    facts = Adapter.read_facts(adapter)
    said = Wishes(license=license, data_license=data_license, data_source=data_source).data
    told = replace(facts, data={**facts.data, **said})
    text = render(Adapter.load(adapter).name, told, address=repository)
    if str(output) == "-":
        return typer.echo(json_.dumps({"path": None, "card": text}) if json else text, nl=json)
    if folder is None and output is None:
        raise RunError("a bare file has no folder for its card", given=adapter, next="--output README.md")
    path = output or (folder or Path()) / "README.md"
    replaced = path.exists()
    touched = replaced and not is_untouched(path.read_text("utf-8", "replace"))
    if touched and not yes and (json or not _agreed(path)):
        raise RunError(
            "a person has changed this card, so it stays", given=path, next="--yes replaces it; --output - shows it"
        )
    if said and folder is not None:
        files.write_json(folder / FACTS_NAME, told.as_dict())
    files.write(path, text)
    typer.echo(json_.dumps({"path": str(path), "replaced": replaced, "card": text}) if json else path)


def _agreed(path: Path) -> bool:
    """Asked on a terminal; never elsewhere."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"{path} was changed by a person. Replace it?", err=True)
