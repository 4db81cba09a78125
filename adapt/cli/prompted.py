"""What `adapt generate` says about prompts that a family cannot take as they are meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from adapt.prompts import PLAIN

if TYPE_CHECKING:
    from adapt.backbones import Backbone
    from adapt.sampling.request import Request

WEIGHTED = re.compile(r"(?<!\\)[(\[]|\bBREAK\b|^\s*blend\(")


def tell_of_explained(prompt: str) -> None:
    """Brackets are text for `adapt explain`, which looks at the words as they stand."""
    if WEIGHTED.search(prompt):
        typer.echo("note: explain takes brackets in prompts as text", err=True)


def tell_of_brackets(backbone: Backbone, requests: Sequence[Request]) -> None:
    """Once: brackets are text, where the base's prompts take no weights."""
    if backbone.readers:
        return
    read = [text for request in requests if request.prompt_syntax != PLAIN for text in request.texts]
    if any(WEIGHTED.search(text) for text in read):
        told = f"brackets in prompts are text for {backbone.entry.title}, whose encoders take no weights"
        typer.echo(f"note: {told}", err=True)
