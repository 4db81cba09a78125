"""The demo: an adapter for another artist's style, and a picture that compares it with its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from adapt import config
from adapt.adapter import Adapter
from adapt.api.generate import generate
from adapt.api.train import train
from adapt.backbones import Backbone
from adapt.data import find
from adapt.progress import say
from adapt.sampling.clip import as_picture
from adapt.sampling.png import save_png
from adapt.training import folder

CELL, MARGIN, LABEL = 128, 8, 20


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        folder: of the run.
        adapter: the adapter.
        done: what this call did; empty when everything was there.
    """

    folder: Path
    adapter: Adapter
    done: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        held_out = self.adapter.facts.training.get("held_out")
        names = {"adapter": str(self.folder / "adapter"), "comparison": str(self.folder / "comparison.png")}
        return {**names, "held_out": held_out, "done": list(self.done)}

    def lines(self) -> list[str]:
        """For people."""
        m, adapter = self.adapter.facts.training["held_out"], self.folder / "adapter"
        return [
            *([] if self.done else ["everything is there already; --fresh starts over"]),
            f"held-out loss  {m['base']:.4f} before, {m['loss']:.4f} after ({m['ratio']:.2f} of it; "
            f"{abs(m['change']):.1f} standard errors over {m['pictures']} pictures that chose the step;",
            "               at noisy times the base counts as right: docs/training.md)",
            f"adapter        {adapter}",
            f"comparison     {self.folder / 'comparison.png'}",
            "",
            "Try next:",
            f'  adapt generate --adapter {adapter} --prompt "red apple"',
            f'  adapt generate --adapter {adapter}:0.5 --prompt "penguin" --count 4',
            "  adapt train ./my-pictures --dry-run",
        ]


def run_demo(data: Path, recipe: Path, output: Path, fresh: bool = False) -> Demo:
    """Trains on `data/train`, chooses by `data/held-out`, draws the comparison; does only what is missing.

    Raises:
        RunError: `output` holds something else, or an unfinished run that was interrupted cannot be resumed.
    """
    done = []
    if fresh and (output / folder.RUN).is_file():
        with folder.claimed(output):
            folder.clear(output)
    if not (output / "adapter").is_dir():
        settings = config.resolve(recipe, [f"validation={data / 'held-out'}"]).settings
        again = f"adapt demo --output {output}"
        train(data / "train", output=output, settings=settings, existing="auto", resume_command=again)
        done.append("adapter")
    adapter = Adapter.load(output / "adapter")
    if not (output / "comparison.png").is_file():
        say("drawing the comparison")
        save_png(output / "comparison.png", comparison(adapter, data / "held-out"))
        done.append("comparison")
    return Demo(output, adapter, tuple(done))


def comparison(adapter: Adapter, held_out: Path) -> Image.Image:
    """Rows: nouns that were not trained on; columns: base, adapted, the artist's own picture."""
    pictures = find(held_out).pictures
    prompts = [picture.captions[0] for picture in pictures]
    backbone = Backbone.load("icons")
    steps, scale = int(adapter.recommended["steps"]), adapter.recommended["guidance_scale"]
    base = [as_picture(d) for d in generate(backbone, prompt=prompts, guidance_scale=scale, steps=steps)]
    adapted = [as_picture(d) for d in generate(backbone, prompt=prompts, adapters=[adapter])]
    real = [Image.open(picture.path).convert("RGB") for picture in pictures if picture.path]
    return table(prompts, {"base": base, "adapted": adapted, "OpenMoji": real})


def table(rows: Sequence[str], columns: dict[str, list[Image.Image]]) -> Image.Image:
    """Labelled pictures; more than eight rows stand in two blocks side by side."""
    height = -(-len(rows) // 2) if len(rows) > 8 else len(rows)
    blocks = [range(first, min(first + height, len(rows))) for first in range(0, len(rows), height)]
    drawn = [
        _block([rows[i] for i in block], {n: [c[i] for i in block] for n, c in columns.items()}) for block in blocks
    ]
    sheet = Image.new("RGB", (sum(d.width for d in drawn), drawn[0].height), "white")
    for number, block in enumerate(drawn):
        sheet.paste(block, (number * drawn[0].width, 0))
    return sheet


def _block(rows: Sequence[str], columns: dict[str, list[Image.Image]]) -> Image.Image:
    from PIL import ImageDraw, ImageFont

    font, cell = ImageFont.load_default(size=14), CELL + MARGIN
    sheet = Image.new("RGB", (LABEL * 6 + cell * len(columns) + MARGIN, LABEL + cell * len(rows) + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        pen.text((MARGIN, LABEL + y * cell + CELL // 2), row, fill="black", font=font, anchor="lm")
    for x, (name, pictures) in enumerate(columns.items()):
        left = LABEL * 6 + x * cell
        pen.text((left + CELL // 2, LABEL // 2 + 2), name, fill="black", font=font, anchor="mm")
        for y, picture in enumerate(pictures):
            sheet.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (left, LABEL + y * cell))
    return sheet
