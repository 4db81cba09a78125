"""The measures of `icons`: each takes the bench and returns figures, with what chance would give, and pictures to look at."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from autoencoder import psnr
from captions import STYLES
from colours import COLOURS
from iconify import caption
from icons import adaptation, drawing
from icons.critic import Critic, best_pairs, best_possible, pair_means, reliability
from icons.judge import SETS
from icons.lessons import decoded, judged
from icons.measures import Estimate, jackknife, kid, mean, new_pairs, pairwise, white_border
from icons.sheet import Block
from pictures import Drawn
from prepare import NEW_PAIRS, chance
from torch import Tensor

SHOWN = 24
"""Captions on a contact sheet."""


@dataclass(frozen=True)
class Result:
    """What a measure found: figures by name, and pictures to look at."""

    figures: dict[str, Any]
    blocks: tuple[Block, ...] = ()


@dataclass
class Bench:
    """A pipeline folder and what it is measured with. Drawings that two measures need are made once.

    Attributes:
        drawn, openmoji: what prepare.py wrote; the second is never trained on.
        out: folder for the adaptation's run.
        count: nouns asked for.
        each: pictures a noun, or a new pair.
        digest: of the pipeline.
    """

    folder: Path
    drawn: Drawn
    openmoji: Drawn | None
    critic: Critic
    out: Path
    count: int
    each: int
    threads: int
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.pipeline, self.digest = drawing.load(self.folder), drawing.digest(self.folder)

    @cached_property
    def nouns(self) -> list[str]:
        """All nouns that every training set shows, in an order by lot; not those kept from the autoencoder."""
        shown = [{row.name for row in self.drawn.rows if row.set == s and judged(row) and not row.unseen} for s in SETS]
        names = sorted(set.intersection(*shown))
        return chance("captions").sample(names, len(names))

    def draw(self, captions: Sequence[str], told: str, each: int = 1) -> Tensor:
        """uint8, `each` pictures of every caption, one after the other; the i-th picture has seed i."""
        repeated = [words for words in captions for _ in range(each)]
        return drawing.draw(self.pipeline, repeated, range(len(repeated)), told)

    @cached_property
    def plain(self) -> Tensor:
        """Drawings of the bare nouns, `each` of every one."""
        return self.draw([caption(name) for name in self.nouns[: self.count]], "nouns", self.each)


def judge(bench: Bench) -> Result:
    """The judge's own accuracy on real pictures that it never saw; see `critic.reliability` for the chance levels."""
    return Result(reliability(bench.critic, bench.pipeline.vae))


def retrieval(bench: Bench) -> Result:
    """Captions of trained nouns: the noun that the judge finds nearest is the caption's. Chance: 1 / nouns, 5 / nouns."""
    names = [name for name in bench.nouns[: bench.count] for _ in range(bench.each)]
    rank = bench.critic.ranks(bench.critic.see(bench.plain), names)
    best = best_possible(bench.critic, bench.pipeline.vae, names)
    nouns = len(bench.critic.judge.names)
    words = [caption(name) for name in names[: SHOWN * bench.each : bench.each]]
    block = Block("nouns by lot", bench.plain[: SHOWN * bench.each], words, [""] * bench.each)
    return Result(
        {
            "first": mean(rank < 1, names),
            "first five": mean(rank < 5, names),
            "chance": {"first": 1 / nouns, "first five": 5 / nouns},
            "real pictures, decoded": {"first": best[0], "first five": best[1]},
            "always missed": _missed(names, rank),
        },
        (block,),
    )


def _missed(names: Sequence[str], rank: Tensor) -> list[str]:
    """Nouns whose every drawing was taken for another."""
    hit = {name for name, r in zip(names, rank.tolist(), strict=True) if r == 0}
    return [name for name in dict.fromkeys(names) if name not in hit]


def border(bench: Bench) -> Result:
    """Drawings of nouns with a clean white border. No chance level; real pictures as drawn for comparison.

    `white`: more than half of the border's pixels are white, so the page is. `white on average`: nor does the drawing touch the
    edge, as many of Twemoji's do.
    """
    names = [name for name in bench.nouns[: bench.count] for _ in range(bench.each)]
    real = bench.critic.pictures[bench.critic.where(lambda row: row.kind == "plain")]
    page, average = white_border(bench.plain)
    best = dict(zip(("white", "white on average"), map(mean, white_border(real)), strict=True))
    return Result({"white": mean(page, names), "white on average": mean(average, names), "real pictures": best})


def pairs(bench: Bench) -> Result:
    """Objects in colours that no training picture shows them in. Chance: colour 1/9 (eight, or none), object 1 / nouns."""
    wanted = new_pairs(bench.drawn.rows, NEW_PAIRS)
    drawn = bench.draw([f"{colour} {caption(name)}" for name, colour in wanted], "new pairs", bench.each)
    shown = [pair for pair in wanted for _ in range(bench.each)]
    found = dict(zip(("colour", "object", "both"), pair_means(bench.critic, drawn, shown), strict=True))
    best = dict(zip(found, best_pairs(bench.critic, bench.pipeline.vae, wanted), strict=True))
    noun = 1 / len(bench.critic.judge.names)
    level = {"colour": 1 / 9, "object": noun, "both": noun / 9}
    return Result(
        {**found, "chance": level, "real pictures, repainted, decoded": best},
        (pair_block(wanted, drawn[:: bench.each]),),
    )


def pair_block(wanted: Sequence[tuple[str, str]], drawn: Tensor) -> Block:
    """A row an object, a column a colour; one drawing a pair, white where a pair is not new."""
    colours = [colour for colour in COLOURS if colour in {colour for _, colour in wanted}]
    cells = torch.full((len(NEW_PAIRS), len(colours), *drawn.shape[1:]), 255, dtype=torch.uint8)
    for (name, colour), picture in zip(wanted, drawn, strict=True):
        cells[NEW_PAIRS.index(name), colours.index(colour)] = picture
    return Block("colours that no training picture shows", cells.flatten(0, 1), [*map(caption, NEW_PAIRS)], colours)


def styles(bench: Bench) -> Result:
    """`NOUN, noto style` and so on: the set that the judge names is the caption's. Chance: 1/3; nouns: 1 / nouns."""
    nouns = bench.nouns[: max(1, bench.count // 2)]
    asked = [(name, set_) for name in nouns for set_ in SETS]
    names = [name for name, _ in asked]
    drawn = bench.draw([f"{caption(name)}, {STYLES[set_]}" for name, set_ in asked], "styles")
    seen, right = bench.critic.see(drawn), torch.tensor([SETS.index(set_) for _, set_ in asked])
    hit, known = seen.sets == right, bench.critic.ranks(seen, names) < 1
    each = {
        STYLES[set_]: {"set": mean(hit[right == i]), "noun": mean(known[right == i])} for i, set_ in enumerate(SETS)
    }
    shown = [caption(name) for name in nouns[:SHOWN]]
    block = Block("style words", drawn[: len(shown) * len(SETS)], shown, [*STYLES.values()])
    level = {"set": 1 / len(SETS), "noun": 1 / len(bench.critic.judge.names)}
    return Result({"set": mean(hit, names), "noun": mean(known, names), "by word": each, "chance": level}, (block,))


def autoencoder(bench: Bench) -> Result:
    """PSNR in dB of pictures as drawn whose nouns were kept from the autoencoder, and of every fifth of OpenMoji's."""
    vae, unseen = bench.pipeline.vae, bench.drawn.where(lambda row: row.kind == "plain" and row.unseen)
    names = [bench.drawn.rows[i].name for i in unseen]
    figures = {"training sets, unseen": mean(psnr(vae, bench.drawn.pictures(unseen)), names)}
    if bench.openmoji:
        others = bench.openmoji.where(lambda row: row.kind == "plain")[::5]
        figures["OpenMoji"] = mean(psnr(vae, bench.openmoji.pictures(others)))
    return Result(figures)


def cost(bench: Bench) -> Result:
    """Seconds of a guided picture drawn alone (20 steps), peak memory of its process, size of the folder; MB are 10⁶."""
    seconds, peak = drawing.alone(bench.folder, bench.threads)
    total, largest = drawing.megabytes(bench.folder)
    spread = {"lowest": min(seconds), "median": statistics.median(seconds), "highest": max(seconds)}
    return Result(
        {"seconds": spread, "threads": bench.threads, "memory MB": peak, "MB": total, "largest file MB": largest}
    )


def adapted(bench: Bench) -> Result:
    """After 48 OpenMoji pictures: KID to real OpenMoji pictures ÷ the base's, and retrieval of nouns lost, in points.

    The nouns are new to the adapter, known to the base, the same for both. A ratio of 1 and no points lost: nothing changed.
    """
    assert bench.openmoji is not None
    test = adaptation.adapted(bench.folder, bench.out / f"adaptation-{bench.digest}")
    real, names = _openmoji(bench.openmoji, bench.nouns, bench.count)
    captions = test.captions([caption(name) for name in names])
    base = drawing.draw(bench.pipeline, captions, range(len(names)), "base")
    changed = drawing.draw(drawing.load(bench.folder, test.folder), captions, range(len(names)), "adapted")
    columns = {"base": base, "adapted": changed, "OpenMoji": real}
    seen = {name: bench.critic.see(drawn) for name, drawn in columns.items()}
    known = {name: bench.critic.ranks(s, names) < 1 for name, s in seen.items()}
    copies = bench.critic.see(decoded(bench.pipeline.vae, real)).look
    near = {name: pairwise(s.look, seen["OpenMoji"].look) for name, s in seen.items()}
    near["OpenMoji, decoded"] = pairwise(copies, seen["OpenMoji"].look)
    figures = {
        "KID": {name: distance(near[name]) for name in ("base", "adapted", "OpenMoji, decoded")},
        "KID ratio": jackknife(len(names), lambda i: kid(near["adapted"][i][:, i]) / kid(near["base"][i][:, i])),
        "retrieval": {name: mean(hits) for name, hits in known.items()},
        "retrieval lost": mean(known["base"].float() - known["adapted"].float()),
        "chosen step": test.chosen_step,
    }
    cells = torch.stack([drawn[:SHOWN] for drawn in columns.values()], 1).flatten(0, 1)
    return Result(figures, (Block("48 OpenMoji pictures later", cells, captions[:SHOWN], [*columns]),))


def distance(pairs: Tensor) -> Estimate:
    """KID with its error."""
    return jackknife(len(pairs), lambda i: kid(pairs[i][:, i]))


def _openmoji(drawn: Drawn, nouns: Sequence[str], count: int) -> tuple[Tensor, list[str]]:
    """Real pictures of the first `count` nouns that OpenMoji has and the example data does not use."""
    number, used = {row.name: i for i, row in enumerate(drawn.rows) if row.kind == "plain"}, adaptation.used()
    names = [name for name in nouns if name in number and caption(name) not in used][:count]
    return drawn.pictures([number[name] for name in names]), names
