"""Is an adapter with guidance inside as good as guidance, at half the work?

    python training_scripts/icons/prepare.py DATA --size 64
    python benchmarks/distilled_guidance.py DATA --out runs/distilled_guidance
    python benchmarks/distilled_guidance.py DATA --train 60 --pictures 40         # a quick try

Trains `distill=guidance` on `icons` with nouns that are not measured (once: OUT/run is taken as it is), then draws other nouns
from the same noises three times: unguided, guided, and with the adapter at scale 1. Measured, as in `icons_quality.py`, by the
judge that saw the training renderings alone: retrieval of the noun, and the style's distance (KID of the judge's look) to
real pictures of the same nouns. What is wanted is *equivalence*: the 90 % interval of distilled - guided lies within 5 % of
guided - unguided. OUT gets `distilled.json` and `sheet.png`. Needs the extra `icons`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import adapt
from adapt import config
from adapt.api.generate import applied
from adapt.sampling.draw import draw as loop
from adapt.sampling.request import Request, settle

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "training_scripts" / "icons"), str(ROOT / "benchmarks")]

import pictures  # noqa: E402
from iconify import caption  # noqa: E402
from icons import drawing  # noqa: E402
from icons.bench import distance  # noqa: E402
from icons.critic import Critic  # noqa: E402
from icons.judge import SETS  # noqa: E402
from icons.lessons import judged, obtain  # noqa: E402
from icons.measures import Estimate, jackknife, kid, mean, pairwise  # noqa: E402
from icons.sheet import Block, page, save  # noqa: E402
from prepare import chance  # noqa: E402

STEPS, SCALE, SHOWN = drawing.STEPS, drawing.GUIDANCE_SCALE, 16
MARGIN, NINETY = 0.05, 1.729
"""Share of base-to-guided that counts as none; Student's t of a 90 % interval over the jackknife's 20 groups."""
WAYS = ("unguided", "guided", "distilled")
RECIPE = ("learning_rate=1e-3", "schedule=cosine", "rank=32", "conv_rank=16", "validation=0.05", "validation_members=0",
          "previews=[red apple, penguin]", "ema=0.98")  # fmt: skip


# ------------------------------------------------------------------------------------------------------- what is learned
def nouns_of(drawn: pictures.Drawn) -> list[str]:
    """Nouns that every set shows, in an order by lot: the first are measured, the others taught."""
    shown = [{row.name for row in drawn.rows if row.set == s and judged(row)} for s in SETS]
    names = sorted(set.intersection(*shown))
    return chance("distilled").sample(names, len(names))


def plain_rows(drawn: pictures.Drawn) -> dict[str, list[int]]:
    """Noun → its real pictures, one a set, in the order of SETS."""
    found: dict[str, list[int]] = {}
    for i in drawn.where(lambda row: row.kind == "plain"):
        found.setdefault(drawn.rows[i].name, []).append(i)
    return {name: sorted(numbers, key=lambda i: SETS.index(drawn.rows[i].set)) for name, numbers in found.items()}


def real(drawn: pictures.Drawn, names: Sequence[str]) -> Tensor:
    """A real picture of each noun, the sets in turn; uint8."""
    rows = plain_rows(drawn)
    return drawn.pictures([rows[name][i % len(rows[name])] for i, name in enumerate(names)])


def lesson(drawn: pictures.Drawn, names: Sequence[str], folder: Path) -> Path:
    """A data set as a user would have it: pictures and captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, real(drawn, names), strict=True):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption(name), "utf-8")
    return folder


def taught(data: Path, run: Path, steps: int, scale: float, more: Sequence[str]) -> adapt.Adapter:
    """The adapter of an earlier call, or a new one."""
    if not (run / "adapter").is_dir():
        words = [*RECIPE, f"steps={steps}", "distill=guidance", f"distill_scale={scale:g}", *more]
        every = [f"validate_every={max(1, steps // 4)}", f"save_every={steps}", f"preview_every={steps}"]
        settings = config.resolve(overrides=[*words, *every]).settings
        adapt.train(data, output=run, base="icons", settings=settings, existing="auto")
    return adapt.Adapter.load(run / "adapter")


# ------------------------------------------------------------------------------------------------------- what is measured
@dataclass(frozen=True)
class Difference:
    """Distilled beside guided.

    Attributes:
        gap: guided - unguided: what guidance does.
        difference: distilled - guided.
        low, high: its 90 % interval, as shares of the gap.
    """

    gap: Estimate
    difference: Estimate
    low: float
    high: float

    @property
    def equivalent(self) -> bool:
        return self.low >= -MARGIN and self.high <= MARGIN

    def __str__(self) -> str:
        said = "equivalent" if self.equivalent else "not shown to be equivalent"
        shares = f"{100 * self.low:+.1f} … {100 * self.high:+.1f} % of the gap, wanted ± {100 * MARGIN:.0f} %"
        return f"gap {self.gap}, distilled - guided {self.difference}: {shares}: {said}"


def compared(gap: Estimate, difference: Estimate) -> Difference:
    """The interval in units of the gap, whose own error is left out: it is the yardstick."""
    half, unit = NINETY * difference.error, abs(gap.value)
    low, high = (difference.value - half) / unit, (difference.value + half) / unit
    return Difference(gap, difference, low, high)


def retrieval(hits: dict[str, Tensor], names: Sequence[str]) -> Difference:
    """Of nouns, from hits (N,) a way; pictures of one noun stand and fall together."""

    def between(one: str, other: str) -> Estimate:
        found = mean(hits[one].double() - hits[other].double(), names)
        return Estimate(found.value, found.error)

    return compared(between("guided", "unguided"), between("distilled", "guided"))


def style(looks: dict[str, Tensor], truth: Tensor) -> Difference:
    """Of KID to the real pictures, from looks (N, d) a way."""
    near = {way: pairwise(look, truth) for way, look in looks.items()}

    def between(one: str, other: str) -> Estimate:
        return jackknife(len(truth), lambda i: kid(near[one][i][:, i]) - kid(near[other][i][:, i]))

    return compared(between("guided", "unguided"), between("distilled", "guided"))


def tensors(drawn: Sequence[Any]) -> Tensor:
    """PIL pictures → uint8 (N, 3, H, W)."""
    return torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).view(p.height, p.width, 3)
                        for p in drawn]).permute(0, 3, 1, 2).contiguous()  # fmt: skip


def draw(backbone: adapt.Backbone, adapter: adapt.Adapter, way: str, words: Sequence[str], scale: float) -> Tensor:
    """One picture a caption, the i-th from seed i; uint8."""
    adapters = [adapter] if way == "distilled" else []
    scales = {"unguided": 1.0, "guided": scale, "distilled": None}
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(words))]

    def report(done: int, total: int) -> None:
        if done % STEPS == 0:
            print(f"\r{way} {100 * done // total} %", end="\n" * (done == total), file=sys.stderr, flush=True)

    return tensors(adapt.generate(backbone, prompt=list(words), adapters=adapters, guidance_scale=scales[way], steps=STEPS,
                                  generator=generators, batch_size=20, progress=report))  # fmt: skip


def cost(backbone: adapt.Backbone, adapter: adapt.Adapter, scale: float, rounds: int) -> dict[str, Any]:
    """Of a loop of one picture, the three ways in turn; ratios to unguided are of the same round.

    Seconds by the clock, and of the processor, which other programs do not lengthen as much.
    """
    found: dict[str, dict[str, list[float]]] = {kind: {way: [] for way in WAYS} for kind in ("clock", "processor")}
    for number in range(rounds + 1):
        for way in WAYS:
            asked = Request(prompt="penguin", steps=STEPS, guidance_scale=scale if way == "guided" else 1.0)
            with applied(backbone, [(adapter, 1.0)] if way == "distilled" else []):  # once for however many pictures
                clock, processor = time.perf_counter(), time.process_time()
                loop(backbone, [settle(asked, backbone)])
                spent = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
            for kind, seconds in spent.items() if number else ():  # the first round warms up
                found[kind][way].append(seconds)
    return {kind: _ratios(seconds) for kind, seconds in found.items()}


def _ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """The lowest seconds of each way, and the median of the ratios to unguided."""
    ratios = {way: [a / b for a, b in zip(seconds[way], seconds["unguided"], strict=True)] for way in WAYS[1:]}
    medians = {way: statistics.median(values) for way, values in ratios.items()}
    return {"seconds": {way: min(values) for way, values in seconds.items()}, "ratio to unguided": medians}


def far_from_guided(made: dict[str, Tensor]) -> dict[str, float]:
    """Root mean square of the differences to the guided drawing of the same noise, in 0 … 255, over all pictures."""
    others = {way: made[way].float() - made["guided"].float() for way in ("unguided", "distilled")}
    return {way: float(difference.square().mean().sqrt()) for way, difference in others.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("--judge", type=Path, help="its weights; default: the cache, trained if missing")
    parser.add_argument("--train", type=int, default=400, help="optimizer steps")
    parser.add_argument("--lessons", type=int, default=600, help="nouns that are taught, at most")
    parser.add_argument("--nouns", type=int, default=200, help="nouns that are measured")
    parser.add_argument("--each", type=int, default=2, help="pictures of each")
    parser.add_argument("--scale", type=float, default=SCALE, help="guidance that is distilled")
    parser.add_argument("--rounds", type=int, default=7, help="of the measurement of time")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more training settings")
    parser.add_argument("--only-train", action="store_true", help="stop when the adapter is there")
    parser.add_argument("--out", type=Path, default=Path("runs/distilled_guidance"))
    parser.add_argument("--threads", type=int, default=2)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    drawn = pictures.read(words.data)
    order = nouns_of(drawn)
    measured, others = order[: words.nouns], order[words.nouns :][: words.lessons]
    adapter = taught(
        lesson(drawn, others, words.out / "lessons"), words.out / "run", words.train, words.scale, words.set
    )
    if words.only_train:
        return
    model, key = obtain(drawn, drawing.BUNDLED / "vae", words.judge)
    names = [name for name in measured for _ in range(words.each)]
    backbone = adapt.Backbone.load("icons")
    made = {way: draw(backbone, adapter, way, [caption(name) for name in names], words.scale) for way in WAYS}
    critic = Critic(model, drawn)
    seen = {way: critic.see(found) for way, found in made.items()}
    hits = {way: critic.ranks(one, names) < 1 for way, one in seen.items()}
    truth = critic.see(real(drawn, names)).look
    figures: dict[str, Any] = {
        "retrieval": {way: mean(found, names).percent for way, found in hits.items()},
        "retrieval, distilled beside guided": retrieval(hits, names),
        "style distance (KID)": {way: str(distance(pairwise(one.look, truth))) for way, one in seen.items()},
        "style, distilled beside guided": style({way: one.look for way, one in seen.items()}, truth),
        "pixels from guided": far_from_guided(made),
        "cost": cost(backbone, adapter, words.scale, words.rounds),
        "held-out": adapter.facts.training.get("held_out"),
    }  # fmt: skip
    for name, value in figures.items():
        print(f"{name}: {value}", flush=True)
    told = {
        name: {**asdict(v), "equivalent": v.equivalent} if isinstance(v, Difference) else v
        for name, v in figures.items()
    }
    facts = {"pipeline": drawing.digest(drawing.BUNDLED), "judge": key, "pictures": len(names), "scale": words.scale}
    (words.out / "distilled.json").write_text(json.dumps({**facts, **told}, indent=2) + "\n", "utf-8")
    chosen = range(0, min(len(names), SHOWN * words.each), words.each)
    cells = torch.stack([torch.stack([made[way][i] for way in WAYS]) for i in chosen]).flatten(0, 1)
    save(page([Block("the same noise", cells, [caption(names[i]) for i in chosen], WAYS)]), words.out / "sheet.png")


if __name__ == "__main__":
    main()
