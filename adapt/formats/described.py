"""What a shared weights file says about itself, for the programs that show it: ModelSpec 1.0.1, kohya's `ss_*` entries, and the
files beside it (`<stem>.json`, `<stem>.png`) that A1111, Forge and InvokeAI read. No date, path or caption is told."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import files
from adapt.formats.header import OWN_TAGS

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_SIDE, THUMBNAIL_BYTES = 256, 24_000
STEM = re.compile(r"^[A-Za-z0-9_.-]+$")
"""What CivitAI reads in `<lora:name:1>`; other names work in a UI and are not linked there."""
SHOWN = {"sd_v1": "SD1", "sd_v2": "SD2", "sdxl": "SDXL"}
"""Beginning of `ss_base_model_version` → A1111's `sd version`; it shows everything else as SD1 unless it is told."""
PREDICTION = {"epsilon": "epsilon", "v_prediction": "v"}


@dataclass(frozen=True)
class Description:
    """Attributes:
    title: shown name.
    triggers: words that call what it has learned.
    base: the base's name (bundled, or a Hub id), or None.
    model: which of its family's models the base is (`backbones/registry.py`), or None.
    licence: of the adapter.
    objective: prediction type.
    recommended: `scale`, `guidance_scale`, `steps`.
    training: `pictures`, `steps`, `learning_rate`, `optimizer`, `seed`, `resolution` …
    picture: drawn with it; shown as its preview.
    """

    title: str
    triggers: tuple[str, ...] = ()
    base: str | None = None
    model: str | None = None
    licence: str | None = None
    objective: str | None = None
    recommended: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    picture: Path | None = None

    @property
    def trigger(self) -> str | None:
        """All words, as UIs split them: at commas."""
        return ", ".join(self.triggers) or None

    @property
    def text(self) -> str:
        """In one sentence."""
        if not self.training:  # somebody else's, or made of several
            return f"{self.title}: written with adapt."
        pictures = self.training.get("pictures")
        return f"{self.title}: trained with adapt" + (f" on {pictures} pictures" if pictures else "") + "."

    @property
    def hint(self) -> str:
        """How it is best used."""
        words = {"trigger": self.trigger, "strength": self.recommended.get("scale"), "steps": self.recommended.get("steps"),
                 "guidance": self.recommended.get("guidance_scale")}  # fmt: skip
        return ", ".join(f"{name} {value}" for name, value in words.items() if value is not None)

    @property
    def weight(self) -> float:
        """The recommended scale as UIs take it, a plain number that is not negative; 0, which they read as not set, where a
        slider is best the other way round: the hint says that one."""
        scale = round(float(self.recommended.get("scale", 1.0)), 4)
        return scale if scale > 0 else 0.0

    def header(self) -> dict[str, str]:
        """Entries of the file's header, next to those that say its base and rank."""
        spec = {
            "title": self.title,
            "description": self.text,
            "usage_hint": self.hint,
            "trigger_phrase": self.trigger,
            "license": self.licence,
            "prediction_type": PREDICTION.get(self.objective or ""),
            "thumbnail": self.picture and thumbnail(self.picture),
        }
        trained = {name: self.training.get(name) for name in ("steps", "learning_rate", "optimizer", "seed")}
        side, count = self.training.get("resolution"), self.training.get("pictures")
        kohya = {
            "output_name": slug(self.title),
            "sd_model_name": self.base,
            "num_train_images": count,
            "resolution": side and f"({side}, {side})",
            "tag_frequency": self.triggers and json.dumps({OWN_TAGS: dict.fromkeys(self.triggers, count or 1)}),
            **trained,
        }
        told = {f"modelspec.{k}": v for k, v in spec.items()} | {f"ss_{k}": v for k, v in kohya.items()}
        return {key: str(value) for key, value in told.items() if value not in (None, "", ())}

    def sidecar(self, version: str) -> dict[str, Any]:
        """What A1111, Forge and InvokeAI read beside the file.

        Args:
            version: the file's `ss_base_model_version`.
        """
        shown = next((name for start, name in SHOWN.items() if version.startswith(start)), "Unknown")
        return {
            "activation text": self.trigger or "",
            "description": self.text,
            "negative text": "",
            "notes": self.hint,
            "preferred weight": self.weight,
            "sd version": shown,
        }


def sidecars(weights: Path) -> tuple[Path, Path]:
    """The files that stand beside a weights file of a UI: facts and preview. Never `<stem>.txt`: A1111 shows that as text."""
    return weights.with_suffix(".json"), weights.with_suffix(".png")


def write_sidecars(weights: Path, told: Description, version: str) -> list[Path]:
    """Writes them beside the weights; the preview only where there is a picture. Returns what was written."""
    facts, preview = sidecars(weights)
    files.write_json(facts, told.sidecar(version))
    if told.picture is None:
        return [facts]
    files.write(preview, _encoded(_small(told.picture), "PNG"))
    return [facts, preview]


def thumbnail(picture: Path) -> str:
    """A data URL of at most 256 px and 24 kB; nothing of the file's own metadata is in it."""
    small = _small(picture)
    for quality in (90, 75, 60, 40, 20, 5):
        content = _encoded(small, "JPEG", quality=quality)
        if len(content) <= THUMBNAIL_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def _small(path: Path) -> Image:
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    plain = Image.new("RGB", picture.size)
    plain.paste(picture)
    return plain


def _encoded(picture: Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def slug(name: str) -> str:
    """The name as the stem of a file that every program can name in a prompt."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "adapter"
