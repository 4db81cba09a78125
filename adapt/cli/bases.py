"""`adapt bases`: the families that can be trained, or what one base is."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from adapt.api.bases import Judged
    from adapt.api.footprint import Footprint

GIB = 2**30


def bases(
    base: Annotated[
        str | None, typer.Argument(help="A folder, a Hub id or icons: what it is. Without: the table of families.")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Count what training the usual checkpoints takes: a minute or two.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the families of models that adapt knows, or judge one base without loading its weights."""
    from adapt.api.bases import judge, table
    from adapt.errors import SettingsError

    if base is not None and memory:
        raise SettingsError("--memory is of the table; a base's own forecast: adapt train … --dry-run", given=base)
    if base is not None:
        judged = judge(base)
        typer.echo(json_.dumps(judged.as_dict(), ensure_ascii=False) if json else "\n".join(_described(judged)))
        return
    rows = table()
    counted = _counted() if memory else {}
    if json:
        told = {"families": rows, "memory": {name: print_.as_dict() for name, (_, print_) in counted.items()}}
        typer.echo(json_.dumps(told, ensure_ascii=False))
        return
    typer.echo("\n".join(_lines(rows)))
    for title, footprint in counted.values():
        typer.echo(_memory(title, footprint))


def _counted() -> dict[str, tuple[str, Footprint]]:
    from adapt.api.footprint import count, usual
    from adapt.progress import say

    found = {}
    for name, entry in usual().items():
        say(f"counting {entry['title']}")
        found[name] = (entry["title"], count(entry))
    return found


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    width = max(len(row["family"]) for row in rows)
    for row in rows:
        yield f"{row['family']:{width}}  {row['title']}: {', '.join(sorted(set(row['pipelines'].values())))}; {row['state']}"
        yield f"{'':{width}}  {', '.join(row['pipelines'])}"
        yield f"{'':{width}}  licence: {row['licence']}"
        for variant, why in row["refused"].items():
            yield f"{'':{width}}  not trained: {variant}: {why}"
    yield "adapt bases PATH judges one; the licence of a checkpoint is what its page says"


def _memory(title: str, footprint: Footprint) -> str:
    full, small = footprint.total(), footprint.total(nf4=True, checkpointing=True)
    return (
        f"{title}: {footprint.parameters / 1e9:.2f} B parameters; LoRA of rank 16, one picture of its own size: "
        f"{full / GIB:.1f} GiB in bf16, {footprint.total(checkpointing=True) / GIB:.1f} GiB with gradient checkpointing, "
        f"{small / GIB:.1f} GiB with that and NF4"
    )


def _described(judged: Judged) -> Iterator[str]:
    yield f"{judged.reference}: {judged.title} ({judged.family}), {judged.task}, {judged.pipeline}"
    if judged.frame:
        yield f"pictures of {judged.frame[0]} px; sides are multiples of {judged.frame[1]}"
    for part in judged.components:
        kinds = ", ".join(part.precision)
        yield f"{part.name}: {part.kind}, {part.parameters / 1e6:.1f} M parameters, {kinds}, {part.bytes / GIB:.2f} GiB"
    yield f"licence of the usual checkpoints: {judged.licence}"
    yield f"state of proof: {judged.state}"
    yield f"cannot be trained: {judged.refused}" if judged.refused else "can be trained: adapt train IMAGES --base …"
