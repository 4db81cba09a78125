"""How many forward passes does it take to see a change of 0.5 % in the held-out loss?

    python benchmarks/validation_power.py runs/demo --steps 80 160 --json power.json

Two snapshots of one run are measured on the same pictures by several grids of times and noise. What each would say of the change
from one to the other is compared with what a dense grid says: 32 times and many draws of noise.

How others measure, read in their sources:

* kohya's sd-scripts (train_network.py at 48d368fa, lines 1364-1368 and 1540-1553): `np.linspace(0, 1000, 6)[1:-1]`, that is
  the times 200, 400, 600, 800, for every validation picture; the random state is set to one seed before each validation, so
  that two validations see the same noise. Reported is the mean.
* SimpleTuner (helpers/training/validation.py at bc8e6ab77, `get_timestep_schedule` and `_evaluate_dataset_pass`): the scheduler's
  own steps, `eval_timesteps`, 28 by default; `torch.manual_seed(0)` before every batch and every time, so that every batch sees
  the same noise at all times (counted here with batches of one). Reported is the mean.
* here (`adapt.evaluation.held_out`): one time in each of K equal shares, moving on from picture to picture by the golden
  ratio; noise of its own in every cell; with pairs also its negative.

All of them are paired: two snapshots see the same times and noise. They differ in what remains.

The error of the change log(loss after / loss before) has two parts: a *floor* that no number of pictures lowers (times
that are the same for all pictures, noise that is the same for all), and a spread that falls with the root of their
number. A change of 0.5 % is seen when the error is at most half of it. "Forwards needed" is K times the pictures for which that
holds, for pictures drawn from where these come from; "never" when the floor alone is more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import adapt
from adapt.adapter import Adapter
from adapt.data import decode, find, fit, pixels
from adapt.data.plan import normal
from adapt.evaluation.held_out import GOLDEN
from adapt.formats import LoraWeights, read_lora

DATA = Path(__file__).parents[1] / "examples" / "data" / "openmoji" / "held-out"
TIMES, SEEN = 32, 0.005

Losses = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`losses(x, noise, t)` of the snapshot at hand (n,)."""


@dataclass(frozen=True)
class Grid:
    """Losses of one snapshot.

    Attributes:
        own: (pictures, times, seeds, 2): noise of its own in every cell, and its negative.
        shared: (pictures, times, seeds): one noise for all.
    """

    own: Tensor
    shared: Tensor


@dataclass(frozen=True)
class Power:
    """Of one way to measure.

    Attributes:
        forwards: passes a picture.
        error: in %, of the change on all these pictures: root mean square over draws of noise.
        floor: in %, of it what more pictures would not lower.
        needed: forward passes until a change of 0.5 % is seen; None: never.
    """

    forwards: int
    error: float
    floor: float
    needed: int | None


def dense(losses: Losses, x: Tensor, objective: object, seeds: int) -> Grid:
    """All cells of the dense grid."""
    shape, count = x.shape[1:], len(x)
    own, shared = torch.empty(count, TIMES, seeds, 2), torch.empty(count, TIMES, seeds)
    for k in range(TIMES):
        t = objective.times(torch.full((count,), (k + 0.5) / TIMES))  # type: ignore[attr-defined]
        for seed in range(seeds):
            noise = torch.stack([normal(seed, "power", k, i, shape) for i in range(count)])
            one = normal(seed, "power-shared", 0, 0, shape).expand(count, *shape)
            own[:, k, seed, 0], own[:, k, seed, 1] = losses(x, noise, t), losses(x, -noise, t)
            shared[:, k, seed] = losses(x, one, t)
    return Grid(own.double(), shared.double())


# ---------------------------------------------------------------------------------------------- ways to measure
def same_times(count: int, shares: list[float]) -> Tensor:
    """Indices into the dense grid (pictures, K): the same for all."""
    return torch.tensor([[min(int(share * TIMES), TIMES - 1) for share in shares]] * count)


def moving_times(count: int, size: int) -> Tensor:
    """One in each of `size` shares, moving on by the golden ratio."""
    places = (0.5 + torch.arange(count, dtype=torch.float64) * GOLDEN) % 1
    return ((torch.arange(size) + places[:, None]) / size * TIMES).long()


def cells(grid: Grid, times: Tensor, seed: int, pairs: bool, shared: bool) -> Tensor:
    """Losses (pictures, K) of one way to measure with one draw of noise."""
    rows = torch.arange(len(times))[:, None].expand_as(times)
    if shared:
        return grid.shared[rows, times, seed]
    found = grid.own[rows, times, seed]
    return found.mean(-1) if pairs else found[..., 0]


def power(before: Grid, after: Grid, times: Tensor, pairs: bool = False, shared: bool = False) -> Power:
    """How well this grid sees the change."""
    everything = [torch.cat([g.own.flatten(2), g.shared], 2) for g in (before, after)]
    truth = float((everything[1].mean() / everything[0].mean()).log())
    seeds = before.shared.shape[2]
    changes, spreads = [], []
    for seed in range(seeds):
        a, b = (cells(g, times, seed, pairs, shared).mean(1) for g in (before, after))
        ratio = b.mean() / a.mean()
        changes.append(float(ratio.log()) - truth)
        spreads.append(float(((b - ratio * a) / b.mean()).var()))  # of one picture, delta method
    errors, spread = torch.tensor(changes, dtype=torch.float64), sum(spreads) / seeds
    floor2 = _floor(before, after, times, pairs, shared, truth, spread)
    forwards, left = times.shape[1] * (1 + pairs), (SEEN / 2) ** 2 - floor2
    needed = None if left <= 0 else forwards * max(1, round(spread / left))
    return Power(forwards, 100 * float(errors.square().mean().sqrt()), 100 * floor2**0.5, needed)


def _floor(before: Grid, after: Grid, times: Tensor, pairs: bool, shared: bool, truth: float, spread: float) -> float:
    """Square of what more pictures do not lower: the error of times that all have in common, and the spread of noise that
    all have in common. Times that move from picture to picture leave none."""
    same = bool((times == times[0]).all())
    seeds = range(before.shared.shape[2])
    if not same:
        return 0.0
    rows = torch.arange(len(times))[:, None].expand_as(times)
    a, b = (torch.cat([g.own.flatten(2), g.shared], 2)[rows, times].mean() for g in (before, after))
    bias = (float((b / a).log()) - truth) ** 2
    if not shared:
        return bias
    pairs_of = [tuple(cells(g, times, s, pairs, shared).mean(1) for g in (before, after)) for s in seeds]
    changes = torch.tensor([float((b.mean() / a.mean()).log()) for a, b in pairs_of], dtype=torch.float64)
    return bias + max(0.0, float(changes.var()))


def ways(count: int) -> dict[str, tuple[Tensor, bool, bool]]:
    """Name → times, pairs, shared noise."""
    return {
        "kohya: 4 fixed times": (same_times(count, [0.2, 0.4, 0.6, 0.8]), False, False),
        "SimpleTuner: 28 of the scheduler": (same_times(count, [(k + 0.5) / 28 for k in range(28)]), False, True),
        "8 fixed times (adapt 0.1)": (same_times(count, [(k + 0.5) / 8 for k in range(8)]), False, False),
        "adapt: 4 moving": (moving_times(count, 4), False, False),
        "adapt: 8 moving (default)": (moving_times(count, 8), False, False),
        "adapt: 8 moving, pairs": (moving_times(count, 8), True, False),
        "adapt: 16 moving": (moving_times(count, 16), False, False),
    }


# ---------------------------------------------------------------------------------------------- on icons
def snapshots(run: Path, steps: list[int], x: Tensor, captions: list[str], seeds: int) -> list[Grid]:
    """The dense grid of each snapshot."""
    backbone, found = adapt.Backbone.load("icons"), []
    objective, condition = backbone.objective(), backbone.condition(captions)
    facts = Adapter.load(run / "adapter").facts

    @torch.no_grad()
    def losses(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        prediction = backbone.predict(objective.noised(x, noise, t), t, condition)
        return objective.losses(prediction, objective.target(x, noise, t), t)

    for step in steps:
        weights = read_lora(run / "snapshots" / f"step-{step:06d}.safetensors")
        with Adapter(LoraWeights(weights.modules), facts, "snapshot").apply(backbone):
            found.append(dense(losses, x, objective, seeds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run on icons")
    parser.add_argument("--steps", type=int, nargs=2, required=True, help="two of its snapshots")
    parser.add_argument("--pictures", type=Path, default=DATA, help="pictures that were not trained on")
    parser.add_argument("--seeds", type=int, default=4, help="draws of noise a cell")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    words = parser.parse_args()
    pictures = find(words.pictures).pictures
    backbone = adapt.Backbone.load("icons")
    x = torch.cat([backbone.encode_media(pixels(fit(decode(p.read()), 64, 64))[None])[0] for p in pictures])
    before, after = snapshots(words.run, words.steps, x, [p.captions[0] for p in pictures], words.seeds)
    change = 100 * float((after.own.mean() / before.own.mean()).log())
    print(f"step {words.steps[0]} to {words.steps[1]}, {len(x)} pictures: the loss changes by {change:+.2f} %")
    results = {name: power(before, after, *way) for name, way in ways(len(x)).items()}
    print(f"{'':34}{'forwards a picture':>20}{'error %':>10}{'floor %':>10}{'needed':>9}")
    for name, found in results.items():
        needed = "never" if found.needed is None else found.needed
        print(f"{name:34}{found.forwards:20}{found.error:10.3f}{found.floor:10.3f}{needed:>9}")
    if words.json:
        told = {"change": change, "pictures": len(x), "ways": {name: asdict(found) for name, found in results.items()}}
        words.json.write_text(json.dumps(told, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
