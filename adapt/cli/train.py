"""`adapt train`: settings, pictures, a forecast, a run. What can be judged without torch is judged before torch is imported."""

from __future__ import annotations

import json as json_
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from adapt.cli import options
from adapt.errors import SettingsError

if TYPE_CHECKING:
    from adapt.api.forecast import Forecast
    from adapt.api.gather import Pictures
    from adapt.api.train import TrainingResult
    from adapt.config import Resolved, TrainSettings
    from adapt.evaluation.held_out import Measurement
    from adapt.training.folder import Existing


def train(
    data: Annotated[
        Path | None, typer.Argument(help="Pictures with captions: a folder, a list of sources …, see docs/data.md.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, such as steps=500 rank=16.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="icons, a diffusers folder, or a Hub id; default: icons, or the resumed run's.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The run's folder; default: runs/ and the name of DATA.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the run in --output and start over.")] = False,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A change that --resume shall accept.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and what it costs; train nothing.")
    ] = False,
    num_processes: Annotated[
        int, typer.Option(min=1, help="Share each batch among so many processes on this machine: one a GPU, say.")
    ] = 1,
    list_settings: Annotated[bool, typer.Option("--settings", help="List every setting and stop.")] = False,
    json: options.Json = False,
) -> None:
    """Teach a backbone a folder of pictures; the adapter is in OUTPUT/adapter."""
    if list_settings:
        return _list_settings(json)
    if data is None:
        raise SettingsError("give the folder of pictures", next="adapt train ./my-pictures")
    if resume and fresh:
        raise SettingsError("--resume and --fresh contradict each other", allowed="one of them")
    run = output or Path("runs") / run_name(data)
    existing: Existing = "resume" if resume else "fresh" if fresh else "refuse"
    resolved, base = prepare(run, existing, config, settings or [], base, dry_run, data)
    if num_processes > 1:
        flags = {"--resume": resume, "--fresh": fresh, "--dry-run": dry_run, "--json": json}
        words = _words(data, settings or [], base, run, config, allow or [])
        _launch([*words, *(flag for flag, given in flags.items() if given)], resolved.settings, num_processes)
    from adapt.training.launch import follow_launcher

    follow_launcher()
    if dry_run:
        return _dry_run(data, base, resolved, json)
    from adapt.api.train import train as train_api

    result = train_api(
        data, output=run, base=base, settings=resolved.settings, existing=existing, allow=allow or [],
        resume_command=_resume_command(data, base, run), origins=resolved.origins,
    )  # fmt: skip
    tell(result, json)


def _words(
    data: Path, settings: Sequence[str], base: str, run: Path, config: Path | None, allow: Sequence[str]
) -> list[str]:
    """The command again, less its flags."""
    words = ["train", str(data), *settings, "--base", base, "--output", str(run)]
    words += ["--config", str(config)] if config else []
    return words + [word for name in allow for word in ("--allow", name)]


def _resume_command(data: Path, base: str, run: Path) -> str:
    return shlex.join(["adapt", "train", str(data), "--base", base, "--output", str(run), *_processes(), "--resume"])


def _launch(words: Sequence[str], settings: TrainSettings, processes: int) -> NoReturn:
    """The same command in several processes, whose exit code becomes this one's."""
    from adapt.training.launch import launch, require_even, require_outermost

    require_outermost()
    require_even(settings, processes)
    raise typer.Exit(launch(words, processes))


def _processes() -> list[str]:
    from adapt.training.launch import launched

    return ["--num-processes", str(launched())] if launched() else []


def run_name(data: Path) -> str:
    """`my-images` of `./my-images`, `my-sources` of `my-sources.yaml`, `shards` of `shards/{000..003}.tar`."""
    path = data.absolute()
    if "{" in path.name:
        return path.parent.name or "archives"
    return path.stem if path.suffix in (".yaml", ".yml", ".json", ".toml", ".tar", ".parquet") else path.name


def prepare(
    run: Path,
    existing: Existing,
    config: Path | None,
    overrides: Sequence[str],
    base: str | None,
    dry_run: bool = False,
    data: Path | None = None,
) -> tuple[Resolved, str]:
    """Settings and base, after everything that needs no torch has been judged. A resumed run starts from its own."""
    from adapt import config as settings
    from adapt.adapter import Adapter
    from adapt.api.gather import settings_of
    from adapt.loading import require
    from adapt.training import folder

    resuming = False if dry_run else folder.check_output(run, existing)
    stored = folder.read(run)["settings"] if resuming else None
    resolved = settings.resolve(config, overrides, stored, (str(data), settings_of(data) if data else {}))
    base = folder.base_of(run, resuming, base)
    require(base)
    if resolved.settings.init_from:
        Adapter.locate(resolved.settings.init_from)
    return resolved, base


def tell(result: TrainingResult, as_json: bool) -> None:
    """The end of a run on stdout."""
    if as_json:
        return typer.echo(json_.dumps(result.as_dict()))
    for line in summary(result):
        typer.echo(line)


def summary(result: TrainingResult) -> list[str]:
    """What was learned, and what to do with it."""
    from adapt.card.usage import usage_of

    adapter, proof, labels = result.folder / "adapter", result.proof, result.adapter.labels
    asked = f"--class {shlex.quote(labels[0])}" if labels else '--prompt "…"'
    asked += usage_of(result.adapter.facts, str(adapter)).files_asked
    return [
        f"adapter    {adapter} (step {result.chosen_step} of {max(result.history, default=0)})",
        *(_learned(result.held_out) if result.held_out else ()),
        f"proof      {proof.line()}",
        f"share      adapt push {shlex.quote(str(adapter))} USER/NAME --dry-run",
        f"next       adapt generate --adapter {shlex.quote(str(adapter))} {asked}",
    ]


def _learned(m: Measurement) -> list[str]:
    change = f"{abs(m.change):.1f} standard errors {'lower' if m.change < 0 else 'higher'}"
    loss = f"loss {m.base:.4f} → {m.loss:.4f}: {m.ratio:.3f} of the base's, {change} over {m.pictures} pictures"
    advice = ["           nothing carried over to held-out pictures: try a lower learning_rate or more pictures"]
    return [f"held-out   {loss}", *(advice if m.ratio >= 1 else [])]


# ---------------------------------------------------------------------------------------------------- saying, not doing
def _dry_run(data: Path, base: str, resolved: Resolved, as_json: bool) -> None:
    from adapt.api.gather import gather

    pictures = gather(data, resolved.settings, base)
    from adapt.api.forecast import forecast
    from adapt.config.table import ordered
    from adapt.training.shortage import measures, within_memory

    with within_memory(lambda: "in the steps of the forecast", measures(resolved.settings)):
        settled, cost = forecast(base, pictures, resolved.settings)
    dumped = settled.model_dump(mode="json")
    values = {name: dumped[name] for name in ordered()}
    origins = {n: "the base" if o == "default" and values[n] != getattr(resolved.settings, n) and
               getattr(resolved.settings, n) is None else o for n, o in resolved.origins.items()}  # fmt: skip
    if resolved.settings.epochs is not None:
        values["epochs"], origins["steps"] = resolved.settings.epochs, f"{resolved.settings.epochs:g} epochs"
    if as_json:
        settings = {n: {"value": v, "from": origins[n]} for n, v in values.items()}
        return typer.echo(
            json_.dumps({"settings": settings, "forecast": cost.as_dict(), "warnings": pictures.warnings})
        )
    _table([(n, _short(v), origins[n]) for n, v in values.items()])
    for line in (*_cost(cost, pictures, values), "nothing was trained or written"):
        typer.echo(line)


def _cost(cost: Forecast, pictures: Pictures, values: dict[str, Any]) -> list[str]:
    from adapt.progress import duration

    return [
        *(f"warning    {warning}" for warning in pictures.warnings),
        f"pictures   {cost.pictures} to train on, {cost.held_out} held out",
        f"steps      {values['steps']} of {values['batch_size']} pictures: each is seen {cost.epochs:.1f} times",
        f"trains     {cost.trainable / 1e6:.2f} M parameters: {values['kind']} of rank {values['rank']}",
        *(
            [f"assistant  {values['assistant']}: at work while it is taught, left out of what is saved"]
            if values["assistant"]
            else []
        ),
        f"loads in   {', '.join(cost.loads_in)}",
        f"time       about {duration(cost.total_seconds)} (measured: {cost.step_seconds:.2f} s a step)",
        f"memory     about {cost.memory_gib:.1f} GiB (measured)",
    ]


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 48 else text[:45] + "…"


def _table(rows: Sequence[tuple[str, str, str]]) -> None:
    widths = [max(len(row[k]) for row in rows) for k in (0, 1)]
    for name, value, origin in rows:
        typer.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}".rstrip())


def _list_settings(as_json: bool) -> None:
    from adapt.config import TrainSettings
    from adapt.config.table import ordered

    fields = {name: TrainSettings.model_fields[name] for name in ordered()}
    if as_json:
        return typer.echo(json_.dumps(TrainSettings.model_json_schema()))
    _table([(name, _short(field.default), field.description or "") for name, field in fields.items()])
