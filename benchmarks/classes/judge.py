"""The judge of animal kinds: linear heads on what a frozen photo net sees, taught real pictures alone.

Nothing that a denoiser drew is ever learned from: real pictures, the same with a line around every path, mirrored, varied (moved,
scaled, turned, recoloured, softened), and as an autoencoder gives them back. There is one head for each part of the
pictures that is kept from it, so every real picture is tried on a head that never saw it, and all count in the judge's own
accuracy. Drawings are judged by the heads together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from classes.photo_net import PhotoNet
from classes.real import KINDS, SIZE, Real, collect
from diffusers import AutoencoderKL
from icons.judge import inked
from icons.lessons import INEXACT, decoded, turned
from icons.measures import Mean, mean
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapt.data.cache import default_folder, key_of
from adapt.files import digest

NAMES = sorted(KINDS)
COPIES, OUTLINED = 6, 3
"""Varied copies of every picture; every third of them is of the outlined one."""

DECAY, ITERATIONS = 1e-2, 60
TURNED, GREY = 0.3, 0.15
"""Shares of copies whose hues are turned and whose colour is taken away: a kind is its shape first."""


@dataclass(frozen=True)
class Judge:
    """Heads on standardised features.

    Attributes:
        middle, spread: of each head's own lessons, (heads, features).
        weight, bias: (heads, features, kinds), (heads, kinds).
    """

    middle: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    def probabilities(self, features: Tensor) -> Tensor:
        """(N, features) -> what each head says, (heads, N, kinds)."""
        standard = (features - self.middle[:, None]) / self.spread[:, None]
        return (standard @ self.weight + self.bias[:, None]).softmax(2)


@dataclass(frozen=True)
class Accuracy:
    """Of real pictures by a head that never saw them; `stricter`: nor a twin of them (the same drawing in a sister set)."""

    held_out: Mean
    stricter: Mean
    openmoji: Mean
    wrong: list[str]


def varied(x: Tensor, random: torch.Generator) -> Tensor:
    """Inked pictures (N, 3, SIZE, SIZE): mirrored, moved, scaled, turned, stretched, recoloured, softened."""
    n = len(x)

    def lot(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=random)

    x = turned(x, torch.where(torch.rand(n, generator=random) < TURNED, lot(-180, 180), lot(-15, 15)))
    grey = (torch.rand(n, generator=random) < GREY)[:, None, None, None]
    x = (torch.where(grey, x.mean(1, keepdim=True), x) * lot(0.75, 1.15)[:, None, None, None]).clamp(0, 1)
    x = x.lerp(F.avg_pool2d(x, 3, 1, 1), lot(-0.5, 1).clamp(min=0)[:, None, None, None])
    size, wide, angle = lot(0.9, 1.3), lot(0.88, 1.14), lot(-0.25, 0.25)
    mirror = torch.where(torch.rand(n, generator=random) < 0.5, -1.0, 1.0)
    cos, sin = size * angle.cos(), size * angle.sin()
    matrix = torch.stack([mirror * wide * cos, -sin, lot(-0.12, 0.12), mirror * wide * sin, cos, lot(-0.12, 0.12)], 1)
    grid = F.affine_grid(matrix.view(n, 2, 3), [n, 3, SIZE, SIZE], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def lessons(real: Real, vae: AutoencoderKL, net: PhotoNet) -> Tensor:
    """Features of all versions of every picture, (versions, N, features); as drawn and mirrored come first."""
    random = torch.Generator().manual_seed(0)
    seen = [real.pictures, real.pictures.flip(3), real.outlined, decoded(vae, real.pictures, INEXACT)]
    for copy in range(COPIES):
        source = real.outlined if copy % OUTLINED == OUTLINED - 1 else real.pictures
        seen.append(((1 - varied(inked(source, SIZE), random)) * 255).clamp(0, 255).round().byte())
    out = []
    for number, pictures in enumerate(seen, 1):
        out.append(net.features(pictures))
        print(f"judge: version {number} of {len(seen)} of {len(pictures)} real pictures seen", flush=True)
    return torch.stack(out)


def head(features: Tensor, kind: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """middle, spread, weight, bias of a head: logistic regression in which every kind weighs the same."""
    middle, spread = features.mean(0), features.std(0)
    spread = spread + 0.3 * spread.mean()
    x = (features - middle) / spread
    weight = torch.zeros(x.shape[1], len(NAMES), requires_grad=True)
    bias = torch.zeros(len(NAMES), requires_grad=True)
    share = 1 / torch.bincount(kind, minlength=len(NAMES)).float()[kind]
    share = share / share.mean()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (F.cross_entropy(x @ weight + bias, kind, reduction="none") * share).mean()
        value = value + DECAY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return middle, spread, weight.detach(), bias.detach()


def taught(seen: Tensor, kind: Tensor, fold: Tensor) -> Judge:
    """One head for each part, taught all other parts."""
    heads = []
    for part in fold.unique():
        kept = fold != part
        heads.append(head(seen[:, kept].flatten(0, 1), kind[kept].repeat(len(seen))))
    return Judge(*(torch.stack(parts) for parts in zip(*heads, strict=True)))


def tried(judge: Judge, seen: Tensor, fold: Tensor) -> Tensor:
    """What the head that never saw it says of each picture as drawn and mirrored, (N,)."""
    both = judge.probabilities(seen[0]) + judge.probabilities(seen[1])
    return both[fold, torch.arange(len(fold))].argmax(1)


def accuracy(real: Real, judge: Judge, strict: Judge, seen: Tensor) -> Accuracy:
    """Errors of the means by groups of twins, which stand and fall together."""
    said = tried(judge, seen, real.fold)
    right, apart = said == real.kind, tried(strict, seen, real.twins_fold) == real.kind
    own = [i for i, name in enumerate(real.names) if name.startswith("openmoji/")]
    wrong = [f"{real.names[i]}: {NAMES[said[i]]}" for i in torch.nonzero(~right).flatten().tolist()]
    groups = real.groups
    return Accuracy(mean(right, groups), mean(apart, groups), mean(right[own], [groups[i] for i in own]), wrong)


def obtain(packages: Path, vae: Path, without: str | None = None) -> tuple[Judge, Accuracy, str]:
    """The judge, its accuracy and its name; made at the first call and then kept in the user's cache.

    Args:
        without: a house whose pictures are not taught, nor any twin of them; the accuracy is then that on this house's pictures.
    """
    here = Path(__file__).parent
    made_from = [digest(here / f"{part}.py") for part in ("judge", "real", "photo_net")]
    told = {"without": without} if without else {}
    name = key_of(told, *made_from, *map(digest, sorted(vae.glob("*.safetensors"))))[:16]
    file = default_folder() / "classes_judge" / f"{name}.safetensors"
    if not file.exists():
        _make(file, packages, vae, without)
    with safe_open(file, framework="pt") as opened:
        said = json.loads(opened.metadata()["accuracy"])
    means = {key: Mean(**said[key]) for key in ("held_out", "stricter", "openmoji")}
    return Judge(**load_file(file)), Accuracy(**means, wrong=said["wrong"]), name


def _make(file: Path, packages: Path, vae: Path, without: str | None) -> None:
    real, net = collect(packages), PhotoNet()
    seen = lessons(real, AutoencoderKL.from_pretrained(vae, use_safetensors=True).eval(), net)
    judge, found = stranger(real, seen, without) if without else _of_all(real, seen)
    plain = {key: vars(value) if isinstance(value, Mean) else value for key, value in vars(found).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: x.contiguous() for key, x in vars(judge).items()}, file, metadata={"accuracy": json.dumps(plain)})


def _of_all(real: Real, seen: Tensor) -> tuple[Judge, Accuracy]:
    judge, strict = taught(seen, real.kind, real.fold), taught(seen, real.kind, real.twins_fold)
    return judge, accuracy(real, judge, strict, seen)


def stranger(real: Real, seen: Tensor, house: str) -> tuple[Judge, Accuracy]:
    """A judge that never saw a picture of one house, and how often it is right on all pictures of that house."""
    own = torch.tensor([group.startswith(f"{house}/") for group in real.groups])
    judge = taught(seen[:, ~own], real.kind[~own], real.fold[~own])
    said = (judge.probabilities(seen[0, own]) + judge.probabilities(seen[1, own])).mean(0).argmax(1)
    index = own.nonzero().flatten().tolist()
    right = said == real.kind[own]
    found = mean(right, [real.groups[i] for i in index])
    wrong = [f"{real.names[i]}: {NAMES[k]}" for i, k, hit in zip(index, said, right, strict=True) if not hit]
    return judge, Accuracy(found, found, found, wrong)


def judged(judge: Judge, net: PhotoNet, pictures: Tensor, names: Sequence[str]) -> Tensor:
    """Numbers in NAMES of what uint8 pictures (N, 3, H, W) show, (N,): the likeliest of `names`, by all heads together."""
    features = net.features(torch.cat([pictures, pictures.flip(3)]))
    said = judge.probabilities(features).mean(0).view(2, len(pictures), -1).sum(0)
    other = torch.tensor([name not in names for name in NAMES])
    return said.masked_fill(other, -1).argmax(1)
