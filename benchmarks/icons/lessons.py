"""What the judge learns from, and how.

The training renderings alone (as drawn, outlined, recoloured, mirrored), and copies of them made worse by JPEG and by an
autoencoder, because drawings come out of a decoder; never anything that a denoiser drew. A lot keeps some pictures from it, by
set and noun: its own accuracy is measured on those.
"""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from colours import COLOURS
from diffusers import AutoencoderKL
from iconify import CATEGORIES
from icons.judge import FINE, SETS, SHADES, SIDE, Judge, inked
from pictures import Drawn
from PIL import Image
from prepare import Row, chance
from torch import Tensor

from adapt.data.cache import default_folder, key_of
from adapt.files import digest

HELD_OUT = 0.06
"""Share of the nouns of every set whose pictures the judge never sees in that set, in no variant."""

DECODED = 4
"""One picture in so many is also learned as the autoencoder gives it back."""

INEXACT = 0.15
"""Standard deviation added to latents at most, of the latents' own: a denoiser's are never exact."""

SAMPLES, BATCH, PEAK, WARMUP = 128_000, 64, 2e-3, 100
LOOK_STEPS, LOOK_BATCH, LOOK_PEAK = 800, 384, 3e-3
SHARPNESS = 20.0
"""Cosines between an embedding and the nouns' own are multiplied by this before the softmax."""

TURNED = 0.2
"""Share of pictures whose hues are all turned by one angle, so that a noun is known in any colour."""

TOLD_BY_COLOUR = re.compile(rf"\b({'|'.join(COLOURS)}|black|white|heart|circle|square|book)\b")
"""Nouns that colour tells apart: their hues stay."""


def judged(row: Row) -> bool:
    """Whether a row's noun is one of those that the denoiser learns: no people, no flags, no symbols."""
    return row.category in CATEGORIES


def held_out(row: Row) -> bool:
    """Whether the judge never saw this set's pictures of this noun."""
    return chance("judge", row.set, row.name).random() < HELD_OUT


@dataclass(frozen=True)
class Lesson:
    """Pictures and what they show.

    Attributes:
        pictures: uint8 (N, 3, H, W).
        rows: N of them.
        names: all nouns that the judge must know, sorted; also those of other rows.
    """

    pictures: Tensor
    rows: list[Row]
    names: list[str]


def lesson(drawn: Drawn, vae: AutoencoderKL) -> Lesson:
    """Everything that is judged and not held out, its JPEG copies, and some of it decoded."""
    numbers = drawn.where(lambda row: judged(row) and not held_out(row))
    clean = drawn.pictures(numbers)
    copies = decoded(vae, clean[::DECODED], INEXACT)
    rows = [drawn.rows[i] for i in numbers]
    names = sorted({row.name for row in drawn.rows if judged(row)})
    return Lesson(torch.cat([clean, jpeg(clean), copies]), [*rows, *rows, *rows[::DECODED]], names)


def jpeg(pictures: Tensor) -> Tensor:
    """uint8 pictures as JPEG of a quality by lot gives them back: soft, its colours at half the resolution."""
    lot, out = np.random.default_rng(0), []
    for picture in pictures.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=int(lot.integers(15, 70)))
        out.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()


@torch.inference_mode()
def decoded(vae: AutoencoderKL, pictures: Tensor, inexact: float = 0.0) -> Tensor:
    """uint8 pictures after encoding and decoding, uint8; up to `inexact` noise is added to the latents of each."""
    random, out = torch.Generator().manual_seed(0), list[Tensor]()
    for x in pictures.split(32):
        z = vae.encode(x.float() / 127.5 - 1).latent_dist.mode()
        amount = inexact * z.std() * torch.rand(len(z), 1, 1, 1, generator=random)
        z = z + amount * torch.randn(z.shape, generator=random)
        out.append(((vae.decode(z).sample.clamp(-1, 1) + 1) * 127.5).round().byte())
    return torch.cat(out)


def turned(x: Tensor, degrees: Tensor) -> Tensor:
    """Inked pictures (N, 3, H, W) with their hues turned by an angle each, (N,): a rotation about the grey axis."""
    angle = degrees[:, None, None] * (math.pi / 180)
    axis = torch.full((3, 3), 1 / 3)
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    matrix = angle.cos() * torch.eye(3) + (1 - angle.cos()) * axis + angle.sin() * across
    return torch.einsum("nij,njhw->nihw", matrix, x).clamp(0, 1)


def varied(x: Tensor, random: torch.Generator) -> Tensor:
    """Inked pictures (N, 3, h, w) -> (N, 3, SIDE, SIDE): moved, larger or smaller, a little rotated, softer, noisy."""
    n = len(x)

    def lot(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=random)

    size, angle = lot(0.94, 1.14), lot(-0.1, 0.1)
    cos, sin = size * angle.cos(), size * angle.sin()
    matrix = torch.stack([cos, -sin, lot(-0.08, 0.08), sin, cos, lot(-0.08, 0.08)], 1).view(n, 2, 3)
    soft = F.avg_pool2d(x, 3, 1, 1)
    x = x.lerp(soft, lot(-0.5, 1).clamp(min=0)[:, None, None, None])
    x = F.grid_sample(x, F.affine_grid(matrix, [n, 3, SIDE, SIDE], align_corners=False), align_corners=False)
    return x + lot(-0.05, 0.05).clamp(min=0)[:, None, None, None] * torch.randn(x.shape, generator=random)


def orders(count: int, batch: int, steps: int, random: torch.Generator) -> Iterator[Tensor]:
    """Picture numbers (batch,): every picture once an epoch."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(count, generator=random)])
        yield order[:batch]
        order = order[batch:]


def rate(step: int, steps: int, peak: float) -> float:
    """Warm-up, then a cosine to nothing."""
    return peak * min(1.0, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def learn_nouns(judge: Judge, taught: Lesson, samples: int) -> None:
    """The convolutions and the embedding: the nouns' own directions are learned with them."""
    random, steps = torch.Generator().manual_seed(0), math.ceil(samples / BATCH)
    number = {name: i for i, name in enumerate(taught.names)}
    nouns = torch.tensor([number[row.name] for row in taught.rows])
    free = torch.tensor([not TOLD_BY_COLOUR.search(row.name.replace("-", " ")) for row in taught.rows])
    trained = [judge.nouns, *judge.levels.parameters(), *judge.embedding.parameters()]
    optimizer, started = torch.optim.AdamW(trained, weight_decay=0.05), time.monotonic()
    judge.train()
    for step, i in enumerate(orders(len(nouns), BATCH, steps, random)):
        turn = (torch.rand(BATCH, generator=random) < TURNED) & free[i]
        angle = torch.where(turn, 30 + 300 * torch.rand(BATCH, generator=random), 0.0)
        x = varied(turned(inked(taught.pictures[i], FINE), angle), random)
        embedding, _ = judge.convolved(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(SHARPNESS * embedding @ F.normalize(judge.nouns, dim=1).T, nouns[i])
        _descend(optimizer, loss, rate(step, steps, PEAK))
        if step % 100 == 0:
            seconds = time.monotonic() - started
            print(f"judge, nouns: step {step} of {steps}  {seconds:.0f} s  loss {loss:.3f}", flush=True)
    judge.eval()


def learn_look(judge: Judge, taught: Lesson, steps: int) -> None:
    """Set and colour, from what the finished convolutions, palette and framing say of the pictures as they are."""
    random = torch.Generator().manual_seed(1)
    look = torch.cat([judge(x)[1] for x in taught.pictures.split(256)])
    judge.standard.train()(look)  # its statistics are these pictures' own
    judge.standard.eval()
    sets = torch.tensor([SETS.index(row.set) for row in taught.rows])
    colours = torch.tensor([SHADES.index(row.colour) for row in taught.rows])
    trained = [p for part in (judge.hidden, judge.set, judge.colour) for p in part.parameters()]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.1)
    for step, i in enumerate(orders(len(look), LOOK_BATCH, steps, random)):
        kept = 2 * (torch.rand(LOOK_BATCH, judge.hidden.out_features, generator=random) < 0.5)
        features = judge.features(look[i]) * kept
        loss = F.cross_entropy(judge.set(features), sets[i]) + F.cross_entropy(judge.colour(features), colours[i])
        _descend(optimizer, loss, rate(step, steps, LOOK_PEAK))
    print(f"judge, look: {steps} steps  loss {loss:.3f}", flush=True)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def train(taught: Lesson, samples: int = SAMPLES, look_steps: int = LOOK_STEPS) -> Judge:
    """A judge in eval mode; the same for the same pictures, threads and versions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(taught.names).to(memory_format=torch.channels_last)
    learn_nouns(judge, taught, samples)
    learn_look(judge, taught, look_steps)
    return judge.eval()


def obtain(drawn: Drawn, vae: Path, file: Path | None = None) -> tuple[Judge, str]:
    """The judge of these pictures, trained at the first call; and its name, which figures are recorded with.

    Args:
        drawn: what it learns from.
        vae: folder of the autoencoder whose copies it learns as well.
        file: where it is kept; None: in the user's cache, by what it was made from.

    Raises:
        ValueError: `file` holds the judge of other pictures.
    """
    facts = {"data": digest(drawn.folder / "rows.json")[:16], "samples": str(SAMPLES)}
    made_from = key_of(facts, *map(digest, sorted(vae.glob("*.safetensors"))))[:16]
    file = file or default_folder() / "icons_judge" / f"{made_from}.safetensors"
    if not file.exists():
        autoencoder = AutoencoderKL.from_pretrained(vae, use_safetensors=True).eval()
        train(lesson(drawn, autoencoder.to(memory_format=torch.channels_last))).save(file, facts)
    judge, said = Judge.load(file)
    if said["data"] != facts["data"]:
        raise ValueError(f"{file} is the judge of other pictures than {drawn.folder}'s; give --judge another path")
    return judge, digest(file)[:16]
