"""Trains the denoiser on the latents of one icon set and MiniLM's states of the icons' names.

python denoiser.py DATA VAE OUT --seconds 5700

VAE is the `vae/` folder of the last autoencoder stage. OUT gets `unet/`, `vae/` (with its scaling factor) and
`scheduler/`, which `assemble.py` takes, beside a cache, the log and the state to go on from.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import minilm
import pictures
import torch
import torch.nn.functional as F
from autoencoder import encode
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from loop import Run, learning_rate
from safetensors.torch import load_file, save_file

CHANNELS = (96, 192)
CAPTION_DROPOUT = 0.1
PEAK = 8e-4


def build() -> UNet2DConditionModel:
    """10 M parameters on 8 × 8 × 8 latents; heads of 32 channels, cross-attention at both levels."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=384,
        attention_head_dim=tuple(c // 32 for c in CHANNELS),  # diffusers reads this as the number of heads
        norm_num_groups=32,
    )


def build_scheduler() -> DDIMScheduler:
    """v-prediction down to zero signal: backgrounds become really white (Lin et al. 2023, arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def cache(data: Path, name: str, vae: AutoencoderKL, file: Path) -> dict[str, torch.Tensor]:
    """`latents` (N, 8, 8, 8) of unit deviation, `states` (N + 1, 16, 384) with the empty caption last, `factor` ()."""
    if not file.exists():
        captions, drawn = pictures.learned(data, name)
        z = encode(vae, drawn)
        factor = 1 / z.std()
        states = minilm.encode(*minilm.load(), [*captions, ""])
        save_file({"latents": z * factor, "states": states, "factor": factor}, file)
    return load_file(file)


def times(batch: int) -> torch.Tensor:
    """Time steps (B,): more of the noisy half, where the drawing is decided, and pure noise now and then."""
    t = torch.sigmoid(torch.randn(batch) * 1.2 + 0.6)
    t = torch.where(torch.rand(batch) < 0.15, torch.rand(batch), t)
    t = (t * 1000).long().clamp(0, 999)
    return torch.where(torch.rand(batch) < 0.04, 999, t)


def epochs(count: int, batch: int) -> Iterator[torch.Tensor]:
    """Row numbers (B,): every row once an epoch, in a new order each time."""
    batch = min(batch, count)
    while True:
        order = torch.randperm(count)
        yield from order[: count - count % batch].split(batch)


def velocity_loss(
    unet: UNet2DConditionModel, x: torch.Tensor, states: torch.Tensor, signal: torch.Tensor
) -> torch.Tensor:
    """Squared error of v = √ᾱ·noise − √(1−ᾱ)·x at random times; `signal` is ᾱ by time step."""
    t = times(len(x))
    a = signal[t].sqrt()[:, None, None, None]
    b = (1 - signal[t]).clamp(min=0).sqrt()[:, None, None, None]
    noise = torch.randn_like(x)
    x_t = (a * x + b * noise).contiguous(memory_format=torch.channels_last)
    return F.mse_loss(unet(x_t, t, states).sample, a * noise - b * x)


def train(args: argparse.Namespace, cached: dict[str, torch.Tensor], scheduler: DDIMScheduler) -> UNet2DConditionModel:
    """Returns the averaged denoiser."""
    unet = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(unet.parameters(), PEAK, betas=(0.9, 0.99), weight_decay=0.01)
    run = Run(args.out, unet, optimizer, batch=args.batch, seconds=args.seconds, samples=args.samples, decay=0.998)
    latents, states = cached["latents"], cached["states"]
    signal = scheduler.alphas_cumprod.float()
    rows = epochs(len(latents), args.batch)
    for spent in run.steps():
        i = next(rows)
        dropped = (torch.rand(len(i)) < CAPTION_DROPOUT)[:, None, None]
        loss = velocity_loss(unet, latents[i], torch.where(dropped, states[-1], states[i]), signal)
        run.update(loss, learning_rate(run.step, spent, peak=PEAK, warmup=200, flat=0.5, floor=0.03), clip=1.0)
    run.finish()
    return unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("vae", type=Path, help="vae/ folder that autoencoder.py wrote")
    parser.add_argument("out", type=Path, help="folder for unet/, vae/, scheduler/, cache, log and state")
    parser.add_argument("--set", default="noto", help="the icon set to learn")
    parser.add_argument("--seconds", type=float, default=5700)
    parser.add_argument("--samples", type=int, help="stop after so many latents, if sooner")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    vae, scheduler = AutoencoderKL.from_pretrained(args.vae), build_scheduler()
    cached = cache(args.data, args.set, vae, args.out / "cache.safetensors")
    vae.register_to_config(scaling_factor=round(cached["factor"].item(), 6))
    vae.save_pretrained(args.out / "vae")
    scheduler.save_pretrained(args.out / "scheduler")
    train(args, cached, scheduler).save_pretrained(args.out / "unet")


if __name__ == "__main__":
    main()
