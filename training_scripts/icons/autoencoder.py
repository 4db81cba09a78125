"""Trains the autoencoder: 64 × 64 px -> 12 × 8 × 8 latents, 1.65 M parameters (preset `cpu`).

python autoencoder.py DATA OUT --seconds 3000 [--start VAE] [--measure OPENMOJI]
python autoencoder.py DATA OUT2 --decoder-of OUT --seconds 3000

Everything that is drawn is learned, outlined and recoloured variants too, but for the names that are kept `unseen`.
The second form keeps the encoder, so latents stay what they are, and trains the decoder alone on inexact latents.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pictures
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from loop import Run, join, learning_rate
from presets import PRESETS, Machine, Preset, build_autoencoder, machine

LATENT_NOISE = 0.1
"""Standard deviation added to the decoder's input, of the latents' own: a denoiser's latents are never exact."""

KL = 1e-4
SHIFT = 3
"""Pixels a picture is moved at most, over white."""


@dataclass(frozen=True)
class Stage:
    """How one of the stages is optimised: learning rate, warm-up steps, weight decay, largest gradient norm."""

    peak: float
    warmup: int
    weight_decay: float
    clip: float


WHOLE = Stage(peak=1.5e-3, warmup=100, weight_decay=1e-4, clip=1.0)
CONTINUED = Stage(peak=6e-4, warmup=100, weight_decay=1e-4, clip=1.0)
DECODER = Stage(peak=1e-3, warmup=50, weight_decay=1e-4, clip=1.0)


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels, down and across."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def reconstruction(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """L1 + 2 L2 + half the L1 of the edges + half the L1 of the colours at a quarter, of pictures (B, 3, H, W)."""
    sharpness = sum(F.l1_loss(a, b) for a, b in zip(edges(y), edges(x), strict=True))
    colours = F.l1_loss(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4))
    return F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 0.5 * sharpness + 0.5 * colours


def varied(x: torch.Tensor) -> torch.Tensor:
    """Mirrored half the time, moved a little, its three colour planes exchanged one time in four."""
    if torch.rand(()) < 0.5:
        x = x.flip(-1)
    if torch.rand(()) < 0.25:
        x = x[:, torch.randperm(3)]
    down, across = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
    moved = F.pad(x, [SHIFT] * 4, value=255)
    return moved[..., down : down + x.shape[-2], across : across + x.shape[-1]]


SHARES = {"plain": 1.0, "recoloured": 0.7, "outlined": 1.7, "mirrored": 0.2}
"""How often a picture of each kind is learned: thin dark lines are what a small autoencoder loses first."""


def batches(data: torch.Tensor, kinds: list[str], batch: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Random pictures (batch, 3, H, W) in [-1, 1]."""
    weights = torch.tensor([SHARES[kind] for kind in kinds])
    while True:
        x = varied(data[torch.multinomial(weights, batch, replacement=True)])
        yield pictures.scaled(x.to(device)).contiguous(memory_format=torch.channels_last)


def autoencoder_loss(vae: AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    """Reconstruction and a little KL a latent number."""
    posterior = vae.encode(x).latent_dist
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return reconstruction(vae.decode(posterior.sample()).sample, x) + KL * kl


def decoder_loss(vae: AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    """Reconstruction from the frozen encoder's latents, made inexact by a random amount."""
    with torch.no_grad():
        z = vae.encode(x).latent_dist.mode()
        z = z + LATENT_NOISE * z.std() * torch.rand(len(z), 1, 1, 1, device=z.device) * torch.randn_like(z)
    return reconstruction(vae.decode(z).sample, x)


@torch.no_grad()
def encode(vae: AutoencoderKL, data: torch.Tensor) -> torch.Tensor:
    """uint8 pictures -> the posterior's mode (N, C, h, w), unscaled, on the CPU."""
    return torch.cat([vae.encode(pictures.scaled(x).to(vae.device)).latent_dist.mode().cpu() for x in data.split(64)])


@torch.no_grad()
def psnr(vae: AutoencoderKL, data: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each uint8 picture after encoding and decoding, in dB: shape (N,)."""
    y = torch.cat([vae.decode(z.to(vae.device)).sample.clamp(-1, 1).cpu() for z in encode(vae, data).split(64)])
    return 10 * torch.log10(4 / (y - pictures.scaled(data)).square().mean((1, 2, 3)))


@torch.no_grad()
def widened(vae: AutoencoderKL, preset: Preset) -> AutoencoderKL:
    """The same autoencoder with the preset's number of latent channels: old ones as they were, new ones from scratch."""
    old, new = vae.config.latent_channels, preset.latents
    if old == new:
        return vae
    wide = build_autoencoder(preset)
    for name, value in wide.state_dict().items():
        before = vae.state_dict()[name]
        if value.shape == before.shape:
            value.copy_(before)
        elif name.startswith("quant_conv"):  # means come first, then log variances
            for now, then in ((value[:new], before[:old]), (value[new:], before[old:])):
                now[tuple(slice(n) for n in then.shape)] = then
        else:
            value[tuple(slice(n) for n in before.shape)] = before
    return wide


def start(args: argparse.Namespace) -> tuple[Stage, AutoencoderKL]:
    """The stage and the weights that it begins with."""
    if args.decoder_of:
        vae = AutoencoderKL.from_pretrained(args.decoder_of / "vae")
        vae.encoder.requires_grad_(False), vae.quant_conv.requires_grad_(False)
        return DECODER, vae
    if args.start:
        return CONTINUED, widened(AutoencoderKL.from_pretrained(args.start), PRESETS[args.preset])
    return WHOLE, build_autoencoder(PRESETS[args.preset])


def train(args: argparse.Namespace, drawn: pictures.Drawn, on: Machine) -> AutoencoderKL:
    """Runs one of the stages and returns the averaged autoencoder."""
    stage, vae = start(args)
    vae.to(device=on.device, memory_format=torch.channels_last).train()
    loss = decoder_loss if args.decoder_of else autoencoder_loss
    step = torch.compile(loss) if on.compiled else loss
    trained = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, stage.peak, betas=(0.9, 0.99), weight_decay=stage.weight_decay)
    batch = PRESETS[args.preset].picture_batch
    run = Run(args.out, vae, optimizer, batch=batch, seconds=args.seconds, samples=args.samples, decay=0.997)
    seen = drawn.where(lambda row: not row.unseen)
    data = batches(drawn.pictures(seen), [drawn.rows[i].kind for i in seen], batch, on.device)
    for spent in run.steps():
        rate = learning_rate(run.step, spent, peak=stage.peak, warmup=stage.warmup, flat=0.3, floor=0.02)
        with on.mixed:
            value = step(vae, next(data))
        run.update(value, rate, stage.clip)
    run.finish()
    return vae


def report(vae: AutoencoderKL, drawn: pictures.Drawn, name: str) -> None:
    """Prints PSNR with its standard error over the pictures as drawn that the autoencoder never saw."""
    chosen = drawn.where(lambda row: row.kind == "plain" and row.unseen)
    values = psnr(vae, drawn.pictures(chosen))
    error = values.std() / len(values) ** 0.5
    print(f"PSNR {values.mean():.2f} ± {error:.2f} dB on {len(values)} unseen pictures of {name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("out", type=Path, help="folder for vae/, log and state")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument(
        "--start", type=Path, metavar="VAE", help="begin with this vae/ folder instead of random weights"
    )
    parser.add_argument("--decoder-of", type=Path, metavar="OUT", help="train only the decoder of this earlier run")
    parser.add_argument("--measure", type=Path, help="a folder of prepare.py --plain to measure on as well")
    parser.add_argument("--seconds", type=float, default=3000)
    parser.add_argument("--samples", type=int, help="stop after so many pictures, if sooner")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: about a quarter faster, a minute to start"
    )
    args = parser.parse_args()
    torch.manual_seed(0)
    drawn = pictures.read(args.data)
    vae = train(args, drawn, machine(args.threads, args.compile))
    if join()[0] > 0:
        return
    vae.save_pretrained(args.out / "vae")
    report(vae, drawn, "the training sets")
    if args.measure:
        report(vae, pictures.read(args.measure), "sets never trained on")


if __name__ == "__main__":
    main()
