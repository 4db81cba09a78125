"""Icon sets in Iconify JSON (`npm pack @iconify-json/NAME`): their names, categories and pictures."""

import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    licence: str
    icons: dict[str, dict[str, Any]]
    size: tuple[float, float]
    categories: dict[str, str]

    def names(self) -> list[str]:
        """The visible icons without the skin-tone variants, in the package's order."""
        return [n for n, icon in self.icons.items() if not icon.get("hidden") and not SKIN_TONE.search(n)]

    def render(self, name: str, size: int, outline: Outline | None = None) -> Image.Image:
        """Draws an icon: RGBA, size × size."""
        import resvg_py  # of the extra `icons`: what only reads rows does without

        icon = self.icons[name]
        width, height = icon.get("width", self.size[0]), icon.get("height", self.size[1])
        body = icon["body"]
        if outline:
            stroke = f'stroke="{outline.colour}" stroke-width="{outline.width * width}" stroke-linejoin="round"'
            body = f"<g {stroke}>{body}</g>"
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{body}</svg>'
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))
        return Image.open(io.BytesIO(png)).convert("RGBA")


def read(package: Path) -> IconSet:
    """Reads a package from its tgz or from the folder that the tgz unpacks to."""
    icons, info, metadata = (_json(package, f"{part}.json") for part in ("icons", "info", "metadata"))
    categories = {name: category for category, names in metadata.get("categories", {}).items() for name in names}
    size = (icons.get("width", 16), icons.get("height", 16))
    return IconSet(icons["prefix"], info["license"]["spdx"], icons["icons"], size, categories)


def download(package: str, folder: Path) -> Path:
    """Fetches `noto@1.2.9` from the npm registry, unless the tgz is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"iconify-json-{package.replace('@', '-')}.tgz"
    if not file.exists():
        subprocess.run(
            ["npm", "pack", "--silent", f"@iconify-json/{package}"], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
    return file


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
