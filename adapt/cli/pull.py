"""`adapt pull`: an adapter of the Hub, verified."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli import options


def pull(
    repository: Annotated[
        str, typer.Argument(metavar="REPO[@REVISION]", help="user/name, user/name@v1, or user/name/file.safetensors.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="A new folder for a copy of your own; default: the Hub's cache.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Bring an adapter of the Hugging Face Hub here; every file is compared with the digest that the Hub says.

    What is in the cache already is not fetched again, and is found without network. Example:

        adapt pull someone/their-style@v1 --output their-style
    """
    from adapt.adapter import Adapter
    from adapt.hub import pull as from_hub

    path = from_hub(repository, output)
    facts = Adapter.read_facts(path)
    told = {"path": str(path), "base": facts.base.get("reference"), "trigger": facts.trigger}
    typer.echo(json_.dumps(told, ensure_ascii=False) if json else str(path))
