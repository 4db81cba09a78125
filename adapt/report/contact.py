"""The contact sheet of a sweep: one PNG, a block for each scale of the adapter, labelled axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from adapt.evaluation.grid import Grid, Setting
from adapt.report.wording import shown

GAP, LINE, LEFT = 4, 20, 150
SHOWN = 4
"""Pictures of a setting that are on the sheet: the first ones, each of another prompt where there are several."""
MARK = (11, 122, 100)

Strips = Mapping[Setting, Image.Image]
"""Every setting's first pictures, made by `strip`: all of one size."""


def side_of(resolution: int) -> int:
    """Of small pictures: a base's own small ones stay as they are, enlarged where they are tiny."""
    return 96 if resolution <= 128 else 192


def small(picture: Image.Image, side: int) -> Image.Image:
    """A square of `side` pixels with the whole picture in it."""
    width, height = picture.size
    factor = side / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def strip(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    """The first pictures of a setting, small, side by side."""
    first = pictures[:SHOWN]
    row = Image.new("RGB", (len(first) * (side + GAP) - GAP, side), "white")
    for number, picture in enumerate(first):
        row.paste(small(picture, side), (number * (side + GAP), 0))
    return row


def contact_sheet(
    grid: Grid, strips: Strips, base: Image.Image, prompts: Sequence[str], marked: Setting | None = None
) -> Image.Image:
    """Columns are steps, rows are guidance scales, blocks are scales of the adapter; the base's own pictures on top.

    Args:
        base: the strip that was drawn without the adapter.
        prompts: what the pictures of a strip show, in their order.
        marked: the setting that gets a frame.
    """
    blocks = [_without_adapter(base, prompts), *(_block(grid, scale, strips, marked) for scale in grid.scales)]
    sheet = Image.new("RGB", (max(b.width for b in blocks), sum(b.height for b in blocks)), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    return sheet


def _without_adapter(row: Image.Image, prompts: Sequence[str]) -> Image.Image:
    side = row.height
    sheet = Image.new("RGB", (LEFT + row.width + 2 * GAP, side + 2 * LINE), "white")
    pen = _Pen(sheet)
    pen.left(LINE + side // 2, "the base alone")
    for number in range((row.width + GAP) // (side + GAP)):
        pen.above(LEFT + number * (side + GAP) + side // 2, LINE // 2, prompts[number % len(prompts)], side)
    sheet.paste(row, (LEFT, LINE))
    return sheet


def _block(grid: Grid, scale: float, strips: Strips, marked: Setting | None) -> Image.Image:
    one = strips[grid.settings[0]]
    width, height, top = one.width + 4 * GAP, one.height + 3 * GAP, 2 * LINE
    sheet = Image.new("RGB", (LEFT + width * len(grid.steps), top + height * len(grid.guidance_scales) + LINE), "white")
    pen = _Pen(sheet)
    pen.title(f"adapter scale {scale:g}")
    for x, steps in enumerate(grid.steps):
        pen.above(LEFT + x * width + one.width // 2, LINE + LINE // 2, f"{steps} steps", width)
    for y, guidance_scale in enumerate(grid.guidance_scales):
        pen.left(top + y * height + one.height // 2, f"guidance scale {guidance_scale:g}")
        for x, steps in enumerate(grid.steps):
            setting, place = Setting(scale, guidance_scale, steps), (LEFT + x * width, top + y * height)
            sheet.paste(strips[setting], place)
            if setting == marked:
                pen.frame(place, one.size)
    return sheet


class _Pen:
    """Writes on a sheet."""

    def __init__(self, sheet: Image.Image) -> None:
        self._draw, self._font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)

    def title(self, text: str) -> None:
        self._draw.text((GAP, LINE // 2), text, fill="black", font=ImageFont.load_default(size=15), anchor="lm")

    def left(self, y: int, text: str) -> None:
        self._draw.text((LEFT - 2 * GAP, y), text, fill="black", font=self._font, anchor="rm")

    def above(self, x: int, y: int, text: str, room: int) -> None:
        """As much of the text as there is room for."""
        text = shown(text, 80)
        while len(text) > 2 and self._font.getlength(text) > room:
            text = text[:-2] + "…"
        self._draw.text((x, y), text, fill="black", font=self._font, anchor="mm")

    def frame(self, place: tuple[int, int], size: tuple[int, int]) -> None:
        """Around a picture, outside of it."""
        (left, top), (width, height) = place, size
        self._draw.rectangle((left - 3, top - 3, left + width + 2, top + height + 2), outline=MARK, width=3)
