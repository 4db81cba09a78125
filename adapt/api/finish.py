"""What finishes a run: export, proof, samples, card. The adapter's folder appears whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

from adapt import card, files
from adapt.adapter import Adapter, Facts
from adapt.api.assemble import prompts
from adapt.api.generate import generate
from adapt.api.train import versions
from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.evaluation.proof import Proof, prove
from adapt.formats import LoraWeights, read_lora
from adapt.formats.diffusers_lora import portable
from adapt.formats.kohya import BASES
from adapt.loading import bundled
from adapt.progress import say
from adapt.sampling.png import save_png
from adapt.training.loop import Trainer

OTHERS = ("ComfyUI", "A1111", "Forge", "InvokeAI")
"""Programs that take the file in `kohya/`."""


def finish(trainer: Trainer, chosen: int) -> Proof:
    """Writes `adapter/` from the snapshot of the chosen step, after diffusers has agreed with it.

    Raises:
        AdapterError: it has not.
    """
    backbone = trainer.course.backbone
    trainer.course.injection.remove()
    backbone.wrapped = None
    backbone.denoiser.eval()
    folder = trainer.folder / "adapter"
    temporary = folder.with_name(f"{files.TEMPORARY}{uuid.uuid4().hex[:8]}-adapter")
    try:
        proof = _write(temporary, trainer, chosen)
        files.replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    trainer.events.add("finished", {"step": trainer.step, "chosen_step": chosen, "proof": proof.as_dict()})
    return proof


def _write(folder: Path, trainer: Trainer, chosen: int) -> Proof:
    course, name = trainer.course, trainer.folder.name
    snapshot = read_lora(trainer.snapshot_path(chosen))
    adapter = Adapter(LoraWeights(snapshot.modules), facts(trainer, chosen), name).save(folder)
    written = Adapter.load(folder)
    texts = prompts(course.settings, course.examples.pictures)
    say("proving the adapter in a fresh diffusers pipeline")
    proof = prove(written, course.backbone, texts[0])
    if _speaks_kohya(course.backbone):
        written.export(folder / "kohya" / f"{name}.safetensors", "kohya")
    samples = _samples(folder, written, course.backbone, course.settings, texts)
    text = card.render(
        name, adapter.facts, pipeline_class=course.backbone.pipeline_class, proof=proof.as_dict(), samples=samples
    )
    files.write(folder / "README.md", text)
    return proof


def _speaks_kohya(backbone: Backbone) -> bool:
    """Whether other programs draw with bases of this kind."""
    text = getattr(backbone.denoiser.config, "cross_attention_dim", None)
    return backbone.family == "stable-diffusion" and text in BASES


def _samples(
    folder: Path, adapter: Adapter, backbone: Backbone, settings: TrainSettings, texts: list[str]
) -> list[tuple[str, str]]:
    """Pictures in `samples/`, without any text inside. Captions of training pictures are not told to anyone."""
    (folder / "samples").mkdir()
    drawn = generate(backbone, prompt=texts, adapters=[adapter])
    found = []
    for number, (picture, prompt) in enumerate(zip(drawn, texts, strict=True), 1):
        file = f"samples/{number:02d}.png"
        save_png(folder / file, picture)
        found.append((file, prompt if settings.previews else ""))
    return found


def facts(trainer: Trainer, chosen: int) -> Facts:
    """What `adapter.json` says."""
    course, settings = trainer.course, trainer.course.settings
    backbone, measured = course.backbone, [m for m in trainer.measurements if m.step == chosen]
    training: dict[str, Any] = {
        "pictures": len(course.examples),
        "steps": trainer.step,
        "chosen_step": chosen,
        "held_out": measured[0].as_dict() if measured else None,
        **{
            name: getattr(settings, name)
            for name in ("batch_size", "resolution", "rank", "alpha", "learning_rate", "seed")
        },
        "anchor_above": settings.anchor_above,
    }
    return Facts(
        base={
            "reference": public(backbone.reference),
            "family": backbone.family,
            "fingerprint": backbone.fingerprint(),
        },
        lora={backbone.denoiser_name: portable(course.injection.config.to_dict())},
        objective=course.objective.prediction_type,
        null=backbone.null_text,
        trigger=settings.trigger,
        recommended={
            "scale": 1.0,
            "guidance_scale": settings.guidance_scale or 1.0,
            "steps": settings.sampling_steps or 1,
        },
        training=training,
        versions=versions(),
        loads_in=("adapt", "diffusers", *(OTHERS if _speaks_kohya(backbone) else ())),
    )


def public(reference: str) -> str | None:
    """The base's name when others know it too (bundled, or a Hub id): never a path of this machine."""
    if reference in bundled():
        return reference
    return None if Path(reference).exists() or "\\" in reference else reference
