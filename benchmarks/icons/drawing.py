"""Drawings of a pipeline folder, by plain diffusers, as anyone would make them; and what one of them costs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from adapt.quiet import quiet_libraries

BUNDLED = Path(__file__).parents[2] / "adapt" / "bundled" / "icons"
STEPS, GUIDANCE_SCALE, BATCH = 20, 3.0, 20

ALONE = """
import json, resource, sys, time
import torch
from diffusers import StableDiffusionPipeline
folder, threads, steps, scale, runs = sys.argv[1], *map(float, sys.argv[2:])
torch.set_num_threads(int(threads))
pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
pipeline.set_progress_bar_config(disable=True)
seconds = []
for seed in range(int(runs) + 1):
    started = time.perf_counter()
    random = torch.Generator().manual_seed(seed)
    pipeline("penguin", num_inference_steps=int(steps), guidance_scale=scale, generator=random)
    seconds.append(time.perf_counter() - started)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": seconds[1:], "peak": peak}))
"""


def load(folder: Path, adapter: Path | None = None) -> StableDiffusionPipeline:
    """The pipeline in eval mode, without a progress bar; `adapter`: a folder or file for `load_lora_weights`."""
    with quiet_libraries():
        pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
        if adapter:
            pipeline.load_lora_weights(adapter)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: StableDiffusionPipeline, captions: Sequence[str], seeds: Sequence[int], told: str = "") -> Tensor:
    """uint8 (N, 3, H, W): the i-th from the noise of the i-th seed, whatever else is drawn beside it."""
    drawn = list[Tensor]()
    for first in range(0, len(captions), BATCH):
        chunk = slice(first, first + BATCH)
        random = [torch.Generator().manual_seed(seed) for seed in seeds[chunk]]
        options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE_SCALE, "output_type": "pt"}
        images = pipeline(list(captions[chunk]), generator=random, **options).images
        drawn.append((images.float().clamp(0, 1) * 255).round().byte().cpu())
        print(f"\r{told} {min(first + BATCH, len(captions))} of {len(captions)}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 60, end="\r", file=sys.stderr, flush=True)
    return torch.cat(drawn)


def alone(folder: Path, threads: int, runs: int = 3) -> tuple[list[float], float]:
    """Seconds of each of `runs` pictures, drawn one by one in a process of its own, and its peak memory in MB.

    One unmeasured picture comes first.
    """
    words = [str(folder), *map(str, (threads, STEPS, GUIDANCE_SCALE, runs))]
    done = subprocess.run([sys.executable, "-c", ALONE, *words], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    return told["seconds"], told["peak"] / 1e6


def digest(folder: Path) -> str:
    """Of a pipeline folder's weights and configurations: which pipeline figures belong to."""
    total = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.suffix in (".safetensors", ".json") and f.is_file()):
        total.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return total.hexdigest()[:16]


def megabytes(folder: Path) -> tuple[float, float]:
    """Of all files together and of the largest one."""
    sizes = [file.stat().st_size / 1e6 for file in folder.rglob("*") if file.is_file()]
    return sum(sizes), max(sizes)
