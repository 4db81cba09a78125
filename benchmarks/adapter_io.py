"""Loading, swapping and drawing with an adapter of rank 16 on UNets of the real sizes, against diffusers. Synthetic: the shapes
are those of Stable Diffusion 1.5 and XL, every number in base and adapter is random.

    python benchmarks/adapter_io.py --family sd15 --repeat 3
    python benchmarks/adapter_io.py --family sdxl --repeat 3 --json adapter_io.json
    python benchmarks/adapter_io.py --family sdxl --depth 1   # XL's widths, one transformer layer where it has up to ten: 3 GB

Printed are seconds (best of the repetitions) and ratios. `load` is the file to weights that are ready to draw with: ours
reads, checks and adds ΔW; diffusers' is `load_lora_weights`, and with `fuse_lora` for the same state. `swap` is another
adapter in the place of one: ours is `Applied.change`, diffusers' `unfuse_lora`, `set_adapters`, `fuse_lora`. `swap floor` is one
bare `torch.addmm` a layer out of the kept copies, without any checks: what torch alone takes for it. `unload` is the base
again: ours bit for bit, diffusers' `unfuse_lora` and `unload_lora_weights`. `inference` is a forward with the adapter in the
weights over one of the base, each in processes of its own, in turn: in one process they would share what memory the other has
given back, and a forward that finds its pages there is a fifth faster than one that asks the system for them.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from torch import nn

from adapt.formats import Layer, LoraWeights, Pair, read, write_lora
from adapt.lora import Applied
from adapt.quiet import quiet_libraries

Undo = Callable[[], None]
CONFIGS = Path(__file__).parents[1] / "tests" / "facts" / "model_configs.json"
ENDS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--depth", type=int, help="transformer layers in each block; default: as the model has")
    parser.add_argument("--small", action="store_true", help="narrow layers: to see that it runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--forward", choices=("base", "merged"), help=argparse.SUPPRESS)
    return parser


def make_unet(options: argparse.Namespace) -> UNet2DConditionModel:
    arguments = dict(json.loads(CONFIGS.read_text("utf-8"))[options.family]["arguments"])
    if options.small:
        arguments["block_out_channels"] = [32 * 2**i for i in range(len(arguments.get("block_out_channels", [0] * 4)))]
        arguments["attention_head_dim"] = 8
    if options.depth:
        arguments["transformer_layers_per_block"] = options.depth
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    return UNet2DConditionModel(**arguments).to(options.device, dtype).requires_grad_(False).eval()


def write_adapter(path: Path, unet: nn.Module, rank: int, seed: int) -> int:
    dice, pairs = torch.Generator().manual_seed(seed), {}
    for name, layer in unet.named_modules():
        if name.endswith(ENDS) and ".attentions." in name and hasattr(layer, "weight"):
            out, *inside = layer.weight.shape
            ones = [1] * (len(inside) - 1)
            down, up = torch.randn(rank, *inside, generator=dice), torch.randn(out, rank, *ones, generator=dice)
            pairs[name] = Pair(0.01 * down, 0.01 * up, float(rank))
    write_lora(path, LoraWeights({"unet": pairs}), {})
    return len(pairs)


class Theirs(StableDiffusionXLLoraLoaderMixin):
    """diffusers' loader around a bare UNet: no VAE or text encoder is needed to measure it."""

    def __init__(self, unet: nn.Module) -> None:
        self.unet, self.text_encoder, self.text_encoder_2, self.components = unet, None, None, {"unet": unet}
        self.hf_device_map, self._merged_adapters = None, set()


def loader_of(unet: nn.Module, family: str) -> Any:
    if family == "sdxl":
        return Theirs(unet)
    return StableDiffusionPipeline(None, None, None, unet, None, None, None, requires_safety_checker=False)


def best(repeat: int, run: Callable[[], Undo]) -> float:
    """The shortest of several, in seconds; `run` returns what undoes it."""
    found = []
    for _ in range(repeat):
        seconds, undo = timed(run)
        found.append(seconds)
        undo()
    return min(found)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what it returns."""
    synchronise()
    started = time.perf_counter()
    result = run()
    synchronise()
    return time.perf_counter() - started, result


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def load_ours(unet: nn.Module, path: Path) -> Applied:
    weights = read(path)
    return Applied({"unet": unet}, {f"unet.{name}": layer for name, layer in weights.modules["unet"].items()}, 1.0)


def load_theirs(pipeline: Any, path: Path, fuse: bool) -> Undo:
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="first")
    if fuse:
        pipeline.unet.fuse_lora(adapter_names=["first"])

    def undo() -> None:
        if fuse:
            pipeline.unet.unfuse_lora()
        pipeline.unload_lora_weights()

    return undo


def swap_ours(unet: nn.Module, both: Sequence[Mapping[str, Layer]]) -> tuple[Callable[[], Undo], Undo]:
    on, turn = Applied({"unet": unet}, both[0], 1.0), itertools.cycle((1, 0))

    def swap() -> Undo:
        on.change(both[next(turn)], 1.0)
        return lambda: None

    return swap, on.unload


def bare(unet: nn.Module, layers: Mapping[str, Layer]) -> Callable[[], Undo]:
    """W = base + B A over all layers and nothing else."""
    found = []
    for name, layer in layers.items():
        weight = unet.get_submodule(name.removeprefix("unet.")).weight.detach()
        up, down = (half.to(weight).flatten(1) for half in (layer.up, layer.down))
        found.append((weight.flatten(1), weight.flatten(1).clone(), up, down))

    def run() -> Undo:
        for weight, base, up, down in found:
            torch.addmm(base, up, down, out=weight)
        return lambda: [weight.copy_(base) for weight, base, *_ in found]

    return run


def swap_theirs(pipeline: Any, paths: Sequence[Path]) -> tuple[Callable[[], Undo], Undo]:
    for name, path in zip("ab", paths, strict=True):
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    pipeline.unet.set_adapters(["a"])
    pipeline.unet.fuse_lora(adapter_names=["a"])
    turn = itertools.cycle("ba")

    def swap() -> Undo:
        name = next(turn)
        pipeline.unet.unfuse_lora()
        pipeline.unet.set_adapters([name])
        pipeline.unet.fuse_lora(adapter_names=[name])
        return lambda: None

    def end() -> None:
        pipeline.unet.unfuse_lora()
        pipeline.unload_lora_weights()

    return swap, end


def forward(unet: Any, options: argparse.Namespace) -> None:
    x = torch.randn(1, 4, 32, 32, device=unet.device, dtype=unet.dtype)
    text = torch.randn(1, 77, unet.config.cross_attention_dim, device=unet.device, dtype=unet.dtype)
    added = None
    if options.family == "sdxl":
        added = {"text_embeds": torch.zeros(1, 1280).to(x), "time_ids": torch.zeros(1, 6).to(x)}
    with torch.no_grad():
        unet(x, 500, encoder_hidden_states=text, added_cond_kwargs=added)


def forward_alone(options: argparse.Namespace, folder: Path) -> float:
    """Seconds of a forward of the base, or with an adapter, where nothing else has been done: the shortest."""
    unet, path = make_unet(options), folder / "first.safetensors"
    if options.forward == "merged":
        write_adapter(path, unet, options.rank, 0)
        load_ours(unet, path)
    forward(unet, options)
    return min(timed(lambda: forward(unet, options))[0] for _ in range(options.repeat))


def inference(repeat: int) -> float:
    """Forward with an adapter ÷ forward of the base, both as `forward_alone`: the shortest of both."""
    found: dict[str, list[float]] = {"base": [], "merged": []}
    for number in range(repeat):
        for who in ("base", "merged") if number % 2 == 0 else ("merged", "base"):
            again = [sys.executable, __file__, *sys.argv[1:], "--forward", who]
            told = subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[who].append(float(told.splitlines()[-1]))
    return min(found["merged"]) / min(found["base"])


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    unet = make_unet(options)
    paths = [folder / "first.safetensors", folder / "second.safetensors"]
    layers = max(write_adapter(path, unet, options.rank, seed) for seed, path in enumerate(paths))
    found = {"layers": layers, "parameters": sum(p.numel() for p in unet.parameters())}
    found["load ours"] = best(options.repeat, lambda: load_ours(unet, paths[0]).unload)
    both = [{f"unet.{n}": layer for n, layer in read(path).modules["unet"].items()} for path in paths]
    swap, end = swap_ours(unet, both)
    found["swap ours"] = best(options.repeat, swap)
    found["unload ours"] = timed(end)[0]
    found["swap floor"] = best(options.repeat, bare(unet, both[0]))
    pipeline = loader_of(unet, options.family)
    found["load theirs"] = best(options.repeat, lambda: load_theirs(pipeline, paths[0], fuse=False))
    found["load and fuse theirs"] = best(options.repeat, lambda: load_theirs(pipeline, paths[0], fuse=True))
    swap, end = swap_theirs(pipeline, paths)
    found["swap theirs"] = best(options.repeat, swap)
    found["unload theirs"] = timed(end)[0]
    found["load ratio"] = found["load ours"] / found["load theirs"]
    found["load and fuse ratio"] = found["load ours"] / found["load and fuse theirs"]
    found["swap ratio"] = found["swap ours"] / found["swap theirs"]
    found["swap floor ratio"] = found["swap floor"] / found["swap theirs"]
    found["unload ratio"] = found["unload ours"] / found["unload theirs"]
    return found


if __name__ == "__main__":
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        if options.forward:
            print(forward_alone(options, Path(folder)))
            sys.exit()
        found = measure(options, Path(folder)) | {"inference ratio": inference(options.repeat)}
    told = {"family": options.family, "rank": options.rank, "device": options.device, "dtype": options.dtype, **found}
    for name, value in told.items():
        print(f"{name:22} {value:.4g}" if isinstance(value, float) else f"{name:22} {value}")
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
