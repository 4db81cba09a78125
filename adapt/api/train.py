"""`adapt.train`: from a folder of pictures to an adapter that is proved to work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import files
from adapt.api.distillation import worn_off
from adapt.api.gather import Pictures, completed, gather
from adapt.api.origins import origins_of, said_of
from adapt.api.record import describe, will_do
from adapt.api.settle import settle
from adapt.api.sizes import draws, remarks
from adapt.config import TrainSettings, validate
from adapt.config.run import steps_of
from adapt.errors import RunError
from adapt.progress import say
from adapt.training import events, folder
from adapt.training.folder import Existing
from adapt.training.launch import together
from adapt.training.shortage import measures, within_memory
from adapt.training.signals import StopRequest

if TYPE_CHECKING:  # settings and pictures are judged before torch is imported
    from accelerate import Accelerator

    from adapt.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.evaluation.held_out import Measurement
    from adapt.evaluation.proof import Proof
    from adapt.training.checkpoint import State
    from adapt.training.loop import Trainer


FINISHES = "free some memory (other programs on the GPU, say), and --resume finishes the run"


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave.

    Attributes:
        adapter: the chosen step's, loaded from `folder / "adapter"`.
        folder: the run's.
        chosen_step: the best of the held-out measurements (`choose`); the last one when nothing was held out.
        held_out: its measurement, or None.
        proof: that diffusers takes the file and agrees.
        history: training loss by step.
        measurements: every held-out measurement, step 0 first.
    """

    adapter: Adapter
    folder: Path
    chosen_step: int
    held_out: Measurement | None
    proof: Proof
    history: Mapping[int, float]
    measurements: tuple[Measurement, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "adapter": str(self.folder / "adapter"),
            "steps": max(self.history, default=0),
            "chosen_step": self.chosen_step,
            "held_out": self.held_out.as_dict() if self.held_out else None,
            "proof": self.proof.as_dict(),
        }


def train(
    data: str | Path,
    *,
    output: str | Path,
    base: str | None = None,
    settings: TrainSettings | None = None,
    existing: Existing = "refuse",
    allow: Sequence[str] = (),
    resume_command: str = "the same call with existing='resume'",
    origins: Mapping[str, str] | None = None,
) -> TrainingResult:
    """Teaches a backbone a folder of pictures.

    Args:
        data: pictures with captions (see `docs/data.md`).
        output: the run's folder; the adapter is in `adapter/` inside.
        base: `icons`, a diffusers folder, or a Hub id; None: `icons`, or the base of the run that is resumed.
        settings: see `TrainSettings`; None: the defaults, or the stored ones when a run is resumed.
        existing: what to do with a run in `output`: `refuse`, `resume`, `auto` (resume if there is one), `fresh`.
        allow: names of settings (also `data`, `base`) that may change at resume although they alter the course.
        resume_command: told to the user when a signal stops the run.
        origins: where each setting came from, for the report.

    Returns:
        The adapter and how it came about; see `TrainingResult`.

    Raises:
        SettingsError, DataError, BackboneError, RunError: before anything is trained or written.
        TrainingError: loss or gradient is not finite, or memory ran out.
        Stopped: SIGINT or SIGTERM; the checkpoint is saved.
        AdapterError: the exported adapter does not do in diffusers what it does here.
    """
    run = Path(output)
    require_outside(run, data)
    resuming = folder.check_output(run, existing)
    if settings is None and resuming:
        settings = validate(folder.read(run)["settings"])
        origins = dict.fromkeys(settings.model_fields_set, "the run")
    settings = settings or TrainSettings()
    origins = said_of(settings) if origins is None else origins
    base = folder.base_of(run, resuming, base)
    settings, pictures = gathered(data, settings, base, run)
    from adapt.api.machine import make_accelerator

    accelerator = make_accelerator(settings)
    with together(accelerator.num_processes):
        with within_memory(lambda: "while the base was loaded", measures(settings)):
            settings = fit(settings, run, resuming, base, pictures, accelerator)
            settings, backbone = loaded(base, settings, pictures, accelerator)
        from adapt.api.assemble import assemble

        with writing(run, accelerator, existing):
            since = begin(run, backbone, pictures, settings, accelerator, resuming, allow, origins)
            with within_memory(lambda: "before step 1", measures(settings)):
                trainer = assemble(run, backbone, pictures.train, pictures.held_out, settings, accelerator)
            if since:
                resume(trainer, since)
            with StopRequest(alone=accelerator.num_processes == 1) as stop:
                trainer.run(stop, resume_command)
            with within_memory(lambda: "after the last step, which is saved", FINISHES):
                return conclude(trainer)


def require_outside(run: Path, data: str | Path) -> None:
    """Raises `RunError` when what a run draws would be among its pictures at the next start."""
    from adapt.data.find import folders_of

    for folder_of_pictures in folders_of(data):
        if folder_of_pictures.resolve() in (run.resolve(), *run.resolve().parents):
            raise RunError("the output folder lies inside the pictures", given=run, next="give an --output elsewhere")


# ---------------------------------------------------------------------------------------------------- parts of a run
# In the order in which `train` and training_scripts/train_lora.py call them.
def gathered(data: str | Path, settings: TrainSettings, base: str, run: Path) -> tuple[TrainSettings, Pictures]:
    """Pictures, sounds or clips, found and judged for the base, some held out; the settings with what the data brings along and
    with `epochs` told in steps. Loads no model.

    Raises:
        SettingsError, DataError: see `completed` and `gather`.
        RunError: the run would write among its pictures.
    """
    require_outside(run, data)
    settings = completed(data, settings)
    if isinstance(settings.validation, str):
        require_outside(run, settings.validation)
    pictures = gather(data, settings, base)
    return counted(settings, pictures), pictures


def loaded(
    base: str, settings: TrainSettings, pictures: Pictures, accelerator: Accelerator
) -> tuple[TrainSettings, Backbone]:
    """The base, and the settings with its own values where none were given.

    Raises:
        SettingsError, BackboneError: see `load_base` and `settle`; a caption that the base cannot take.
    """
    from adapt.api.machine import load_base

    backbone = load_base(base, settings, accelerator)
    settings = settle(settings, backbone)
    for caption in sorted({text for picture in (*pictures.train, *pictures.held_out) for text in picture.texts}):
        backbone.require_caption(caption)
    return settings, backbone


@contextmanager
def writing(run: Path, accelerator: Accelerator, existing: Existing) -> Iterator[None]:
    """The run's folder is the main process's alone inside the `with`; `fresh` empties it first.

    Raises:
        RunError: another run writes there.
    """
    if not accelerator.is_main_process:
        yield
        return
    with folder.claimed(run):
        if existing == "fresh":
            folder.clear(run)
        yield


@dataclass(frozen=True)
class Since:
    """Where a run that goes on stands: its newest resume state, if any, and what has changed since it began."""

    state: State | None
    changes: Mapping[str, tuple[Any, Any]]


def begin(
    run: Path,
    backbone: Backbone,
    pictures: Pictures,
    settings: TrainSettings,
    accelerator: Accelerator,
    resuming: bool = False,
    allow: Sequence[str] = (),
    origins: Mapping[str, str] | None = None,
) -> Since | None:
    """Says what is worth a warning and writes `run.json`. Returns None for a run that starts now.

    Raises:
        RunError: a change that would alter the course of a resumed run and is not allowed by name; no whole checkpoint.
    """
    from adapt.data.judge import lines, long_captions
    from adapt.training import checkpoint

    if accelerator.is_main_process and not resuming and (run / folder.RUN).exists():
        raise RunError("another run has used this output folder meanwhile", given=run, next="give another --output")
    record, before = describe(backbone, pictures, settings, accelerator), folder.read(run) if resuming else {}
    changes = folder.differences(before, record) if resuming else {}
    folder.require_same_course(changes, allow)
    if accelerator.is_main_process:
        say(will_do(backbone, pictures, settings))
        sizes = remarks(pictures.train, settings, backbone.multiple)
        findings = [*pictures.warnings, *sizes, *lines(long_captions(pictures.train, backbone.count_tokens))]
        findings += worn_off(settings)
        for warning in findings:
            say(f"warning: {warning}")
        record |= {"findings": findings, "origins": origins_of(settings, origins, before.get("origins"))}
    state = checkpoint.newest(run) if resuming and _saved_before(run) else None
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        files.write_json(run / folder.RUN, record)
    return Since(state, changes) if resuming else None


def _saved_before(run: Path) -> bool:
    """Whether there ever was a checkpoint: then one must be there."""
    from adapt.training import checkpoint

    told = events.read(run) if (run / events.NAME).is_file() else []
    return bool(checkpoint.states(run)) or any(event["event"] == "checkpoint" for event in told)


def resume(trainer: Trainer, since: Since) -> None:
    """Puts the trainer where the run stood and says what has changed."""
    from adapt.training import checkpoint
    from adapt.training.loop import forget_after

    state, changes = since.state, since.changes
    if trainer.accelerator.is_main_process:
        for name, (old, new) in changes.items():
            note = "" if name != "machine" else " (bytes may differ from an uninterrupted run)"
            say(f"changed since the run began: {name} {old!r} → {new!r}{note}")
        say(
            f"resuming at step {state.step if state else 0}"
            + ("" if state else ": it was stopped before its first checkpoint")
        )
    if state is not None:
        trainer.restore(state)
    if trainer.accelerator.is_main_process:
        forget_after(trainer.folder, trainer.step)
        checkpoint.let_go(trainer.folder, trainer.step)
    trainer.events.add("resume", {"step": trainer.step, "changes": {k: list(v) for k, v in changes.items()}})


def conclude(trainer: Trainer) -> TrainingResult:
    """Exports the chosen step, proves the file in diffusers, draws samples, writes the card and the report.

    Raises:
        AdapterError: the exported adapter does not do in diffusers what it does here.
    """
    from adapt.api.finish import finish
    from adapt.api.machine import take_off
    from adapt.api.sharding import made_whole
    from adapt.report import write_report

    chosen, accelerator = trainer.chosen(), trainer.accelerator
    take_off(trainer.course.backbone, accelerator)
    if trainer.course.settings.shard:
        made_whole(trainer)
    proof = finish(trainer, chosen) if accelerator.is_main_process else None
    if accelerator.is_main_process:
        say(f"report: {write_report(trainer.folder)}")
    accelerator.wait_for_everyone()
    return _result(trainer.folder, trainer, chosen, proof)


def _result(run: Path, trainer: Trainer, chosen: int, proof: Proof | None) -> TrainingResult:
    from adapt.adapter import Adapter
    from adapt.evaluation.proof import Proof

    return TrainingResult(
        adapter=Adapter.load(run / "adapter"),
        folder=run,
        chosen_step=chosen,
        held_out=next((m for m in trainer.measurements if m.step == chosen), None),
        proof=proof or Proof(0, 0.0, 0.0),
        history=events.losses(run),
        measurements=tuple(trainer.measurements),
    )


def counted(settings: TrainSettings, pictures: Pictures) -> TrainSettings:
    """The settings with `epochs`, if that is what was given, told in steps."""
    if settings.epochs is None:
        return settings
    steps = steps_of(settings.epochs, draws(pictures.train, settings), settings.batch_size)
    return settings.model_copy(update={"steps": steps, "epochs": None})


def fit(
    settings: TrainSettings, run: Path, resuming: bool, base: str | None, pictures: Pictures, accelerator: Accelerator
) -> TrainSettings:
    """The settings with what `memory=fit` chooses. A run that goes on keeps what it began with.

    Raises:
        SettingsError: nothing makes it fit.
    """
    from adapt.api.fit import MEASURES, fitted

    if settings.memory == "fit" and resuming:
        stored = folder.read(run)["settings"]
        kept = {name: stored[name] for name in MEASURES if name in stored}
        return settings.model_copy(update={**kept, "memory": "as_set"})
    return fitted(folder.base_of(run, resuming, base), settings, pictures, accelerator)
