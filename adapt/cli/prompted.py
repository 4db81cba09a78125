"""What `adapt generate` says about prompts that a family cannot take as they are meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from adapt.prompts import PLAIN

if TYPE_CHECKING:
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.sampling.request import Request

WEIGHTED = re.compile(r"(?<!\\)[(\[]|\bBREAK\b|^\s*blend\(")


def marks_in(prompt: str) -> bool:
    """Whether something in a prompt may be more than text: a bracket, a variant, an escaped character."""
    return any(mark in prompt for mark in "()[]{}\\") or "__" in prompt or WEIGHTED.search(prompt) is not None


def weighted(text: str) -> tuple[str, float]:
    """`PROMPT[:WEIGHT]` of `--compose` → the prompt and its weight, 1 where none is given."""
    head, colon, tail = text.rpartition(":")
    try:
        return (head, float(tail)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def tell_of_pictures(adapters: Sequence[Adapter], requests: Sequence[Request]) -> None:
    """Adapters that look at a picture, and none is given: they draw all the same."""
    for part, does, option in (
        ("image", "takes a reference picture", "image_prompt"),
        ("control", "draws along a control", "control"),
    ):
        taught = [adapter.name for adapter in adapters if part in adapter.conditioners]
        if taught and all(getattr(request, option) is None for request in requests):
            told = f"{taught[0]} {does}, and none is given: --{option.replace('_', '-')} FILE"
            typer.echo(f"note: {told}", err=True)


def tell_of_brackets(backbone: Backbone, requests: Sequence[Request]) -> None:
    """Once: brackets are text, where the base's prompts take no weights."""
    if backbone.readers:
        return
    read = [text for request in requests if request.prompt_syntax != PLAIN for text in request.texts]
    if any(WEIGHTED.search(text) for text in read):
        told = f"brackets in prompts are text for {backbone.entry.title}, whose encoders take no weights"
        typer.echo(f"note: {told}", err=True)
