"""Draws with an adapter in plain diffusers: nothing of adapt is imported.

    python examples/03_plain_diffusers.py --adapter runs/example-01/adapter

The weights file is diffusers' own LoRA format, so every program that calls `load_lora_weights` can take it.
`adapter.json` beside it says which guidance and how many steps suit it.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

ICONS = Path(__file__).parents[1] / "adapt" / "bundled" / "icons"


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, default=Path("runs/example-01/adapter"), help="an adapter's folder")
    parser.add_argument("--base", default=str(ICONS), help="the diffusers folder that it was trained on")
    parser.add_argument("--prompt", default="penguin")
    parser.add_argument("--steps", type=int, help="inference steps; default: what the adapter recommends")
    parser.add_argument("--output", type=Path, default=Path("runs/example-03.png"))
    return parser


def main() -> None:
    """Loads the pipeline and the adapter, draws one picture."""
    words = parser().parse_args()
    advice = json.loads((words.adapter / "adapter.json").read_text("utf-8"))["recommended"]
    pipeline = StableDiffusionPipeline.from_pretrained(words.base, use_safetensors=True)
    pipeline.load_lora_weights(str(words.adapter), weight_name="pytorch_lora_weights.safetensors")
    picture = pipeline(
        words.prompt,
        num_inference_steps=words.steps or advice["steps"],
        guidance_scale=advice["guidance_scale"],
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    words.output.parent.mkdir(parents=True, exist_ok=True)
    picture.save(words.output)
    print(words.output)


if __name__ == "__main__":
    main()
