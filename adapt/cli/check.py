"""`adapt check`: what is wrong with a set of pictures, and what is worth knowing, before anything is trained."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from adapt.data import Finding, Judgement
    from adapt.data.picture import Found
    from adapt.types import TokenCounter

FRACTION, FEWEST = 0.1, 20
"""Of so many pictures on, a tenth is proposed to be held out."""


def check(
    data: Annotated[Path, typer.Argument(help="Pictures with captions: a folder, see docs/data.md.")],
    base: Annotated[str, typer.Option(help="Whose text encoder reads the captions.")] = "icons",
    resolution: Annotated[
        int | None, typer.Option(help="Side in pixels that pictures are brought to; default: as they are.")
    ] = None,
    trigger: Annotated[str | None, typer.Option(help="Word that captions are expected to hold.")] = None,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 also when there are findings.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> int:
    """Judge a folder of pictures: 0 clean, 1 findings, 2 cannot be read. Changes nothing."""
    from adapt.data import find, judge
    from adapt.data.whole import judge_whole
    from adapt.loading import caption_counter
    from adapt.loading import find as find_base

    folder = find_base(base)
    found = find(data)
    judgement = judge(found, resolution or 0, _counter(found, caption_counter(folder)))
    findings = [*judgement.faults, *judgement.warnings, *judge_whole(found, judgement, trigger)]
    held_out = propose(judgement)
    if json:
        typer.echo(json_.dumps(_as_dict(found, findings, held_out), ensure_ascii=False))
    else:
        _tell(found, findings, held_out)
    return 1 if findings and not exit_zero else 0


def _counter(found: Found, counter: TokenCounter) -> TokenCounter | None:
    """No counter where there is no caption to count."""
    return counter if any(picture.captions for picture in found.pictures) else None


def propose(judgement: Judgement) -> list[str]:
    """Names that could be held out: a tenth, near duplicates on one side; none of a small set."""
    from adapt.data import split
    from adapt.data.whole import groups

    if len(judgement.usable) < FEWEST:
        return []
    return [picture.name for picture in split(judgement.usable, FRACTION, 0, groups(judgement))[1]]


def _as_dict(found: Found, findings: list[Finding], held_out: list[str]) -> dict[str, Any]:
    notes = [asdict(finding) for finding in findings]
    head = {"pictures": len(found.pictures), "captions": found.kind, "notes": list(found.warnings)}
    return {**head, "findings": notes, "held_out": {"setting": f"validation={FRACTION}", "names": held_out}}


def _tell(found: Found, findings: list[Finding], held_out: list[str]) -> None:
    from adapt.data.judge import lines

    typer.echo(f"{len(found.pictures)} pictures, captions from: {found.kind}")
    for note in found.warnings:
        typer.echo(f"note     {note}")
    for line in lines(findings):
        typer.echo(f"finding  {line}")
    if held_out:
        typer.echo(
            f"advice   validation={FRACTION} holds out {len(held_out)} of them, so that the best step can be chosen"
        )
    typer.echo("nothing was found" if not findings else f"{len(findings)} findings")
