"""How long a user waits for the first sign of life, and for the first picture.

    python benchmarks/start_up.py --runs 5 --json start_up.json

Every number is the wall-clock time of a new process, from its start to its end. `generate` draws one picture with the
bundled backbone; beside it, in the same round, a plain diffusers script draws the same picture. One unmeasured round comes
first, so that files are in the system's cache: "cold" means a new process, not a cold disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ICONS = Path(__file__).parents[1] / "adapt" / "bundled" / "icons"
TARGETS = {"help": 0.3, "generate": 15.0}
"""Seconds."""

DIFFUSERS = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], use_safetensors=True)
generator = torch.Generator().manual_seed(0)
picture = pipeline("penguin", num_inference_steps=20, guidance_scale=3.0, generator=generator).images[0]
picture.save(sys.argv[2])
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured, by name."""
    adapt = [sys.executable, "-m", "adapt"]
    drawing = ["--prompt", "penguin", "--steps", "20", "--guidance-scale", "3", "--seed", "0", "--device", "cpu"]
    return {
        "help": [*adapt, "--help"],
        "settings": [*adapt, "train", "--settings"],
        "generate": [*adapt, "generate", *drawing, "--output", str(folder / "adapt.png")],
        "diffusers": [sys.executable, "-c", DIFFUSERS, str(ICONS), str(folder / "diffusers.png")],
    }


def seconds(command: list[str]) -> float:
    """Wall-clock time of one process, which must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds of each command, `runs` rounds of all of them in turn, after one round that warms up."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(runs + 1):
            for kind, command in commands(folder).items():
                took = seconds(command)
                if number:
                    times.setdefault(kind, []).append(took)
        difference = largest_difference(folder / "adapt.png", folder / "diffusers.png")
    if difference > 1:
        raise SystemExit(f"the two pictures differ by {difference} of 255: this compares different work")
    return times


def largest_difference(one: Path, other: Path) -> int:
    """Of two pictures' values, in 0 … 255."""
    import numpy as np
    from PIL import Image

    a, b = (np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in (one, other))
    return int(abs(a - b).max())


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Lowest, median and highest seconds by command; ratios of medians; whether the targets are met."""
    rows = {
        kind: {"min": min(values), "median": statistics.median(values), "max": max(values), "target": TARGETS.get(kind)}
        for kind, values in times.items()
    }
    rounds = [a / b for a, b in zip(times["generate"], times["diffusers"], strict=True)]
    ratios = {"min": min(rounds), "median": statistics.median(rounds), "max": max(rounds)}
    machine = {"system": platform.system(), "cores": os.cpu_count(), "python": platform.python_version()}
    return {"runs": len(rounds), "machine": machine, "seconds": rows, "generate / diffusers": ratios}


def line(name: str, row: dict[str, Any], note: str) -> str:
    """One row of the table."""
    return f"{name:22}{row['min']:8.2f}{row['median']:8.2f}{row['max']:8.2f}   {note}".rstrip()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="measured rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    words = parser.parse_args()
    result = summary(measure(words.runs))
    print(f"{'':22}{'min':>8}{'median':>8}{'max':>8}   seconds, {result['runs']} runs")
    for kind, row in result["seconds"].items():
        target = row["target"]
        verdict = f"target {target:g}: {'met' if row['median'] <= target else 'missed'}" if target else ""
        print(line(kind, row, verdict))
    print(line("generate / diffusers", result["generate / diffusers"], "ratio, round by round"))
    if words.json:
        words.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
