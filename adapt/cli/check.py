"""`adapt check`: what is wrong with a set of pictures, and what is worth knowing, before anything is trained."""

from __future__ import annotations

import json as json_
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapt.cli import options

if TYPE_CHECKING:
    from adapt.data import Finding, Judgement
    from adapt.data.picture import Found
    from adapt.data.whole import Crop
    from adapt.medium import Medium
    from adapt.types import TokenCounter


@dataclass(frozen=True)
class Report:
    """What was found out.

    Attributes:
        found: the pictures.
        findings: what is wrong with them or worth knowing.
        held_out: names that `validation=auto` would hold out.
        note: what must be said about their number, or None.
        cut: name of each picture → share of it that is cut off.
        noun: what is judged: pictures, sounds, clips.
    """

    found: Found
    findings: tuple[Finding, ...]
    held_out: list[str]
    note: str | None
    cut: dict[str, float]
    noun: str = "pictures"


def check(
    data: Annotated[
        Path, typer.Argument(help="Pictures with captions: a folder, a list of sources …, see docs/data.md.")
    ],
    base: Annotated[
        str, typer.Option(help="Whose text encoder reads the captions, and whose size is asked for.")
    ] = "icons",
    resolution: Annotated[
        int | None, typer.Option(min=16, help="Side in pixels that pictures are brought to; default: the base's own.")
    ] = None,
    buckets: Annotated[bool, typer.Option("--buckets", help="Judge crops as with buckets=true.")] = False,
    trigger: Annotated[str | None, typer.Option(help="Word that captions are expected to hold.")] = None,
    source_folder: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="By the same names: what pictures were before, for bases that edit, or what they are drawn along.",
        ),
    ] = None,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 also when there are findings.")] = False,
    json: options.Json = False,
) -> int:
    """Judge a set of pictures: 0 clean, 1 findings, 2 cannot be read. Changes nothing."""
    from adapt.api.pairs import paired
    from adapt.data import find, judge
    from adapt.data.folders import Reading
    from adapt.data.judge import verdicts_of
    from adapt.data.media import reader_of
    from adapt.data.whole import judge_whole, shares_cut
    from adapt.loading import caption_counter, edits, edits_too, medium_of
    from adapt.loading import find as find_base

    folder = find_base(base)
    own = medium_of(folder)
    medium = own if resolution is None else replace(own, side=resolution)
    reader, cut = reader_of(medium), crop(medium, buckets)
    found = find(data, Reading(masks="files", noun=reader.noun, extensions=reader.extensions))
    edited = "the base edits pictures" if edits(folder) else None
    found = paired(found, source_folder, edited, known=source_folder is None and not edits_too(folder))
    with verdicts_of(data, reader=reader) as verdicts:
        counter = _counter(found, caption_counter(folder))
        judgement = judge(found, medium.side, counter, verdicts=verdicts, reader=reader)
    findings = (*judgement.faults, *judgement.warnings, *judge_whole(found, judgement, trigger, cut))
    found = replace(found, warnings=(*found.warnings, *left_open(data)))
    report = Report(found, findings, *propose(judgement), shares_cut(judgement, cut), reader.noun)
    typer.echo(json_.dumps(as_dict(report), ensure_ascii=False) if json else "\n".join(told(report)))
    return 1 if findings and not exit_zero else 0


def left_open(data: Path) -> list[str]:
    """Settings that a `dataset_config` names without saying one value for the whole run."""
    from adapt.api.gather import settings_of
    from adapt.config import Unsettled

    return [
        f"{value.reason}: a training has to be told"
        for value in settings_of(data).values()
        if isinstance(value, Unsettled)
    ]


def crop(medium: Medium, buckets: bool) -> Crop:
    """What is cut off with square crops, or with the buckets that a run would choose."""
    from adapt.data.buckets import buckets as of_area
    from adapt.data.buckets import default_step
    from adapt.data.whole import SQUARE
    from adapt.errors import SettingsError

    side, scale = medium.side, medium.scale
    if medium.kind == "sound":
        return lambda size: 0.0
    if not buckets:
        return SQUARE
    if not side or side % scale:
        raise SettingsError("resolution does not fit the base", given=side, allowed=f"a multiple of {scale}")
    return of_area(side, default_step(side, scale)).cut_away


def propose(judgement: Judgement) -> tuple[list[str], str | None]:
    """Names that `validation=auto` would hold out, and what must be said about their number."""
    from adapt.api.holding_out import hold_out
    from adapt.errors import DataError
    from adapt.evaluation.hold_out_size import AUTO

    try:
        aside, note = hold_out(judgement, AUTO)
    except DataError as error:  # all are alike: nothing to propose
        return [], str(error)
    return [picture.name for picture in aside], note


def as_dict(report: Report) -> dict[str, Any]:
    """For `--json`."""
    found = report.found
    return {
        "pictures": len(found.pictures),
        "captions": found.kind,
        "notes": list(found.warnings),
        "draws": shares(found),
        "findings": [asdict(finding) for finding in report.findings],
        "cut": {name: round(share, 4) for name, share in report.cut.items()},
        "held_out": {"setting": "validation=auto", "names": report.held_out, "note": report.note},
    }


def told(report: Report) -> list[str]:
    """The same as lines."""
    from adapt.data.judge import lines

    found, findings = report.found, report.findings
    advice = [f"validation=auto holds out {len(report.held_out)} of them, so that the best step can be chosen"]
    advice = [*(advice if report.held_out else []), *([report.note] if report.note and found.pictures else [])]
    return [
        f"{len(found.pictures)} {report.noun}, captions from: {found.kind}",
        *(f"draws    {share:.1%} from {name}" for name, share in shares(found).items()),
        *(f"note     {note}" for note in found.warnings),
        *(f"finding  {line}" for line in lines(findings, report.noun)),
        *(
            [f"cut      {_mean(report.cut):.1%} of a picture on average, {max(report.cut.values()):.1%} at most"]
            if report.cut and report.noun != "sounds"
            else []
        ),
        *(f"advice   {line}" for line in advice),
        f"{len(findings)} findings" if findings else "nothing was found",
    ]


def shares(found: Found) -> dict[str, float]:
    """Of several sources: name → share of the draws."""
    if found.kind != "sources":
        return {}
    draws = defaultdict[str, float](float)
    for picture in found.pictures:
        draws[picture.name.split("/")[0]] += picture.repeats
    return {name: value / sum(draws.values()) for name, value in draws.items()}


def _counter(found: Found, counter: TokenCounter) -> TokenCounter | None:
    """No counter where there is no caption to count."""
    return counter if any(picture.captions for picture in found.pictures) else None


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares)
