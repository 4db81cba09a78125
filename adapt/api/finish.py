"""What finishes a run: export, proof, samples, card. The adapter's folder appears whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapt import card, files, licences
from adapt.adapter import FACTS_NAME, Adapter, Facts
from adapt.adapter.conditioners import read_conditioners
from adapt.api.assistant import told as told_of_assistant
from adapt.api.distillation import remembered
from adapt.api.generate import applied, known_of, with_scale
from adapt.api.machine import in_full, in_precision
from adapt.api.network import readers, text_width
from adapt.api.previews import captions_of, requests
from adapt.api.record import versions
from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.data import Picture
from adapt.errors import AdapterError
from adapt.evaluation.proof import Proof, prove, prove_file
from adapt.formats import LoraWeights, read_lora
from adapt.formats.described import sidecars, slug
from adapt.formats.diffusers_lora import portable
from adapt.formats.embeddings import file_of, read_embeddings
from adapt.formats.readers import UI_FOLDER
from adapt.formats.readers import UIS as BY_FAMILY
from adapt.formats.strength import inside
from adapt.progress import say
from adapt.sampling.classes import written
from adapt.sampling.clip import as_picture
from adapt.sampling.draw import draw
from adapt.sampling.png import save_png
from adapt.sampling.request import Drawing, Request, settle
from adapt.source import find, identity
from adapt.training.loop import Trainer

UIS = {name for names in BY_FAMILY.values() for name in names}


def finish(trainer: Trainer, chosen: int) -> Proof:
    """Writes `adapter/` from the snapshot of the chosen step, after diffusers has agreed with it.

    Raises:
        AdapterError: it has not; what was written is set aside as `adapter.refused`.
    """
    backbone = trainer.course.backbone
    trainer.course.injection.remove()
    backbone.conditioners.clear()
    backbone.wrapped = None
    for network in backbone.networks:
        network.eval()
    folder = trainer.folder / "adapter"
    temporary = folder.with_name(f"{files.TEMPORARY}{uuid.uuid4().hex[:8]}-adapter")
    try:
        proof = _write(temporary, trainer, chosen)
        files.replace_folder(temporary, folder)
    except AdapterError as error:
        raise _refused(temporary, folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    told = {"step": trainer.step, "chosen_step": chosen, "weights": trainer.watch.weights_of(chosen)}
    trainer.events.add("finished", {**told, "proof": proof.as_dict()})
    return proof


def _refused(temporary: Path, folder: Path, error: AdapterError) -> AdapterError:
    """What was written stays beside, under a name that nothing takes for the adapter."""
    if not temporary.exists():
        return error
    kept = files.set_aside(temporary, folder.name)
    stays = f"what was written is in {kept}; checkpoints and snapshots are as they were"
    return AdapterError(
        f"the adapter failed its proof: {error.message}",
        given=error.given,
        allowed=error.allowed,
        next=f"{error.next}; {stays}" if error.next else stays,
    )


def _write(folder: Path, trainer: Trainer, chosen: int) -> Proof:
    course, name = trainer.course, trainer.folder.name
    snapshot = read_lora(trainer.snapshot_path(chosen))
    layers = in_precision(inside(snapshot.modules), course.settings.save_precision)
    beside = trainer.beside_path(chosen)
    words, conditioners = read_embeddings(beside), read_conditioners(beside)
    found = facts(trainer, chosen)
    adapter = Adapter(LoraWeights(layers), found, name, words=words, conditioners=conditioners).save(folder)
    written = Adapter.load(folder)
    asked = wanted(course.settings, captions_of(course.examples.pictures), adapter.trigger, adapter.labels)
    say("proving the adapter in a fresh diffusers pipeline")
    whole = in_full(course.backbone)
    proof = prove(written, whole, asked[0].prompt)
    drawing = whole if course.backbone.quantised else course.backbone  # nothing can be added to weights in few bits
    shown = _publishable(course.backbone, asked)
    samples = _samples(folder, written, drawing, shown, public=bool(course.settings.previews))
    told = replace(adapter.facts, proof=proof.as_dict(), samples=samples)
    uis = set(found.loads_in) & UIS
    if uis and not _for_uis(folder, replace(written, name=name), whole, samples, asked[0].prompt):
        told = replace(told, loads_in=tuple(name for name in told.loads_in if name not in uis))
    files.write_json(folder / FACTS_NAME, told.as_dict())
    files.write(folder / "README.md", card.render(name, told))
    return proof


def _for_uis(
    folder: Path, adapter: Adapter, backbone: Backbone, samples: Sequence[Mapping[str, Any]], prompt: str
) -> bool:
    """The file in `kohya/`, proved in a fresh pipeline, and whether there is one: hours of training are not lost for layers that
    have no name there. One that fails is set aside."""
    path = folder / UI_FOLDER / f"{slug(adapter.name)}.safetensors"
    picture = folder / samples[0]["file"] if samples else None
    written = list(adapter.files(path))
    try:
        adapter.export(path, "kohya", text_width=text_width(backbone), picture=picture)
        for file in written:
            _prove_as_others_read(file, backbone, prompt)
    except AdapterError as error:
        say(f"note: no file for UIs: {error}")
        for file in (each for one in written for each in (one, *sidecars(one)) if each.exists()):
            files.set_aside(file)
        return False
    return True


def _prove_as_others_read(path: Path, backbone: Backbone, prompt: str) -> None:
    """Of text encoders in kohya's names diffusers takes a half, where UIs take all: then what adapt reads is proved."""
    adapter = Adapter.load(path)
    try:
        prove_file(path, adapter, backbone, prompt)
    except AdapterError:
        if set(adapter.weights.modules) <= set(backbone.denoisers):
            raise
        prove(adapter, backbone, prompt)


def wanted(
    settings: TrainSettings, captions: Sequence[str], trigger: str | None, labels: Sequence[str] = ()
) -> list[Request]:
    """What the samples show: where classes are taught, some of them. Captions of training pictures are told to nobody, so
    where the user gave no prompts but a trigger, the first sample is drawn from the trigger alone: the card can say that prompt.
    """
    asked = requests(settings, captions, labels)
    if settings.previews or labels or not trigger:
        return asked
    return [replace(asked[0], prompt=trigger), *asked]


def _publishable(backbone: Backbone, asked: Sequence[Request]) -> Sequence[Request]:
    """What samples may show: of bases that edit, the pictures of the user's own prompt file, and none of the training set."""
    return [request for request in asked if request.image is not None] if backbone.edits else asked


def _samples(
    folder: Path, adapter: Adapter, backbone: Backbone, asked: Sequence[Request], public: bool
) -> tuple[dict[str, Any], ...]:
    """Pictures in `samples/`, without any text inside, and how each was drawn.

    Args:
        public: whether the prompts are the user's own. If not, only the trigger is told.
    """
    if not asked:
        return ()
    (folder / "samples").mkdir()
    drawings = [settle(request, backbone, adapter.recommended, known_of([(adapter, 1.0)])) for request in asked]
    with applied(backbone, [with_scale(adapter)]):
        drawn = draw(backbone, drawings)
    found = []
    for number, (picture, drawing) in enumerate(zip(drawn, drawings, strict=True), 1):
        file = f"samples/{number:02d}.png"
        save_png(folder / file, as_picture(picture))
        found.append({"file": file, **_told(drawing, public or drawing.prompt == adapter.trigger)})
    return tuple(found)


def _told(drawing: Drawing, public: bool) -> dict[str, Any]:
    """How a sample was drawn; prompts only where they are the user's own. A picture that was drawn over is told by nothing else
    than that."""
    names = ("seed", "steps", "guidance_scale", "width", "height", "scheduler")
    settings = {name: getattr(drawing, name) for name in names}
    settings |= {"class": written(drawing.classes)} if drawing.classes else {}
    again = (public or (drawing.classes and drawing.wordless)) and drawing.image is None
    again = again and drawing.source is None
    words = {"prompt": drawing.prompt, "negative_prompt": drawing.negative_prompt} if again else {"prompt": None}
    return {**words, **settings}


def facts(trainer: Trainer, chosen: int) -> Facts:
    """What `adapter.json` says."""
    course, settings = trainer.course, trainer.course.settings
    backbone, measured = course.backbone, [m for m in trainer.measurements if m.step == chosen]
    words = triggers(course.examples.pictures)
    known = identity(backbone.reference)
    licence = licences.of_base(known["reference"], find(backbone.reference))
    training: dict[str, Any] = {
        "pictures": len(course.examples),
        "steps": trainer.step,
        "chosen_step": chosen,
        "weights": trainer.watch.weights_of(chosen),
        "held_out": measured[0].summary() if measured else None,
        **{
            name: getattr(settings, name)
            for name in ("batch_size", "resolution", "kind", "rank", "alpha", "optimizer", "learning_rate", "seed")
        },
        "anchor_above": settings.anchor_above,
        **({"slider": settings.slider, "slider_strength": settings.slider_strength} if settings.slider else {}),
        **({"trained_on": backbone.quantised} if backbone.quantised else {}),
        **({"edits": True} if backbone.editing else {}),
        **told_of_assistant(settings),
    }
    return Facts(
        base={
            **known,
            "family": backbone.family,
            **({"model": backbone.model} if backbone.model else {}),
            "fingerprint": backbone.fingerprint(),
            "pipeline": backbone.pipeline_class,
            **(licence.as_dict() if licence else {}),
        },
        lora={name: portable(config) for name, config in course.injection.configs.items()},
        objective=course.objective.prediction_type,
        null=backbone.null_kind,
        trigger=next(iter(words), settings.trigger),
        triggers=words,
        recommended={
            "scale": 1.0,
            "guidance_scale": settings.guidance_scale or 1.0,
            "steps": settings.sampling_steps or 1,
            **({"zero_terminal_snr": True} if settings.zero_terminal_snr else {}),
        },
        distilled=remembered(settings),
        data=describe(course.examples.pictures),
        training=training,
        words={
            word: {"file": file_of(word), "vectors": len(next(iter(found.values()))), "encoders": sorted(found)}
            for word, found in course.injection.vectors().items()
        },
        conditioning={
            part: {**found.told(), "shape": next(list(x.shape[1:]) for x in found.null(1).values())}
            for part, found in course.injection.conditioners().items()
        },
        versions=versions(),
        loads_in=readers(settings, backbone),
    )


def triggers(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """The words that call what is taught: the run's, or those of its sources, in their order."""
    words = (picture.trigger for picture in pictures if not picture.prior)
    return tuple(dict.fromkeys(word for word in words if word))


def describe(pictures: Sequence[Picture]) -> dict[str, int]:
    """Numbers of the pictures that are taught, and of their classes; no name of either."""
    taught = [picture for picture in pictures if not picture.prior]
    classes = len({picture.label for picture in taught if picture.label is not None})
    return {"pictures": len(taught), **({"classes": classes} if classes else {})}
