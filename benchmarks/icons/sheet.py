"""Pictures side by side, with words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL, GAP, LINE = 96, 4, 18


@dataclass(frozen=True)
class Block:
    """A titled grid: `rows` and `columns` are the words beside and above it; pictures uint8 (rows · columns, 3, H, W)."""

    title: str
    pictures: Tensor
    rows: Sequence[str]
    columns: Sequence[str]


def page(blocks: Sequence[Block], cell: int = CELL) -> Image.Image:
    """One block below the other."""
    drawn = [_block(block, cell) for block in blocks]
    sheet = Image.new("RGB", (max(d.width for d in drawn), sum(d.height for d in drawn)), "white")
    top = 0
    for picture in drawn:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def _block(block: Block, cell: int) -> Image.Image:
    font = ImageFont.load_default(size=13)
    left = GAP + max((int(font.getlength(word)) for word in block.rows), default=0) + GAP
    top = 2 * LINE if any(block.columns) else LINE
    step = cell + GAP
    width = max(left + step * len(block.columns), int(font.getlength(block.title)) + 2 * GAP)
    sheet = Image.new("RGB", (width, top + step * len(block.rows)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, LINE // 2), block.title, fill="black", font=font, anchor="lm")
    for x, word in enumerate(block.columns):
        pen.text((left + x * step + cell // 2, top - LINE // 2), word, fill="black", font=font, anchor="mm")
    for y, word in enumerate(block.rows):
        pen.text((GAP, top + y * step + cell // 2), word, fill="black", font=font, anchor="lm")
    for i, picture in enumerate(block.pictures):
        place = (left + i % len(block.columns) * step, top + i // len(block.columns) * step)
        image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        sheet.paste(image.resize((cell, cell), Image.Resampling.LANCZOS), place)
    return sheet


def save(sheet: Image.Image, file: Path) -> None:
    """PNG of 256 dithered colours: a quarter of the size, and gradients stay smooth enough."""
    small = sheet.quantize(palette=sheet.quantize(256, kmeans=1), dither=Image.Dither.FLOYDSTEINBERG)
    small.save(file, optimize=True)
