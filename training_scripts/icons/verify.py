"""Measures a pipeline folder and draws a grid of pictures.

python verify.py PIPELINE DATA --captions 200 --guidance 1 2 3 5 --grid icons.png

Retrieval: the share of trained captions whose drawing lies nearest to its own training picture among all of them
(16 × 16 px, Euclidean). It says that the model knows its nouns; it says nothing about nouns it never saw.
"""

import argparse
from pathlib import Path

import pictures
import torch
import torch.nn.functional as F
from autoencoder import SETS, UNSEEN, psnr
from diffusers import StableDiffusionPipeline
from PIL import Image

NOUNS = (
    "red apple, cherries, lemon, pizza, doughnut, french fries, mushroom, cactus, sunflower, butterfly, tropical fish, "
    "penguin, fox, panda, house, volcano, rainbow, rocket, sailboat, locomotive, guitar, camera, teddy bear, umbrella"
)


def draw(pipeline: StableDiffusionPipeline, captions: list[str], guidance_scale: float, steps: int) -> torch.Tensor:
    """Pictures (N, 3, 64, 64) in [-1, 1]; the i-th starts from the noise of seed i."""
    drawn = []
    for first in range(0, len(captions), 25):
        chunk = captions[first : first + 25]
        seeds = [torch.Generator().manual_seed(first + i) for i in range(len(chunk))]
        options = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "output_type": "pt"}
        drawn.append(pipeline(chunk, generator=seeds, **options).images * 2 - 1)
        print(f"\rdrawing {first + len(chunk)} of {len(captions)}", end="", flush=True)
    print("\r" + " " * 40, end="\r")
    return torch.cat(drawn)


def ranks(drawn: torch.Tensor, own: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """For each drawing, how many candidates lie nearer than its own, the `own`-th: shape (N,)."""
    small = [F.avg_pool2d(x, x.shape[-1] // 16).flatten(1) for x in (drawn, candidates)]
    distances = torch.cdist(*small)
    return (distances < distances.gather(1, own[:, None])).sum(1)


def white_border(drawn: torch.Tensor) -> torch.Tensor:
    """Whether the two outermost pixels are, on average, almost white (> 0.9 of [-1, 1]): shape (N,)."""
    inner = torch.zeros(drawn.shape[-2:], dtype=torch.bool)
    inner[2:-2, 2:-2] = True
    return drawn[..., ~inner].mean((1, 2)) > 0.9


def retrieval(pipeline: StableDiffusionPipeline, args: argparse.Namespace) -> None:
    """Prints one line a guidance scale."""
    captions, learned = pictures.learned(args.data, args.set)
    candidates = pictures.scaled(learned)
    own = torch.randperm(len(captions), generator=torch.Generator().manual_seed(7))[: args.captions]
    for scale in args.guidance:
        drawn = draw(pipeline, [captions[i] for i in own], scale, args.steps)
        rank = ranks(drawn, own, candidates)
        first, five = (100 * (rank < k).float().mean().item() for k in (1, 5))
        border = 100 * white_border(drawn).float().mean().item()
        shares = f"top 1 {first:.1f} %, top 5 {five:.1f} %, white border {border:.1f} %"
        print(f"guidance {scale:g}: {shares} ({len(own)} captions, {len(candidates)} candidates)", flush=True)


def save_grid(pipeline: StableDiffusionPipeline, file: Path, steps: int) -> None:
    """NOUNS at guidance 3, six a row, twice enlarged, in 256 dithered colours to keep the file small."""
    page = pictures.grid(draw(pipeline, NOUNS.split(", "), 3.0, steps), columns=6)
    page = page.quantize(palette=page.quantize(256, kmeans=3), dither=Image.Dither.FLOYDSTEINBERG)
    page.resize((page.width * 2, page.height * 2), Image.Resampling.NEAREST).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path, help="folder that assemble.py wrote")
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("--set", default="noto", help="the icon set that was learned")
    parser.add_argument("--captions", type=int, default=200, help="0: no retrieval")
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--grid", type=Path, help="PNG file to draw")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline = StableDiffusionPipeline.from_pretrained(args.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    for sets, every in ((SETS, 40), ([UNSEEN], 50)):
        loss = psnr(pipeline.vae, pictures.load(args.data, sets)[::every])
        print(f"autoencoder: {loss:.1f} dB on {' + '.join(sets)}", flush=True)
    if args.grid:
        save_grid(pipeline, args.grid, args.steps)
    if args.captions:
        retrieval(pipeline, args)


if __name__ == "__main__":
    main()
