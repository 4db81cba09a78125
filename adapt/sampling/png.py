"""PNG files that say how they were drawn, in the text chunk that A1111 started and most viewers read. No torch here."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, PngImagePlugin

from adapt import files
from adapt.errors import DataError
from adapt.sampling.classes import written

if TYPE_CHECKING:
    from adapt.sampling.request import Drawing

KEY = "parameters"
NEGATIVE = "Negative prompt: "
SETTING = re.compile(r'\s*([\w+ ]+):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')


@dataclass(frozen=True)
class Parameters:
    """How a picture was drawn.

    Attributes:
        prompt, negative_prompt: as typed; several lines are kept.
        settings: `Steps`, `Sampler`, `CFG scale`, `Seed`, `Size`, `Model`, `Lora hashes` …, in this order.
    """

    prompt: str
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def as_text(self) -> str:
        """The chunk's text: prompt, `Negative prompt: …` if any, and a last line that starts with `Steps: `."""
        lines = [self.prompt, *([NEGATIVE + self.negative_prompt] if self.negative_prompt else [])]
        return "\n".join([*lines, ", ".join(f"{name}: {_quoted(value)}" for name, value in self.settings.items())])

    @staticmethod
    def from_text(text: str) -> Parameters:
        """The reverse of `as_text`; also reads what A1111 wrote."""
        lines = text.split("\n")
        last = lines.pop() if lines[-1].startswith("Steps: ") else ""
        prompt, _, negative = ("\n" + "\n".join(lines)).partition("\n" + NEGATIVE)
        settings = {name.strip(): _unquoted(value) for name, value in SETTING.findall(last)}
        return Parameters(prompt.removeprefix("\n"), negative, settings)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value


class Used(NamedTuple):
    """An adapter in a picture.

    Attributes:
        name, digest: as `Adapter` has them.
        scale: 1 as trained.
    """

    name: str
    digest: str
    scale: float


def describe(
    drawing: Drawing,
    *,
    model: str,
    sampler: str,
    adapters: Sequence[Used] = (),
    beside: Mapping[str, str] | None = None,
) -> Parameters:
    """How a drawing is written down.

    Args:
        model: the backbone's name; not its path, which is nobody's business.
        sampler: what A1111 calls the scheduler.
        beside: networks beside the base: what they are, and their names.
    """
    settings = {
        "Steps": str(drawing.steps),
        "Sampler": sampler,
        "CFG scale": f"{drawing.guidance_scale:g}",
        **({} if drawing.embedded_guidance is None else {"Distilled CFG Scale": f"{drawing.embedded_guidance:g}"}),
        **guided_by(drawing),
        "Seed": str(drawing.seed),
        "Size": f"{drawing.width}x{drawing.height}",
        "Model": model,
        **({"Clip skip": str(drawing.reading.clip_skip + 1)} if drawing.reading.clip_skip else {}),
        **({} if drawing.image is None else {"Denoising strength": f"{drawing.strength:g}"}),
    }
    settings |= beside or {}
    if adapters:
        settings["Lora hashes"] = ", ".join(f"{a.name}: {a.digest}" for a in adapters)
    if any(a.scale != 1 for a in adapters):
        settings["Lora scales"] = ", ".join(f"{a.name}: {a.scale:g}" for a in adapters)
    return Parameters(drawing.prompt, drawing.negative_prompt, settings)


def guided_by(drawing: Drawing) -> dict[str, str]:
    """What is said of guidance besides its scale; of a weaker adapter its last name, not its path."""
    named = [one.told() for one in drawing.guidance] if isinstance(drawing.guidance, tuple) else ["own"]
    further = [f"{text}:{weight:g}" for text, weight in drawing.compose]
    return {
        **({"CFG rescale": f"{drawing.guidance_rescale:g}"} if drawing.guidance_rescale else {}),
        **({"Guidance": " + ".join(named)} if named else {}),
        **({"Compose": " + ".join(further)} if further else {}),
        **({"Class": written(drawing.classes)} if drawing.classes else {}),
        **({} if drawing.image_prompt is None else {"Image prompt": _scale(drawing.image_prompt_scale)}),
        **({} if drawing.control is None else {"Control": f"scale {drawing.control_scale:g}"}),
        **({} if drawing.image_guidance_scale == 1 else {"Image CFG scale": f"{drawing.image_guidance_scale:g}"}),
        **({} if drawing.class_scale is None else {"Class scale": f"{drawing.class_scale:g}"}),
    }


def _scale(scale: float | None) -> str:
    return "yes" if scale is None else f"scale {scale:g}"


def png_bytes(picture: Image.Image, parameters: Parameters | None = None) -> bytes:
    """The PNG file; equal pictures and parameters give equal bytes. Nothing else is written: no EXIF, time or path."""
    text = PngImagePlugin.PngInfo()
    if parameters is not None:
        text.add_text(KEY, parameters.as_text())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def save_png(path: Path, picture: Image.Image, parameters: Parameters | None = None) -> None:
    """Writes the file whole or not at all, over an older one."""
    files.write(path, png_bytes(picture, parameters))


def save_beside(path: Path, content: bytes) -> Path:
    """Writes to `path`, or to `…-2`, `…-3` … when other bytes stand there. Returns where they are now.

    Equal bytes that are there already are left alone.
    """
    number = 1
    candidate = path
    while candidate.exists():
        if candidate.is_file() and candidate.read_bytes() == content:
            return candidate
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    files.write(candidate, content)
    return candidate


def read_parameters(path: str | Path) -> Parameters | None:
    """How a picture was drawn, or None where it does not say.

    Raises:
        DataError: not there, or no picture.
    """
    try:
        with Image.open(path) as picture:
            text = picture.info.get(KEY)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError("the picture cannot be read", given=path) from error
    return None if text is None else Parameters.from_text(str(text))
