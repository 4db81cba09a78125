"""Trains the denoiser on the latents of the icons and MiniLM's states of their captions.

python denoiser.py DATA VAE OUT --seconds 20000 [--start UNET]

VAE is the `vae/` folder of the autoencoder (a decoder that is trained on afterwards changes nothing here). OUT gets `unet/`,
`vae/` (with its scaling factor) and `scheduler/`, which `assemble.py` takes, beside a cache, the log and the state to go on
from. `--samples` and `--seconds` count over all sittings: the same command goes on.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import captions
import minilm
import numpy as np
import pictures
import torch
import torch.distributed as dist
import torch.nn.functional as F
from autoencoder import encode
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from iconify import CATEGORIES
from loop import Run, join, learning_rate
from presets import PRESETS, FloatAttention, Machine, build_denoiser, build_scheduler, machine
from safetensors.torch import load_file, save_file

CAPTION_DROPOUT = 0.1
PEAK = 8e-4
SHARES = {"plain": 0.50, "recoloured": 0.27, "outlined": 0.15, "mirrored": 0.08}
"""How often each kind of picture is learned."""


@dataclass(frozen=True)
class Learned:
    """What is learned: pictures in latents, captions in states, and which belongs to which.

    Attributes:
        latents: (N, C, h, w) of unit deviation.
        states: (M + 1, tokens, 384), fp16; the empty caption last.
        kinds: kind of each picture (N,).
        said: for each picture, (captions' numbers, their weights).
        factor: 1 / deviation of the raw latents.
    """

    latents: torch.Tensor
    states: torch.Tensor
    kinds: list[str]
    said: list[tuple[list[int], list[float]]]
    factor: float


def learned(drawn: pictures.Drawn, vae: AutoencoderKL, folder: Path) -> Learned:
    """Encodes everything once; later sittings find it in `folder`."""
    rows = drawn.where(lambda row: row.category in CATEGORIES)
    phrasings = [list(captions.phrasings(drawn.rows[i])) for i in rows]
    numbers = {text: k for k, text in enumerate(dict.fromkeys(text for row in phrasings for text, _ in row))}
    file = folder / "cache.safetensors"
    if not file.exists():
        save_file(_encoded(drawn.pictures(rows), vae, [*numbers, ""]), file)
    cached = load_file(file)
    said = [([numbers[text] for text, _ in row], [weight for _, weight in row]) for row in phrasings]
    return Learned(
        cached["latents"], cached["states"], [drawn.rows[i].kind for i in rows], said, cached["factor"].item()
    )


def _encoded(drawn: torch.Tensor, vae: AutoencoderKL, texts: list[str]) -> dict[str, torch.Tensor]:
    print(f"encoding {len(drawn)} pictures and {len(texts)} captions", flush=True)
    z = encode(vae, drawn)
    factor = 1 / z.std()
    states = minilm.encode(*minilm.load(), texts).half()
    return {"latents": z * factor, "states": states, "factor": factor}


def times(batch: int) -> torch.Tensor:
    """Time steps (B,): more of the noisy half, where the drawing is decided, and pure noise now and then."""
    t = torch.sigmoid(torch.randn(batch) * 1.2 + 0.6)
    t = torch.where(torch.rand(batch) < 0.15, torch.rand(batch), t)
    t = (t * 1000).long().clamp(0, 999)
    return torch.where(torch.rand(batch) < 0.04, 999, t)


def draws(data: Learned, batch: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Latents (B, C, h, w) and states (B, tokens, 384): kinds by SHARES, every picture of a kind equally often."""
    lot = np.random.default_rng(seed)
    members = {kind: [i for i, k in enumerate(data.kinds) if k == kind] for kind in SHARES}
    shares = np.array([SHARES[kind] * bool(members[kind]) for kind in SHARES])
    while True:
        kinds = lot.choice(list(SHARES), batch, p=shares / shares.sum())
        rows = [members[kind][lot.integers(len(members[kind]))] for kind in kinds]
        texts = [lot.choice(said, p=np.array(weights) / sum(weights)) for said, weights in (data.said[i] for i in rows)]
        dropped = lot.random(batch) < CAPTION_DROPOUT
        yield data.latents[rows], data.states[np.where(dropped, len(data.states) - 1, texts)].float()


def velocity_loss(
    unet: UNet2DConditionModel, x: torch.Tensor, states: torch.Tensor, t: torch.Tensor, signal: torch.Tensor
) -> torch.Tensor:
    """Squared error of v = √ᾱ·noise − √(1−ᾱ)·x at times t; `signal` is ᾱ at them (B,)."""
    a = signal.sqrt()[:, None, None, None]
    b = (1 - signal).clamp(min=0).sqrt()[:, None, None, None]
    noise = torch.randn_like(x)
    x_t = (a * x + b * noise).contiguous(memory_format=torch.channels_last)
    return F.mse_loss(unet(x_t, t, states).sample.float(), a * noise - b * x)


@torch.no_grad()
def begin_with(unet: UNet2DConditionModel, other: UNet2DConditionModel) -> None:
    """Copies another denoiser's weights; where latents have more channels now, the new ones keep their random start."""
    before = other.state_dict()
    for name, value in unet.state_dict().items():
        value[tuple(slice(n) for n in before[name].shape)] = before[name]


def train(args: argparse.Namespace, data: Learned, scheduler: DDIMScheduler, on: Machine) -> UNet2DConditionModel:
    """Returns the averaged denoiser."""
    preset = PRESETS[args.preset]
    unet = build_denoiser(preset)
    if args.start:
        begin_with(unet, UNet2DConditionModel.from_pretrained(args.start))
    unet.to(device=on.device, memory_format=torch.channels_last).train()
    if on.device.type == "cpu":
        unet.set_attn_processor(FloatAttention())
    step = torch.compile(velocity_loss) if on.compiled else velocity_loss
    optimizer = torch.optim.AdamW(unet.parameters(), PEAK, betas=(0.9, 0.99), weight_decay=0.01)
    batch = args.batch or preset.latent_batch
    run = Run(args.out, unet, optimizer, batch=batch, seconds=args.seconds, samples=args.samples, decay=0.9995)
    signal = scheduler.alphas_cumprod.float()
    rows = draws(data, batch, seed=run.step * run.processes + run.rank)
    for spent in run.steps():
        x, states = next(rows)
        t = times(batch)
        with on.mixed:
            loss = step(unet, *(value.to(on.device) for value in (x, states, t, signal[t])))
        run.update(loss, learning_rate(run.step, spent, peak=PEAK, warmup=200, flat=0.5, floor=0.03), clip=1.0)
    run.finish()
    return unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("vae", type=Path, help="vae/ folder that autoencoder.py wrote")
    parser.add_argument("out", type=Path, help="folder for unet/, vae/, scheduler/, cache, log and state")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--start", type=Path, metavar="UNET", help="begin with this unet/ folder, not random weights")
    parser.add_argument("--seconds", type=float, default=20_000)
    parser.add_argument("--samples", type=int, help="stop after so many latents, if sooner")
    parser.add_argument("--batch", type=int, help="latents a step; the preset's if not given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile: faster, a minute or two to start")
    args = parser.parse_args()
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    vae, scheduler = AutoencoderKL.from_pretrained(args.vae), build_scheduler()
    on = machine(args.threads, args.compile)
    rank, processes = join()
    if rank > 0:
        dist.barrier()  # the first process encodes
    data = learned(pictures.read(args.data), vae.to(on.device), args.out)
    if rank == 0 and processes > 1:
        dist.barrier()
    vae.register_to_config(scaling_factor=round(data.factor, 6))
    if rank == 0:
        vae.save_pretrained(args.out / "vae")
        scheduler.save_pretrained(args.out / "scheduler")
    unet = train(args, data, scheduler, on)
    if join()[0] > 0:
        return
    unet.save_pretrained(args.out / "unet")
    (args.out / "learned.json").write_text(json.dumps({"pictures": len(data.kinds), "captions": len(data.states) - 1}))


if __name__ == "__main__":
    main()
