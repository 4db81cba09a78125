"""`adapt bases`: the families that can be trained, one of them, or what one base is."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapt.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from adapt.api.bases import Judged
    from adapt.medium import Medium

GIB = 2**30
WIDTH = 100
"""Columns where there is no terminal to ask."""
MACHINES = {"cpu": "a CPU", "cuda": "a GPU"}
MADE = {"picture": "picture", "video": "clip", "sound": "sound"}


def bases(
    base: Annotated[
        str | None,
        typer.Argument(
            help="A folder, a Hub id, a checkpoint or icons: what it is. A family's name: its row. Without: the table."
        ),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="What training the published checkpoints takes, one by one.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List the families of models that adapt knows, or judge one base without loading its weights."""
    from adapt.api.families import table
    from adapt.errors import SettingsError

    if base is not None and memory:
        raise SettingsError("--memory is of the table; a base's own forecast: adapt train … --dry-run", given=base)
    if base is not None:
        _one(base, json)
        return
    rows = table()
    if json:
        typer.echo(json_.dumps({"families": rows}, ensure_ascii=False))
        return
    _show(_checkpoints(rows) if memory else _families(rows))
    typer.echo(f"\n{NOTE}")
    typer.echo(
        "adapt bases FAMILY says its pipelines, licence and what is not trained; adapt bases PATH judges one base"
    )


NOTE = """GiB: weights in bf16 or NF4, LoRA of rank 16, one row of the base's own size, gradient checkpointing;
counted, not measured. Every adapter loads in adapt too; UIs: ComfyUI; by family A1111, Forge, InvokeAI.
CFG: classifier-free guidance at its usual scale (ʳ: renormalised). Pictures, where it says nothing else.
proof: docs/proof-states.md; contract: tested on tiny random models, never on the real weights."""


def _one(base: str, json: bool) -> None:
    """One base, or one family where nothing of that name is there."""
    from adapt.api.bases import judge
    from adapt.api.families import row_of
    from adapt.backbones.registry import FAMILIES
    from adapt.source import is_here

    if base in FAMILIES and not is_here(base) and not Path(base).exists():
        row = row_of(FAMILIES[base])
        typer.echo(json_.dumps(row, ensure_ascii=False) if json else "\n".join(_family(row)))
        return
    judged = judge(base)
    typer.echo(json_.dumps(judged.as_dict(), ensure_ascii=False) if json else "\n".join(_described(judged)))


# ------------------------------------------------------------------------------------------------ the table
def _show(table: Table) -> None:
    """As wide as the terminal."""
    import sys

    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False).print(table)


def _empty(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True, show_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if "GiB" in name else "left", no_wrap=number == 0, overflow="fold")
    return table


SHORT = {"text-to-image": "text", "video": "text", "sound": "text", "inpainting": "inpaint", "attention": "attn",
         "feed-forward": "ff", "convolutions": "conv", "contract only": "contract"}  # fmt: skip
"""Words that are longer than the table's columns."""


def _families(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _empty("family", "told", "LoRA in", "guidance", "loads in", "bf16 GiB", "NF4 GiB", "proof")
    for row in rows:
        tasks = sorted(row["conditions"], key=lambda task: task not in ("text-to-image", "video", "sound", "class"))
        table.add_row(
            row["family"],
            _short(tasks) + ("" if row["medium"] == "picture" else f" → {MADE[row['medium']]}"),
            _short(row["trained"]),
            (row["guidance"] or "").replace("classifier-free", "CFG").replace(", renormalised", "ʳ"),
            ", ".join(name for name in row["loads_in"] if name != "adapt"),
            _span(row["memory"], "bf16_checkpointing"),
            _span(row["memory"], "nf4_checkpointing"),
            _short([row["state"]]),
        )
    return table


def _short(words: Sequence[str]) -> str:
    return ", ".join(SHORT.get(word, word) for word in words)


def _span(memory: Mapping[str, Mapping[str, float]], way: str) -> str:
    """Of the smallest and the largest checkpoint."""
    ends = sorted({round(found[way], 1) for found in memory.values()})
    return f"{ends[0]}–{ends[-1]}" if len(ends) > 1 else "".join(map(str, ends))


def _checkpoints(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _empty("checkpoint", "family", "parameters", "bf16, all kept GiB", "bf16 GiB", "NF4 GiB")
    for row in rows:
        for title, found in row["memory"].items():
            gib = [f"{found[way]:.1f}" for way in ("bf16", "bf16_checkpointing", "nf4_checkpointing")]
            table.add_row(title, row["family"], f"{found['parameters'] / 1e9:.2f} B", *gib)
    return table


def _family(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{row['family']}: {row['title']}; {row['state']}"
    for pipeline, task in row["pipelines"].items():
        yield f"{pipeline}: {task}, told {row['conditions'][task]}"
    yield f"LoRA in {', '.join(row['trained'])}; guidance: {row['guidance']}; loads in {', '.join(row['loads_in'])}"
    for title, found in row["memory"].items():
        yield f"{title}: {_needed(found)}"
    for variant, why in row["refused"].items():
        yield f"not trained: {variant}: {why}"
    yield f"licence: {row['licence']}; of a checkpoint, what its page says"


def _needed(found: Mapping[str, float]) -> str:
    return (
        f"{found['parameters'] / 1e9:.2f} B parameters; LoRA of rank 16, one row of its own size: {found['bf16']:.1f} GiB in "
        f"bf16, {found['bf16_checkpointing']:.1f} GiB with gradient checkpointing, {found['nf4_checkpointing']:.1f} GiB with "
        "that and NF4"
    )


# ------------------------------------------------------------------------------------------------ one base
def _made(medium: Medium) -> str:
    """What it makes by default, and what else it could."""
    if medium.kind == "sound":
        channels = {1: "mono", 2: "stereo"}.get(medium.channels, f"{medium.channels} channels")
        return f"sounds of {medium.seconds:.2f} s, {medium.rate} samples a second, {channels}"
    side, sides = medium.side, f"sides are multiples of {medium.scale}"
    if medium.kind == "picture":
        return f"pictures of {side} px; {sides}"
    frames = f"frames are 1 + a multiple of {medium.frame_scale}, {sides}"
    return f"clips of {medium.frames} frames of {side} px, {medium.fps:g} a second; {frames}"


def _described(judged: Judged) -> Iterator[str]:
    yield f"{judged.reference}: {judged.title} ({judged.family}), {judged.task}, {judged.pipeline}"
    if judged.medium.side:
        yield _made(judged.medium)
    for part in judged.components:
        kinds = ", ".join(part.precision)
        packed = f", in few bits: {part.packed}" if part.packed else ""
        yield (
            f"{part.name}: {part.kind}, {part.parameters / 1e6:.1f} M parameters, {kinds}, {part.bytes / GIB:.2f} GiB{packed}"
        )
    yield "held in " + " and ".join(
        dict.fromkeys(f"{held} on {MACHINES[device]}" for device, held in judged.held.items())
    )
    if judged.memory:
        yield f"as {judged.memory['like']}: {_needed(judged.memory)}"
    else:
        yield "memory for training: adapt train IMAGES --base … --dry-run"
    yield f"licence of the usual checkpoints: {judged.licence}"
    yield f"state of proof: {judged.state}"
    yield f"cannot be trained: {judged.refused}" if judged.refused else "can be trained: adapt train IMAGES --base …"
