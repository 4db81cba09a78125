"""What the judge says of pictures, beside the training renderings; and how far it can be believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from colours import main_colour, recolour
from diffusers import AutoencoderKL
from icons.judge import SETS, SHADES, Judge
from icons.lessons import decoded, held_out, judged
from icons.measures import Mean, colour_of, cut_out, mean, ranks
from pictures import Drawn
from PIL import Image
from prepare import Row
from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """Pictures as the judge sees them: unit embeddings of the noun (N, 128), the look in standard deviations of the training
    pictures' (N, d), numbers of the sets that it names (N,), names of the colours."""

    embeddings: Tensor
    look: Tensor
    sets: Tensor
    colours: list[str]


class Critic:
    """The judge and its gallery: every training rendering of every noun that it judges.

    Attributes:
        judge: in eval mode.
        rows: of the gallery.
        pictures: of the gallery, uint8.
    """

    def __init__(self, judge: Judge, drawn: Drawn) -> None:
        chosen = drawn.where(judged)
        self.judge, self.rows, self.pictures = judge, [drawn.rows[i] for i in chosen], drawn.pictures(chosen)
        self._number = {name: i for i, name in enumerate(judge.names)}
        self.noun = self.numbers([row.name for row in self.rows])
        self.set = torch.tensor([SETS.index(row.set) for row in self.rows])
        self.gallery = self.see(self.pictures)

    @torch.inference_mode()
    def see(self, pictures: Tensor) -> Seen:
        """uint8 (N, 3, H, W), of any size."""
        embeddings, looks = zip(*map(self.judge, pictures.split(256)), strict=True)
        look = torch.cat(looks)
        read = self.judge.features(look)
        sets, shades = self.judge.set(read).argmax(1), self.judge.colour(read).argmax(1)
        return Seen(torch.cat(embeddings), self.judge.standard(look), sets, [SHADES[i] for i in shades.tolist()])

    def numbers(self, names: Sequence[str]) -> Tensor:
        """Of nouns."""
        return torch.tensor([self._number[name] for name in names])

    def ranks(self, seen: Seen, names: Sequence[str], other_than: Tensor | None = None) -> Tensor:
        """How many nouns the judge finds nearer than the right one, (N,); `other_than`: sets not to look at, (N,)."""
        allowed = None if other_than is None else other_than[:, None] != self.set
        return ranks(seen.embeddings, self.gallery.embeddings, self.noun, self.numbers(names), allowed)

    def where(self, wanted: Callable[[Row], bool]) -> list[int]:
        """Numbers of the gallery's rows that are `wanted`."""
        return [i for i, row in enumerate(self.rows) if wanted(row)]


def on_white(drawing: Image.Image) -> Tensor:
    """RGBA -> uint8 (3, H, W)."""
    page = Image.new("RGBA", drawing.size, "white")
    page.alpha_composite(drawing)
    return torch.from_numpy(np.array(page.convert("RGB"))).permute(2, 0, 1)


def painted(picture: Tensor, colour: str) -> Tensor | None:
    """A uint8 picture (3, H, W) with its main colour turned into another, or None if it has no main colour."""
    drawing = cut_out(picture)
    main = main_colour(drawing)
    return on_white(recolour(drawing, main, colour)) if main else None


def reliability(critic: Critic, vae: AutoencoderKL) -> dict[str, Any]:
    """Means that the judge gets right of real pictures that it never saw, after the measured autoencoder.

    Nouns: pictures of one set, looked up among the other sets only; chance 1 / nouns for the first, 5 / nouns for the first
    five. Sets: chance 1/3. Colours: chance is the share of the commonest.
    """
    chosen = critic.where(lambda row: held_out(row) and row.kind in ("plain", "mirrored"))
    rows, sets = [critic.rows[i] for i in chosen], critic.set[chosen]
    names, copies = [row.name for row in rows], decoded(vae, critic.pictures[chosen])
    seen = critic.see(copies)
    rank = critic.ranks(seen, names, other_than=sets)
    colours = [row.colour for row in rows]
    return {
        "noun, first": mean(rank < 1, names),
        "noun, first five": mean(rank < 5, names),
        "set": mean(seen.sets == sets, names),
        "colour": mean(_same(seen.colours, colours), names),
        "colour, by main_colour": mean(_same([colour_of(x) for x in copies], colours), names),
        "chance": {
            "noun": 1 / len(critic.judge.names),
            "set": 1 / len(SETS),
            "colour": max(colours.count(c) for c in set(colours)) / len(colours),
        },
    }


def best_possible(critic: Critic, vae: AutoencoderKL, names: Sequence[str]) -> tuple[Mean, Mean]:
    """Retrieval (first, first five) of the nouns' own training pictures, decoded: what a perfect denoiser would reach."""
    wanted = set(names)
    chosen = critic.where(lambda row: row.kind == "plain" and row.name in wanted)
    own = [critic.rows[i].name for i in chosen]
    rank = critic.ranks(critic.see(decoded(vae, critic.pictures[chosen])), own)
    return mean(rank < 1, own), mean(rank < 5, own)


def best_pairs(critic: Critic, vae: AutoencoderKL, pairs: Sequence[tuple[str, str]]) -> tuple[Mean, Mean, Mean]:
    """Colour, object, both: right for the real pictures, repainted and decoded: what a perfect denoiser would reach."""
    shown, pictures = list[tuple[str, str]](), list[Tensor]()
    for name, colour in pairs:
        for i in critic.where(lambda row, name=name: row.name == name and row.kind == "plain"):
            picture = painted(critic.pictures[i], colour)
            if picture is not None:
                shown.append((name, colour))
                pictures.append(picture)
    return pair_means(critic, decoded(vae, torch.stack(pictures)), shown)


def pair_means(critic: Critic, pictures: Tensor, pairs: Sequence[tuple[str, str]]) -> tuple[Mean, Mean, Mean]:
    """Colour right, object right, both, of pictures that should show these pairs; errors by pair."""
    colour = _same([colour_of(x) for x in pictures], [colour for _, colour in pairs])
    name = critic.ranks(critic.see(pictures), [name for name, _ in pairs]) < 1
    return mean(colour, pairs), mean(name, pairs), mean(colour & name, pairs)


def _same(said: Sequence[str], right: Sequence[str]) -> Tensor:
    return torch.tensor([a == b for a, b in zip(said, right, strict=True)])
