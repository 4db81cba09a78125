"""Icon sets in Iconify JSON (`npm pack @iconify-json/NAME`): their names, categories and pictures."""

import io
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

CATEGORIES = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Smileys & Emotion", "Travel & Places")
"""Unicode's categories whose icons the denoiser learns: no people, no flags, no symbols."""

SKIN_TONE = re.compile(r"(light|medium|dark)(-skin-tone)?$|skin-tone")


@dataclass(frozen=True)
class Outline:
    """A line drawn around every path: `width` is a fraction of the icon's width."""

    width: float
    colour: str


@dataclass(frozen=True)
class IconSet:
    """One package: its `prefix` (`noto`), `icons` by hyphenated name, default (width, height), `categories` by name."""

    prefix: str
    icons: dict[str, dict[str, Any]]
    size: tuple[float, float]
    categories: dict[str, str]

    def names(self) -> list[str]:
        """The visible icons without the skin-tone variants, in the package's order."""
        return [n for n, icon in self.icons.items() if not icon.get("hidden") and not SKIN_TONE.search(n)]

    def render(self, name: str, size: int, outline: Outline | None = None) -> np.ndarray:
        """Draws an icon on white: uint8, shape (size, size, 3)."""
        icon = self.icons[name]
        width, height = icon.get("width", self.size[0]), icon.get("height", self.size[1])
        body = icon["body"]
        if outline:
            stroke = f'stroke="{outline.colour}" stroke-width="{outline.width * width}" stroke-linejoin="round"'
            body = f"<g {stroke}>{body}</g>"
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{body}</svg>'
        # Drawn four times too large and shrunk: Lanczos keeps thin lines that the renderer would blur.
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size * 4, height=size * 4))
        drawing = Image.open(io.BytesIO(png)).convert("RGBA")
        page = Image.new("RGBA", drawing.size, "white")
        page.alpha_composite(drawing)
        return np.asarray(page.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))


def read(package: Path) -> IconSet:
    """Reads a package from its tgz or from the folder that the tgz unpacks to."""
    icons, metadata = _json(package, "icons.json"), _json(package, "metadata.json")
    categories = {name: category for category, names in metadata.get("categories", {}).items() for name in names}
    return IconSet(icons["prefix"], icons["icons"], (icons.get("width", 16), icons.get("height", 16)), categories)


def caption(name: str) -> str:
    """`red-apple` -> `red apple`."""
    return name.replace("-", " ")


def _json(package: Path, member: str) -> dict[str, Any]:
    if package.is_dir():
        return json.loads((package / member).read_text())
    with tarfile.open(package) as archive:
        file = archive.extractfile(f"package/{member}")
        if file is None:
            raise FileNotFoundError(f"{package} has no {member}: is it an @iconify-json package?")
        return json.loads(file.read())
