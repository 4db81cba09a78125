"""What a set of pictures costs as it grows: judging, start-up, memory, and the data's share of a step.

    python benchmarks/data_scale.py --sizes 100 1000 10000 100000 --json data_scale.json

For each size tiny pictures of several aspects are made in a temporary folder (the same ones every time), and a new process
does what a run does before and between its steps, with an encoder that only averages pixels:

    judge        find, decode and judge everything; a second time with what the first left in the cache
    encode       latents and captions into an empty cache; a second time out of it
    order        the Plan's first step, and one far away as when a run is resumed
    step         the rows of one batch: which pictures, which variant, their latents from the cache

Times are the processor's, not the clock's: what else the machine does counts less. Linear means an exponent of about 1:
time grows as the number of pictures to that power. Nothing is held in memory, so every step reads the disk.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, STEPS = 8, 300
ASPECTS = ((24, 24), (30, 20), (20, 30), (36, 20), (22, 24))
STAGES = ("judge", "judge again", "encode", "encode again", "order", "far away", "step")
EXPONENT, FLAT, MEMORY = 1.15, 1.5, 4096
"""Targets: of start-up and judging; of the step from the smallest set to the largest; bytes that a picture adds."""


def make(folder: Path, count: int) -> None:
    """Pictures of 20 to 36 px with a caption each; a hundredth are near duplicates of the one before."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (24, 24, 3), np.uint8)
    with (folder / "metadata.jsonl").open("w") as table:
        for number in range(count):
            width, height = ASPECTS[number % len(ASPECTS)]
            if number % 100 != 7:
                pixels = random.integers(0, 256, (height, width, 3), np.uint8)
            name = f"{number // 1000:03d}/{number:06d}.png"
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).resize((width, height)).save(folder / name, compress_level=1)
            table.write(json.dumps({"file_name": name, "text": f"picture {number}"}) + "\n")


class Averages:
    """An encoder that costs next to nothing: the mean of 4 x 4 pixels, and the letters of a caption."""

    def encode_media(self, pixels: Any) -> tuple[Any, Any]:
        import torch

        mean = torch.nn.functional.avg_pool2d(pixels, 4)
        return mean, torch.zeros_like(mean)

    def encode_text(self, captions: Any) -> dict[str, Any]:
        import torch

        return {
            "tokens": torch.tensor([[float(ord(letter)) for letter in c[:8].ljust(8)] for c in captions])[..., None]
        }

    def content_key(self, component: str) -> str:
        return component


def worker(folder: Path) -> dict[str, Any]:
    """Measures one set, in this process."""
    import psutil
    import torch

    from adapt.api.gather import gather
    from adapt.api.sizes import shelves
    from adapt.config import TrainSettings
    from adapt.data import EncodedPictures, TensorCache, default_folder
    from adapt.data.plan import Plan

    torch.set_num_threads(1)
    settings = TrainSettings(buckets=True, resolution=24, bucket_step=4, flip=0.5, batch_size=BATCH, validation=None)
    seconds: dict[str, float] = {}
    process = psutil.Process()

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        seconds[stage] = time.process_time() - started
        return result

    def encoded() -> Any:
        examples = EncodedPictures(
            pictures.train, Averages(), shelves(settings, 4), TensorCache(default_folder()), memory=0
        )
        examples.prepare()
        return examples

    before = process.memory_info().rss
    timed("judge", lambda: gather(folder, settings))
    pictures = timed("judge again", lambda: gather(folder, settings))
    judged = process.memory_info().rss
    timed("encode", encoded)
    examples = timed("encode again", encoded)
    held = process.memory_info().rss
    plan = Plan(0, len(examples), BATCH, examples.buckets()[1], [p.repeats for p in examples.pictures])
    timed("order", lambda: plan.rows(0, range(BATCH)).items())
    timed("far away", lambda: plan.rows(10**7, range(BATCH)).items())
    plan.rows(0, range(BATCH)).items()

    def step(number: int) -> float:
        started = time.process_time()
        rows = plan.rows(number, range(BATCH))
        torch.stack([examples.latents(i, flip)[0] for i, flip in zip(rows.items(), rows.flipped(0.0), strict=True)])
        return time.process_time() - started

    seconds["step"] = statistics.median(step(number) for number in range(STEPS))
    memory = {"start": before, "judged": judged, "encoded": held, "end": process.memory_info().rss}
    return {"pictures": len(examples), "buckets": len(examples.buckets()[0]), "seconds": seconds, "memory": memory}


def measure(count: int) -> dict[str, Any]:
    """A set of so many pictures, in a process and with a cache of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pictures"
        folder.mkdir()
        make(folder, count)
        words = [sys.executable, __file__, "--worker", str(folder)]
        environment = {**os.environ, "ADAPT_CACHE": str(Path(name) / "cache")}
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Growth from the first size to the last: exponents of time, the ratio of steps, bytes a picture."""
    first, last = rows[0], rows[-1]
    times = last["pictures"] / first["pictures"]

    def exponent(stage: str) -> float:
        return math.log(last["seconds"][stage] / first["seconds"][stage]) / math.log(times)

    added = last["memory"]["end"] - last["memory"]["start"] - (first["memory"]["end"] - first["memory"]["start"])
    growth = {stage: exponent(stage) for stage in STAGES[:4]}
    result = {
        "exponents": growth,
        "step, last / first": last["seconds"]["step"] / first["seconds"]["step"],
        "bytes a picture": added / (last["pictures"] - first["pictures"]),
        "judge again / judge": last["seconds"]["judge again"] / last["seconds"]["judge"],
    }
    met = (
        max(growth.values()) <= EXPONENT
        and result["step, last / first"] <= FLAT
        and result["bytes a picture"] <= MEMORY
    )
    machine = {"system": platform.system(), "cores": os.cpu_count(), "python": platform.python_version()}
    return {"machine": machine, "rows": rows, **result, "targets met": met}


def show(result: dict[str, Any]) -> None:
    print(f"{'pictures':>9}" + "".join(f"{stage:>14}" for stage in STAGES) + f"{'MiB':>9}   seconds; step: ms")
    for row in result["rows"]:
        values = [row["seconds"][stage] * (1000 if stage == "step" else 1) for stage in STAGES]
        grown = (row["memory"]["end"] - row["memory"]["start"]) / 2**20
        print(f"{row['pictures']:>9}" + "".join(f"{value:>14.3f}" for value in values) + f"{grown:>9.0f}")
    exponents = ", ".join(f"{stage} {value:.2f}" for stage, value in result["exponents"].items())
    print(f"exponents: {exponents} (1 is linear; at most {EXPONENT})")
    print(f"step, last / first: {result['step, last / first']:.2f} (at most {FLAT})")
    print(f"memory: {result['bytes a picture']:.0f} bytes a picture (at most {MEMORY})")
    print(f"judging a second time: {result['judge again / judge']:.2f} of the first")
    print("targets met" if result["targets met"] else "TARGETS MISSED")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000], help="numbers of pictures"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.worker:
        print(json.dumps(worker(words.worker)))
        return
    result = summary([measure(count) for count in sorted(words.sizes)])
    show(result)
    if words.json:
        words.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
