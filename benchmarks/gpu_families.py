"""What a LoRA step of each family costs at its real size, for the owner of a GPU: seconds, share of the peak, memory, loss.

    python benchmarks/gpu_families.py --peak 989 --json gpu_families.json      (H100: 989 TFLOP/s in bf16)
    python benchmarks/gpu_families.py --only sdxl flux1-dev --checkpointing --compile
    python benchmarks/gpu_families.py --try-out                                (a toy on a CPU: that the script works, no figure)

The denoisers are those of published checkpoints with random weights in bfloat16 (`adapt/backbones/usual.json`), with LoRA of rank
16 in its own layers, AdamW, one fixed batch of made latents and text states: no encoder, no cache, no data. The loss falls
on that one batch if gradients reach LoRA. Memory is beside the forecast of `adapt bases --memory`; the goal is within 10 %.
A network that does not fit is said and left out. Unproved here: no GPU has run it.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

WARM = 3
TOY = {
    "family": "stable-diffusion", "title": "toy", "class": "UNet2DConditionModel",
    "latents": [4, 8, 8], "text": {"tokens": [8, 16]},
    "arguments": {
        "sample_size": 8, "block_out_channels": [16, 16], "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 8,
        "cross_attention_dim": 16, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    },
}  # fmt: skip


def real(entry: Mapping[str, Any], device: str) -> Any:
    """The family's interface around a random network of the entry's size."""
    import torch

    from adapt.api.footprint import on_meta, stand_in

    torch.manual_seed(0)
    network = on_meta(entry["class"], entry["arguments"]).to_empty(device=device)
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.normal_(0, p[0].numel() ** -0.5) if p.ndim > 1 else p.fill_(0.01 if name.endswith("bias") else 1.0)
        for b in network.buffers():  # tables of positions: any finite numbers will do for time and memory
            b.normal_(0, 0.02) if b.is_floating_point() else b.zero_()
    network.requires_grad_(False)
    return stand_in(entry["family"], network)


def batch(backbone: Any, entry: Mapping[str, Any], rows: int, device: str) -> tuple[Any, Any, Any, Any]:
    """x_t, t, condition and what the prediction is compared with."""
    import torch

    from adapt.types import Sizes
    from conditioning import Condition

    made = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(rows, *entry["latents"], generator=made).to(device, torch.bfloat16) for _ in range(2))
    shapes = dict(entry["text"])
    text = {n: torch.randn(rows, *shape, generator=made).to(x) for n, shape in shapes.items() if n != "mask"}
    if "mask" in shapes:
        text["mask"] = torch.ones(rows, *shapes["mask"], dtype=torch.long, device=device)
    side = entry["latents"][-1] * 8
    condition = Condition({"text": text}, backbone.facts([Sizes.whole(side, side)] * rows))
    return (x + noise) / 2, torch.full((rows,), 500, device=device), condition, noise


def measured(entry: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step, the share of the peak, memory at its highest and as forecast, and the loss before and after."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from adapt.api.footprint import count
    from adapt.lora import inject

    forecast = count(entry, options.rank)
    backbone = real(entry, options.device)
    network = backbone.denoiser
    lora = inject(network, rank=options.rank, alpha=options.rank, dropout=0.0, targets=backbone.lora_targets, seed=0)
    if options.checkpointing:
        network.enable_gradient_checkpointing()
        network.train()
    x_t, t, condition, target = batch(backbone, entry, options.rows, options.device)
    trained = list(lora.parameters.values())
    optimizer = torch.optim.AdamW(trained, lr=1e-3)

    def step() -> Any:
        with torch.autocast(torch.device(options.device).type, torch.bfloat16):
            prediction = backbone.predict(x_t, t, condition)
        loss = torch.nn.functional.mse_loss(prediction.float(), target.float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    on_gpu = torch.device(options.device).type == "cuda"
    with FlopCounterMode(display=False) as counter:
        first = float(step())
    if options.compile:
        network.compile_repeated_blocks()
    for _ in range(WARM):
        step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(options.steps):
        started = time.perf_counter()
        last = float(step())  # waits for the GPU
        seconds.append(time.perf_counter() - started)
    middle = statistics.median(seconds)
    expected = forecast.total(checkpointing=options.checkpointing)
    return {
        "title": entry["title"], "parameters": forecast.parameters, "seconds": middle,
        "teraflops": counter.get_total_flops() / 1e12,
        "of_peak": counter.get_total_flops() / 1e12 / middle / options.peak if options.peak else None,
        "gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None, "forecast_gib": expected / 2**30,
        "loss": [first, last],
    }  # fmt: skip


def line(row: Mapping[str, Any]) -> str:
    share = f", {100 * row['of_peak']:.0f} % of peak" if row["of_peak"] else ""
    memory = f", {row['gib']:.1f} GiB (forecast {row['forecast_gib']:.1f})" if row["gib"] else ""
    first, last = row["loss"]
    return f"{row['title']:26} {row['seconds']:.3f} s a step{share}{memory}, loss {first:.3f} → {last:.3f}"


def main() -> int:
    import torch

    from adapt.api.footprint import usual

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=sorted(usual()), help="names in usual.json; default: all")
    parser.add_argument("--rows", type=int, default=1, help="pictures a step; the forecast is of one")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peak", type=float, help="the card's TFLOP/s in bf16, dense")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--try-out", action="store_true", help="a toy on the CPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.try_out:
        options.device = "cpu"
    elif not torch.cuda.is_available():
        print("no GPU here: --try-out shows that the script works", file=sys.stderr)
        return 2
    entries = (
        {"toy": TOY} if options.try_out else {n: e for n, e in usual().items() if not options.only or n in options.only}
    )
    found: dict[str, Any] = {}
    for name, entry in entries.items():
        try:
            found[name] = measured(entry, options)
            print(line(found[name]), flush=True)
        except torch.OutOfMemoryError:
            print(f"{entry['title']:26} does not fit", flush=True)
            found[name] = {"title": entry["title"], "does_not_fit": True}
        gc.collect()
        with suppress(AssertionError, RuntimeError):
            torch.cuda.empty_cache()
    if options.json:
        card = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        told = {"card": card, "torch": torch.__version__, "rank": options.rank, "rows": options.rows}
        options.json.write_text(json.dumps({**told, "families": found}, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
