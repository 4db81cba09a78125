"""What a LoRA step costs here, beside the loops that others train with: time, and memory at its highest.

    python benchmarks/training_speed.py --rounds 5 --steps 12 --json training_speed.json
    python benchmarks/training_speed.py --width 320 --side 512 --warm 1 --steps 2   (Stable Diffusion 1.5's own size)

Every contender trains the same LoRA (rank, layers, AdamW, clipped gradient) in the same random Stable Diffusion on the same made
pictures, each time in a new process. They take turns there and back (ABBA), so that a machine that warms up or is busy
falls on all of them.

    adapt             this package: latents and text from its cache, what Settings has by default switched on (moving average)
    peft              a plain loop over peft's layers: latents and text held in memory
    diffusers         what diffusers' own LoRA script for text to image does in a step: autoencoder and text encoder each time
    frozen            forward and backward of the base alone, to its input: what no adapter can be below

Steps are timed by the processor's time on a CPU (what else the machine does counts less) and by the clock on a GPU.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTENDERS = ("adapt", "peft", "diffusers", "frozen")
GOALS = {"diffusers / adapt": 1.6, "peft / adapt": 1.0, "memory, adapt / peft": 0.9}
"""The first two at least; the last, peak memory above that of the loaded base, at most. 1.10 beside peft is the aim."""
PICTURES = 16
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""diffusers' own script's."""


def make(folder: Path, width: int, side: int) -> None:
    """A random base of Stable Diffusion 1.5's architecture, as much narrower as `width` is than 320, its autoencoder too, so that
    the one costs as much beside the other as there; and pictures with captions."""
    import numpy as np
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from PIL import Image
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    symbols = sorted(ByteLevel.alphabet())
    words = [*symbols, *(s + "</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4,
        bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=side // 8, block_out_channels=(width, 2 * width, 4 * width, 4 * width), layers_per_block=2,
        cross_attention_dim=256, attention_head_dim=8, norm_num_groups=16,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    )  # fmt: skip
    wide = max(8, width * 2 // 5 // 8 * 8)
    vae = AutoencoderKL(
        block_out_channels=(wide, 2 * wide, 4 * wide, 4 * wide), layers_per_block=2, norm_num_groups=8, sample_size=side,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    times = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = DDIMScheduler(**times, clip_sample=False, steps_offset=1)
    StableDiffusionPipeline(
        vae=vae, unet=unet, scheduler=scheduler, tokenizer=tokenizer, text_encoder=CLIPTextModel(text),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "base")  # fmt: skip
    (folder / "pictures").mkdir()
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        small.resize((side, side)).save(folder / "pictures" / f"{number:02d}.png")
        (folder / "pictures" / f"{number:02d}.txt").write_text(f"picture {number} of a made thing", "utf-8")


# ---------------------------------------------------------------------------------------------------- contenders
def adapts(folder: Path, words: argparse.Namespace) -> Callable[[], Any]:
    """One step of adapt's own trainer."""
    from adapt.api.assemble import assemble
    from adapt.api.gather import gather
    from adapt.api.machine import make_accelerator
    from adapt.api.settle import settle
    from adapt.backbones import Backbone
    from adapt.config import TrainSettings

    settings = TrainSettings(
        batch_size=words.batch, rank=words.rank, targets=TARGETS, learning_rate=1e-4, steps=10**6, caption_dropout=0.0
    )
    accelerator = make_accelerator(settings)
    backbone = Backbone.load(str(folder / "base"), device=accelerator.device)
    settled = settle(settings, backbone)
    pictures = gather(folder / "pictures", settled)
    trainer = assemble(folder / "run", backbone, pictures.train, (), settled, accelerator)
    backbone.denoiser.train()
    return trainer.take_step


class Parts:
    """The base's parts and what the other loops have in common."""

    def __init__(self, folder: Path, words: argparse.Namespace) -> None:
        import torch
        from diffusers import StableDiffusionPipeline

        self.batch, self.device = words.batch, torch.device(words.device)
        pipeline = StableDiffusionPipeline.from_pretrained(folder / "base", use_safetensors=True).to(self.device)
        self.unet, self.vae, self.encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
        self.tokenizer, self.schedule = pipeline.tokenizer, pipeline.scheduler
        for module in (self.unet, self.vae, self.encoder):
            module.requires_grad_(False)
        self.pixels, self.tokens = self._data(folder / "pictures")
        self.turn = 0

    def _data(self, folder: Path) -> tuple[Any, Any]:
        import numpy as np
        import torch
        from PIL import Image

        pixels = [np.asarray(Image.open(path).convert("RGB"), np.float32) for path in sorted(folder.glob("*.png"))]
        texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.txt"))]
        ids = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1, ids

    def adapter(self, rank: int) -> list[Any]:
        """LoRA by peft in the denoiser; its parameters."""
        from peft import LoraConfig

        self.unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(TARGETS))
        )
        self.unet.train()
        return [parameter for parameter in self.unet.parameters() if parameter.requires_grad]

    def rows(self) -> list[int]:
        """The next pictures."""
        self.turn += self.batch
        return [k % PICTURES for k in range(self.turn - self.batch, self.turn)]

    def encoded(self, rows: list[int]) -> tuple[Any, Any]:
        """Latents, drawn from their posterior, and text states."""
        import torch

        with torch.no_grad():
            posterior = self.vae.encode(self.pixels[rows].to(self.device)).latent_dist
            return posterior.sample() * self.vae.config.scaling_factor, self.encoder(self.tokens[rows].to(self.device))[
                0
            ]

    def loss(self, x: Any, text: Any) -> Any:
        """The mean squared error of the noise, at even times."""
        import torch

        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),), device=self.device)
        prediction = self.unet(self.schedule.add_noise(x, noise, t), t, text, return_dict=False)[0]
        return torch.nn.functional.mse_loss(prediction.float(), noise.float())


def pefts(folder: Path, words: argparse.Namespace) -> Callable[[], Any]:
    """One step of a plain loop over peft's layers, with everything encoded before."""
    import torch

    parts = Parts(folder, words)
    known = [parts.encoded([k]) for k in range(PICTURES)]
    parameters = parts.adapter(words.rank)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step() -> float:
        rows = parts.rows()
        loss = parts.loss(torch.cat([known[k][0] for k in rows]), torch.cat([known[k][1] for k in rows]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


def diffusers_own(folder: Path, words: argparse.Namespace) -> Callable[[], Any]:
    """One step as diffusers' LoRA script for text to image takes it, through Accelerate."""
    import torch
    from accelerate import Accelerator

    parts, accelerator = Parts(folder, words), Accelerator(cpu=words.device == "cpu")
    parameters = parts.adapter(words.rank)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    parts.unet, optimizer, schedule = accelerator.prepare(parts.unet, optimizer, schedule)

    def step() -> float:
        with accelerator.accumulate(parts.unet):
            loss = parts.loss(*parts.encoded(parts.rows()))
            mean = accelerator.gather(loss.repeat(words.batch)).mean().item()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        loss.detach().item()
        return float(mean)

    return step


def frozen(folder: Path, words: argparse.Namespace) -> Callable[[], Any]:
    """Forward and backward of the base to its input: neither adapter nor optimizer."""
    import torch

    parts = Parts(folder, words)
    x, text = parts.encoded(list(range(words.batch)))
    x.requires_grad_(True)
    parts.unet.train()
    t = torch.randint(0, 1000, (words.batch,), device=parts.device)

    def step() -> None:
        torch.autograd.backward(parts.unet(x, t, text, return_dict=False)[0].square().mean())

    return step


STARTS = dict(zip(CONTENDERS, (adapts, pefts, diffusers_own, frozen), strict=True))


# ---------------------------------------------------------------------------------------------------- measuring
def worker(folder: Path, words: argparse.Namespace) -> dict[str, float]:
    """Seconds of each step of one contender, in this process, and its memory: MiB at its highest in these steps, on a CPU above
    what the libraries take."""
    import torch

    from adapt.api.memory import forget_peak, highest

    torch.set_num_threads(words.threads)
    device, gpu = torch.device(words.device), words.device != "cpu"
    clock = time.perf_counter if gpu else time.process_time
    import_all()
    forget_peak(device)
    libraries = highest(device)
    step = STARTS[words.worker](folder, words)
    for _ in range(words.warm):
        step()
    forget_peak(device)
    seconds = []
    for _ in range(words.steps):
        if gpu:
            torch.cuda.synchronize()
        started = clock()
        step()
        if gpu:
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    peak = 1024 * (highest(device) - libraries)
    return {"median": statistics.median(seconds), "min": min(seconds), "peak": peak}


def import_all() -> None:
    """What any of the contenders needs, in each of them."""
    from accelerate import Accelerator  # noqa: F401
    from diffusers import StableDiffusionPipeline  # noqa: F401
    from peft import LoraConfig  # noqa: F401

    from adapt.api.settle import settle  # noqa: F401


def measure(words: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """All rounds of all contenders."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, words.width, words.side)
        environment = {**os.environ, "ADAPT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": str(words.threads)}
        for number in range(words.rounds):
            for contender in CONTENDERS if number % 2 == 0 else CONTENDERS[::-1]:
                again = [sys.executable, __file__, *sys.argv[1:], "--worker", contender, "--folder", str(folder)]
                done = subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True, env=environment)
                found[contender].append(json.loads(done.stdout.splitlines()[-1]))
                print(
                    f"round {number + 1}: {contender} {1000 * found[contender][-1]['median']:.1f} ms", file=sys.stderr
                )
    return found


def summary(found: dict[str, list[dict[str, float]]], words: argparse.Namespace) -> dict[str, Any]:
    """Ratios round by round, and whether the goals are met."""
    import torch

    def ratios(above: str, below: str, what: str = "median") -> dict[str, float]:
        each = [a[what] / b[what] for a, b in zip(found[above], found[below], strict=True)]
        return {"min": min(each), "median": statistics.median(each), "max": max(each)}

    rows = {f"{name} / adapt": ratios(name, "adapt") for name in ("diffusers", "peft")}
    rows |= {f"{name} / frozen": ratios(name, "frozen") for name in ("adapt", "peft")}
    rows["memory, adapt / peft"] = ratios("adapt", "peft", "peak")
    rows["memory, adapt / diffusers"] = ratios("adapt", "diffusers", "peak")
    met = {name: value <= rows[name]["median"] for name, value in GOALS.items() if "memory" not in name}
    met |= {name: rows[name]["median"] <= value for name, value in GOALS.items() if "memory" in name}
    device = torch.cuda.get_device_name() if words.device != "cpu" else platform.processor() or platform.machine()
    machine = {
        "device": device,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    told = {name: value for name, value in vars(words).items() if name not in ("json", "worker", "folder")}
    return {"machine": machine, "settings": told, "seconds": found, "ratios": rows, "goals met": met}


def show(result: dict[str, Any]) -> None:
    print(f"{'':28}{'min':>8}{'median':>8}{'max':>8}")
    for name, rounds in result["seconds"].items():
        each = [1000 * r["median"] for r in rounds]
        peak = max(r["peak"] for r in rounds)
        print(
            f"{name + ', ms a step':28}{min(each):8.1f}{statistics.median(each):8.1f}{max(each):8.1f}   {peak:.0f} MiB"
        )
    for name, row in result["ratios"].items():
        goal = GOALS.get(name)
        verdict = f"goal {goal:g}: {'met' if result['goals met'][name] else 'MISSED'}" if goal else ""
        print(f"{name:28}{row['min']:8.2f}{row['median']:8.2f}{row['max']:8.2f}   {verdict}".rstrip())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of all contenders; every other one backwards")
    parser.add_argument("--steps", type=int, default=12, help="measured in a process")
    parser.add_argument("--warm", type=int, default=3, help="steps before that")
    parser.add_argument(
        "--width",
        type=int,
        default=64,
        help="channels of the denoiser's first level (a multiple of 16); 320: as published",
    )
    parser.add_argument("--side", type=int, default=256, help="of the pictures, px")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.worker:
        print(json.dumps(worker(words.folder, words)))
        return
    result = summary(measure(words), words)
    show(result)
    if words.json:
        words.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
