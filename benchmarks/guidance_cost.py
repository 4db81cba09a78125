"""What guidance costs and what it is worth: full, in an interval, adaptive.

    python benchmarks/guidance_cost.py --pictures 400 --json guidance_cost.json
    python benchmarks/guidance_cost.py --drawn DATA --json guidance_cost.json             # DATA: prepare.py's, --size 64
    python benchmarks/guidance_cost.py --pictures 16 --steps 6 --rule cfg:stop=0.6        # a quick look

Every rule draws the same captions from the same noise on one base. Time: drawing by each rule ÷ unguided, batch by batch, the
rules taking turns. Quality: KID (unbiased kernel MMD² with the median bandwidth of the reference, on textures and the base's own
features) to reference pictures; base-to-guided is what full guidance gains over none. A rule is *equivalent* to full guidance
when the 90 % interval of its KID minus full guidance's lies within ± 5 % of base-to-guided: two-sample jackknife over captions
and reference pictures, paired by captions and noise. Goal: ratio ≤ 1.3 at equivalence.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adapt.adapter import Adapter
from adapt.api.generate import applied
from adapt.api.judging import spread as spread_evenly
from adapt.api.reference import MOST, Reference, read_reference
from adapt.backbones import Backbone
from adapt.evaluation.distances import bandwidth, kernel, mmd2, spread
from adapt.evaluation.features import Blocks, Inside, Scaling, texture
from adapt.sampling.draw import draw
from adapt.sampling.request import Drawing, Request, settle
from conditioning import Condition

OPENMOJI = Path(__file__).parents[1] / "examples" / "data" / "openmoji"
NONE, FULL = "none", "cfg"
RULES = ("cfg:stop=0.3", "cfg:start=0.1,stop=0.4", "adaptive:threshold=0.95", "adaptive:threshold=0.9")
MARGIN, Z90, GOAL = 0.05, 1.645, 1.3


@dataclass(frozen=True)
class Figures:
    """Of one rule.

    Attributes:
        evaluations: of the network, rows a picture: the cost without the machine.
        seconds: a picture, median over batches.
        ratio: to unguided, median over batches.
        kid, kid_error: to the reference.
        difference, error: of KID to full guidance's, and its standard error.
        equivalent: the 90 % interval of the difference is within the margin; None for unguided and full guidance.
    """

    evaluations: float
    seconds: float
    ratio: float
    kid: float
    kid_error: float
    difference: float
    error: float
    equivalent: bool | None


def drawings(
    backbone: Backbone, rule: str, scale: float, steps: int, captions: Sequence[str], count: int
) -> list[Drawing]:
    """Each caption once, then each once more …, until there are `count`."""
    told = {"guidance_scale": 1.0} if rule == NONE else {"guidance_scale": scale, "guidance": rule}
    asked = [(captions[i % len(captions)], i // len(captions)) for i in range(count)]
    return [settle(Request(prompt=p, seed=seed, steps=steps, **told), backbone) for p, seed in asked]


def drawn(
    backbone: Backbone,
    rules: Mapping[str, list[Drawing]],
    adapters: Sequence[tuple[Adapter, float]],
    inside: Inside,
    batch: int,
    counter: Counter,
) -> tuple[dict[str, list[Blocks]], dict[str, list[float]]]:
    """Features and seconds a picture of each rule, batch by batch; the first batch of each is drawn once before, not timed."""
    names, looks = list(rules), {name: list[Blocks]() for name in rules}
    seconds: dict[str, list[float]] = {name: [] for name in rules}
    for name in names:
        draw(backbone, rules[name][:batch], batch_size=batch)
    total = len(rules[names[0]])
    for number, first in enumerate(range(0, total, batch)):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            some = rules[name][first : first + batch]
            with applied(backbone, adapters):
                counter.rule, started = name, time.perf_counter()
                pictures = draw(backbone, some, batch_size=batch)
                seconds[name].append((time.perf_counter() - started) / len(some))
            counter.rule = ""
            looks[name].append(look(inside, [p for p in pictures if isinstance(p, Image.Image)]))
        print(f"{min(first + batch, total)}/{total}", flush=True)
    return looks, seconds


def of_icons(folder: Path) -> Reference:
    """Plain renderings that `icons` was trained on (training_scripts/icons/prepare.py), evenly spread, and their nouns."""
    rows = json.loads((folder / "rows.json").read_text("utf-8"))["rows"]
    plain = [i for i, row in enumerate(rows) if row["kind"] == "plain"]
    chosen, stored = (
        [plain[i] for i in spread_evenly(range(len(plain)), MOST)],
        np.load(folder / "pictures.npy", mmap_mode="r"),
    )
    captions = tuple(rows[i]["name"].replace("-", " ") for i in chosen)
    return Reference(tuple(Image.fromarray(np.array(stored[i])) for i in chosen), captions)


def look(inside: Inside, pictures: Sequence[Image.Image]) -> Blocks:
    return [*texture(pictures), inside(inside.latents(pictures))]


def joined(parts: Sequence[Blocks]) -> Blocks:
    return [torch.cat(blocks) for blocks in zip(*parts, strict=True)]


class Counter:
    """Counts the rows that a base predicts, for each rule."""

    def __init__(self, backbone: Backbone) -> None:
        self.rule, self.rows, self._predict = "", dict[str, int](), backbone.predict
        backbone.predict = self  # type: ignore[method-assign]

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.rows[self.rule] = self.rows.get(self.rule, 0) + len(x_t)
        return self._predict(x_t, t, condition)


class Kids:
    """KID of several sets of drawings to one reference, as a function of weights."""

    def __init__(self, features: Tensor, reference: Tensor, groups: Tensor) -> None:
        width = bandwidth(reference)
        self.xx = torch.stack([kernel(x, x, width) for x in features])
        self.xy = torch.stack([kernel(x, reference, width) for x in features])
        self.yy, self.groups = kernel(reference, reference, width), groups

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return mmd2(self.xx, self.xy, self.yy, x, y)

    def against(self, full: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """KID, its standard error, its difference to one set's, and that standard error: each (S,)."""
        n, m = self.xy.shape[1:]
        ones, known = torch.ones(n, dtype=torch.float64), torch.ones(m, dtype=torch.float64)

        def both(x: Tensor, y: Tensor) -> Tensor:
            found = self(x, y)
            return torch.stack([found, found - found[full]])

        values, errors = both(ones, known), spread(both, self.groups, m)
        return values[0], errors[0], values[1], errors[1]


def judged(
    names: Sequence[str], kids: Kids, seconds: Mapping[str, list[float]], evaluations: Mapping[str, float]
) -> dict[str, Figures]:
    kid, kid_error, difference, error = kids.against(list(names).index(FULL))
    margin = MARGIN * abs(float(difference[0]))
    found = {}
    for i, name in enumerate(names):
        ratios = [a / b for a, b in zip(seconds[name], seconds[NONE], strict=True)]
        within = abs(float(difference[i])) + Z90 * float(error[i]) <= margin
        found[name] = Figures(
            evaluations[name], median(seconds[name]), median(ratios), float(kid[i]), float(kid_error[i]), float(difference[i]),
            float(error[i]), None if name in (NONE, FULL) else within,
        )  # fmt: skip
    return found


def lines(found: Mapping[str, Figures]) -> list[str]:
    gain = found[NONE].difference
    told = [
        f"{'rule':28} {'rows':>6} {'seconds':>8} {'ratio':>6} {'KID':>8} {'±':>7} {'- full':>9} {'±':>8}  equivalent (± 5 %)"
    ]
    for name, f in found.items():
        verdict = "" if f.equivalent is None else "yes" if f.equivalent else "no"
        goal = "" if name in (NONE, FULL) or not f.equivalent or f.ratio > GOAL else "  goal reached"
        told.append(f"{name:28} {f.evaluations:6.1f} {f.seconds:8.3f} {f.ratio:6.2f} {f.kid:8.4f} {f.kid_error:7.4f} "
                    f"{f.difference:9.4f} {f.error:8.4f}  {verdict}{goal}")  # fmt: skip
    return [
        *told,
        f"rows: of the network, a picture. Base-to-guided: {gain:.4f} ± {found[NONE].error:.4f} (unguided - full; above 0, "
        f"guidance helps); margin ± {MARGIN * abs(gain):.4f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="icons")
    parser.add_argument("--adapter", type=Path, help="drawn with, at its recommended scale; default: the base alone")
    parser.add_argument("--reference", type=Path, default=OPENMOJI, help="real pictures with captions, which are drawn")
    parser.add_argument("--drawn", type=Path, help="in its place: what icons was trained on, as prepare.py wrote it")
    parser.add_argument("--pictures", type=int, default=400, help="of each rule; fewer than 400 prove nothing")
    parser.add_argument("--steps", type=int, help="default: the base's")
    parser.add_argument("--guidance-scale", type=float, help="default: the base's")
    parser.add_argument("--rule", nargs="+", default=list(RULES), help="as --guidance has them, beside none and cfg")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    backbone = Backbone.load(words.base, device=words.device)
    reference = of_icons(words.drawn) if words.drawn else read_reference(words.reference)
    scale, steps = words.guidance_scale or backbone.guidance_scale, words.steps or backbone.sampling_steps
    adapters = [Adapter.load(words.adapter)] if words.adapter else []
    found = measured(backbone, reference, adapters, [NONE, FULL, *words.rule], scale, steps, words)
    print("\n".join(lines(found)))
    if words.json:
        facts = {"base": words.base, "guidance_scale": scale, "steps": steps, "pictures": words.pictures,
                 "references": len(reference.pictures), "batch_size": words.batch_size, "threads": words.threads,
                 "adapter": adapters[0].name if adapters else None, "torch": torch.__version__}  # fmt: skip
        rules = {name: asdict(figures) for name, figures in found.items()}
        words.json.write_text(json.dumps({**facts, "rules": rules}, indent=2) + "\n", "utf-8")


def measured(
    backbone: Backbone, reference: Reference, adapters: Sequence[Adapter], names: Sequence[str], scale: float, steps: int,
    words: argparse.Namespace,
) -> dict[str, Figures]:  # fmt: skip
    """Draws by every rule, and judges them. The features are those of the base without the adapter."""
    triggers = adapters[0].triggers if adapters else ()
    captions = reference.prompts(words.pictures, triggers)
    rules = {name: drawings(backbone, name, scale, steps, captions, words.pictures) for name in names}
    first, groups = rules[NONE][0], torch.arange(words.pictures) % len(captions)
    inside = Inside(backbone, first.height, first.width)
    known = look(inside, reference.pictures)
    scaled = [(adapter, float(adapter.recommended.get("scale", 1.0))) for adapter in adapters]
    counter = Counter(backbone)
    looks, seconds = drawn(backbone, rules, scaled, inside, words.batch_size, counter)
    scaling = Scaling.fitted(known)
    features = torch.stack([scaling(joined(looks[name])) for name in names])
    evaluations = {name: counter.rows[name] / words.pictures for name in names}
    return judged(names, Kids(features, scaling(known), groups), seconds, evaluations)


if __name__ == "__main__":
    main()
