"""Does adapting teach anything? A small DDPM (pixel space) and a small DiT are trained on the spot and adapted by LoRA.

    python benchmarks/families_signal.py                  # a few minutes on two cores
    python benchmarks/families_signal.py --steps 40       # to see that it works

The bases learn discs and squares of random place and colour (DiT: which of the two, as a class); the adapters learn rings, which
neither has seen. Held-out pictures, times and noise are the same before and after, so that the gain is paired; the script exits
with 1 unless every gain, over the base and over the control, is more than three standard errors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from adapt.backbones import Backbone
from adapt.backbones.ddpm import DDPM
from adapt.backbones.dit import DiT
from adapt.data.plan import Plan
from adapt.lora import inject
from adapt.sampling.noise import generator_of
from conditioning import Condition

SIDE, HELD_OUT = 16, 512


def shapes(step: int, rows: int, kind: int | None) -> tuple[Tensor, list[str]]:
    """Pictures (rows, 3, 16, 16) in [-1, 1] and their classes: discs, squares, or (kind 2) rings."""
    g = generator_of(step)
    x, y, size = (torch.rand(rows, 1, 1, generator=g) * s + low for s, low in ((8, 4), (8, 4), (2, 3)))
    down, across = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    dx, dy = across - x, down - y
    disc, square = (dx**2 + dy**2).sqrt() < size, torch.maximum(dx.abs(), dy.abs()) < size
    ring = disc & ((dx**2 + dy**2).sqrt() > size - 1.5)
    chosen = torch.randint(0, 2, (rows,), generator=g) if kind is None else torch.full((rows,), kind)
    inside = torch.stack([disc, square, ring], 1)[torch.arange(rows), chosen]  # (rows, 16, 16)
    colour = torch.rand(rows, 3, 1, 1, generator=g) * 1.5 - 0.5
    return torch.where(inside[:, None], colour, torch.tensor(-1.0)), [str(int(k)) for k in chosen]


class PixelDiT(DiT):
    """DiT without an autoencoder: its latents are the pixels."""

    media_components = ()
    scale_factor, latent_channels = 1, 3


def ddpm() -> Backbone:
    """130 thousand parameters."""
    unet = diffusers.UNet2DModel(
        sample_size=SIDE, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return DDPM(diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()), "ddpm")


def dit() -> Backbone:
    """Four blocks of width 64, three classes, of which the base sees two."""
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=3, out_channels=3, num_layers=4, sample_size=SIDE,
        patch_size=2, num_embeds_ada_norm=3, norm_type="ada_norm_zero", norm_elementwise_affine=False,
        activation_fn="gelu-approximate", attention_bias=True,
    )  # fmt: skip
    pipeline = diffusers.DiTPipeline(transformer, None, diffusers.DDPMScheduler())
    return PixelDiT(pipeline, "dit")


def losses(backbone: Backbone, step: int, rows: int, kind: int | None) -> Tensor:
    """The objective's, one a picture (rows,), at times and noise that the Plan draws."""
    (x, labels), drawn = shapes(step, rows, kind), Plan(0, rows, rows).rows(step, range(rows))
    objective = backbone.objective()
    t, noise = objective.times(drawn.quantiles()), drawn.noise(x.shape[1:])
    condition = backbone.condition(labels) if isinstance(backbone, DiT) else Condition()
    prediction = backbone.predict(objective.noised(x, noise, t), t, condition)
    return objective.losses(prediction, objective.target(x, noise, t), t)


def learn(backbone: Backbone, parameters: list[Tensor], steps: int, kind: int | None, rate: float) -> None:
    """Adam; every step has pictures of its own."""
    optimizer = torch.optim.Adam(parameters, rate)
    for step in range(steps):
        optimizer.zero_grad()
        losses(backbone, step, 32, kind).mean().backward()
        optimizer.step()


def adapted(backbone: Backbone, steps: int, kind: int | None) -> Tensor:
    """Losses on held-out rings (rows,) with an adapter that has learned pictures of this kind; it is taken off again."""
    injection = inject(backbone.denoiser, rank=8, alpha=8, dropout=0.0, targets=backbone.lora_targets, seed=0)
    learn(backbone, list(injection.parameters.values()), steps, kind, 2e-3)
    with torch.no_grad():
        found = losses(backbone, 10**6, HELD_OUT, 2)
    injection.remove()
    return found


def measured(backbone: Backbone, steps: int) -> dict[str, float]:
    """Trains the base, adapts it, and says how much lower the held-out loss on rings is.

    Than the base's, and than with an adapter of the same size that has learned more of what the base knows: mere further training
    does not count.
    """
    network = backbone.denoiser
    learn(backbone, list(network.requires_grad_(True).parameters()), steps, None, 2e-3)
    network.requires_grad_(False)
    with torch.no_grad():
        before = losses(backbone, 10**6, HELD_OUT, 2)
    after, control = adapted(backbone, steps // 2, 2), adapted(backbone, steps // 2, None)
    return {"base": float(before.mean()), "gain": float((before - after).mean()), "in_standard_errors": errors(before - after),
            "beyond_control_in_standard_errors": errors(control - after)}  # fmt: skip


def errors(gain: Tensor) -> float:
    """The mean in its standard errors."""
    return float(gain.mean() / (gain.std() / len(gain) ** 0.5))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="of training; half as many of adapting")
    parser.add_argument("--output", type=Path, default=None, help="where the numbers are written as JSON")
    words = parser.parse_args()
    found = {}
    for name, build in {"ddpm": ddpm, "dit": dit}.items():
        torch.manual_seed(0)
        found[name] = measured(build(), words.steps)
        print(name, *(f"{key} {value:.4f}" for key, value in found[name].items()))
    if words.output:
        words.output.write_text(json.dumps({"steps": words.steps, **found}, indent=1) + "\n")
    gains = [value for row in found.values() for key, value in row.items() if key.endswith("errors")]
    return 0 if min(gains) > 3 else 1


if __name__ == "__main__":
    raise SystemExit(main())
