"""Trains the autoencoder: 64 × 64 px -> 8 × 8 × 8 latents, 1.65 M parameters.

python autoencoder.py DATA OUT --seconds 1500
python autoencoder.py DATA OUT2 --decoder-of OUT --seconds 480

The second form keeps the encoder, so latents stay what they are, and trains the decoder on outlined pictures as well.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pictures
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from loop import Run, learning_rate

SETS = ["noto", "fluent-emoji-flat"]
OUTLINED = [f"{name}-outlined" for name in SETS]
UNSEEN = "openmoji"
BATCH = 12
LATENT_NOISE = 0.1
"""Standard deviation added to the decoder's input: a denoiser's latents are never exact."""


@dataclass(frozen=True)
class Stage:
    """How one of the two stages is optimised: learning rate, warm-up steps, weight decay, largest gradient norm."""

    peak: float
    warmup: int
    weight_decay: float
    clip: float


WHOLE = Stage(peak=2e-3, warmup=100, weight_decay=1e-4, clip=1.0)
DECODER = Stage(peak=1e-3, warmup=50, weight_decay=0.01, clip=math.inf)


def build() -> AutoencoderKL:
    """Few channels at full resolution, where most of the cost is; no attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels, down and across."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def reconstruction(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """L1 + L2 + half the L1 of the edges, of pictures (B, 3, H, W)."""
    sharpness = sum(F.l1_loss(a, b) for a, b in zip(edges(y), edges(x), strict=True))
    return F.l1_loss(y, x) + F.mse_loss(y, x) + 0.5 * sharpness


def autoencoder_losses(vae: AutoencoderKL, data: torch.Tensor) -> Iterator[torch.Tensor]:
    """The loss of one random batch after another: reconstruction, its colours at a quarter, and a little KL."""
    while True:
        x = pictures.scaled(data[torch.randint(len(data), (BATCH,))])
        if torch.rand(()) < 0.5:
            x = x.flip(-1)
        posterior = vae.encode(x.to(memory_format=torch.channels_last)).latent_dist
        y = vae.decode(posterior.sample()).sample
        colours = F.l1_loss(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4))
        kl = posterior.kl().mean() / posterior.mean[0].numel()  # per latent number
        yield reconstruction(y, x) + 0.5 * colours + 1e-4 * kl


def decoder_losses(vae: AutoencoderKL, data: torch.Tensor, z: torch.Tensor) -> Iterator[torch.Tensor]:
    """The same for the decoder alone, on the frozen encoder's latents `z`: reconstruction only."""
    while True:
        i = torch.randint(len(data), (BATCH,))
        noisy = z[i] + LATENT_NOISE * torch.randn_like(z[i])
        y = vae.decode(noisy.contiguous(memory_format=torch.channels_last)).sample
        yield reconstruction(y, pictures.scaled(data[i]))


@torch.no_grad()
def encode(vae: AutoencoderKL, data: torch.Tensor) -> torch.Tensor:
    """uint8 pictures -> the posterior's mode (N, 8, 8, 8), unscaled."""
    return torch.cat([vae.encode(pictures.scaled(x)).latent_dist.mode() for x in data.split(64)])


@torch.no_grad()
def psnr(vae: AutoencoderKL, data: torch.Tensor) -> float:
    """Mean peak signal-to-noise ratio of uint8 pictures after encoding and decoding, in dB."""
    y = torch.cat([vae.decode(z).sample.clamp(-1, 1) for z in encode(vae, data).split(64)])
    return (10 * torch.log10(4 / (y - pictures.scaled(data)).square().mean((1, 2, 3)))).mean().item()


def train(args: argparse.Namespace) -> AutoencoderKL:
    """Runs one of the two stages and returns the averaged autoencoder."""
    clean = pictures.load(args.data, SETS)
    if args.decoder_of:
        stage, vae = DECODER, AutoencoderKL.from_pretrained(args.decoder_of / "vae")
        vae.encoder.requires_grad_(False), vae.quant_conv.requires_grad_(False)
        # The outlined ones twice: about as many as the clean ones.
        data = torch.cat([clean, pictures.load(args.data, OUTLINED * 2)])
        losses = decoder_losses(vae, data, encode(vae, data))
    else:
        stage, vae = WHOLE, build()
        losses = autoencoder_losses(vae, clean)
    vae.to(memory_format=torch.channels_last).train()
    trained = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, stage.peak, betas=(0.9, 0.99), weight_decay=stage.weight_decay)
    run = Run(args.out, vae, optimizer, batch=BATCH, seconds=args.seconds, samples=args.samples, decay=0.995)
    for spent in run.steps():
        rate = learning_rate(run.step, spent, peak=stage.peak, warmup=stage.warmup, flat=0, floor=0.02)
        run.update(next(losses), rate, stage.clip)
    run.finish()
    return vae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("out", type=Path, help="folder for vae/, log and state")
    parser.add_argument("--decoder-of", type=Path, metavar="OUT", help="train only the decoder of this earlier run")
    parser.add_argument("--seconds", type=float, default=1500)
    parser.add_argument("--samples", type=int, help="stop after so many pictures, if sooner")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    vae = train(args)
    vae.save_pretrained(args.out / "vae")
    for sets, every in ((SETS, 40), ([UNSEEN], 50)):
        print(f"PSNR {psnr(vae, pictures.load(args.data, sets)[::every]):.1f} dB on {' + '.join(sets)}")


if __name__ == "__main__":
    main()
