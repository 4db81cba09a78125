"""Puts denoiser, autoencoder, scheduler and a pruned MiniLM together as a diffusers pipeline folder.

python assemble.py DATA WEIGHTS OUT [--vae VAE] [--spellable MEASURE]

WEIGHTS has `unet/`, `vae/` and `scheduler/`; `--vae` takes a later decoder of the same encoder instead.
Plain `StableDiffusionPipeline.from_pretrained(OUT)` loads the result.
All weights are stored in fp16 and load as fp32.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import captions
import iconify
import minilm
import pictures
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import BertTokenizerFast

PROMPTS = ("red apple", "a green cactus", "dog", "a small boat on the water", "two birds in a tree", "")


def assemble(weights: Path, vae: AutoencoderKL, out: Path, spoken: list[str]) -> None:
    """Writes the pipeline folder `out`; `spoken` decides which rare words the text encoder keeps."""
    tokenizer, encoder = minilm.load()
    rows = minilm.kept_rows(tokenizer, spoken)
    minilm.prune(encoder, rows)
    minilm.save_tokenizer(rows, out / "tokenizer")
    pipeline = StableDiffusionPipeline(
        vae=vae,
        unet=UNet2DConditionModel.from_pretrained(weights / "unet"),
        scheduler=DDIMScheduler.from_pretrained(weights / "scheduler", steps_offset=1),  # unused here; 0 only warns
        tokenizer=BertTokenizerFast.from_pretrained(out / "tokenizer"),
        text_encoder=encoder,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.half()
    tokenizer_files = {file: file.read_bytes() for file in (out / "tokenizer").iterdir()}
    pipeline.save_pretrained(out, safe_serialization=True)
    for file, content in tokenizer_files.items():  # saving adds fields of one machine and drops vocab.txt
        file.write_bytes(content)
    for part in ("unet", "vae", "text_encoder"):
        _tidy(out / part)
    # Without this, a plain pipeline loads the fp16 text encoder as fp16 beside an fp32 denoiser, and fails.
    _edit(out / "text_encoder" / "config.json", {"dtype": "float32"})


def _tidy(part: Path) -> None:
    """The configuration without the folder it came from; files readable by all."""
    _edit(part / "config.json", {"_name_or_path": None})
    for file in part.iterdir():
        file.chmod(0o644)


def _edit(config: Path, changes: dict[str, str | None]) -> None:
    """Sets keys of a JSON file; None removes one."""
    data = {**json.loads(config.read_text()), **changes}
    config.write_text(json.dumps({k: v for k, v in data.items() if changes.get(k, "") is not None}, indent=2) + "\n")


def largest_difference(out: Path, spoken: list[str]) -> float:
    """Largest |difference| between the states of the pruned encoder and of the full one rounded to fp16."""
    tokenizer, encoder = minilm.load()
    expected = minilm.encode(tokenizer, encoder.half().float(), spoken)
    pipeline = StableDiffusionPipeline.from_pretrained(out)
    assert isinstance(pipeline.tokenizer, BertTokenizerFast)
    return (minilm.encode(pipeline.tokenizer, pipeline.text_encoder.eval(), spoken) - expected).abs().max().item()


def load_vae(weights: Path, later: Path | None) -> AutoencoderKL:
    """The denoiser's autoencoder, or a later one with its scaling factor: the encoders must be the same."""
    vae = AutoencoderKL.from_pretrained(weights / "vae")
    if later is None:
        return vae
    newer = AutoencoderKL.from_pretrained(later)
    pairs = zip(vae.encoder.parameters(), newer.encoder.parameters(), strict=True)
    if not all(torch.equal(a, b) for a, b in pairs):
        raise SystemExit(f"{later} has another encoder than {weights / 'vae'}: its latents are not the denoiser's")
    newer.register_to_config(scaling_factor=vae.config.scaling_factor)
    return newer


def manifest(drawn: pictures.Drawn, sources: list[dict[str, str]]) -> dict[str, Any]:
    """What the weights were made from: packages with licences, pictures by set and kind, those kept unseen."""
    learned = Counter(f"{row.set} {row.kind}" for row in drawn.rows if row.category in iconify.CATEGORIES)
    seen = Counter(f"{row.set} {row.kind}" for row in drawn.rows if not row.unseen)
    return {"sources": sources, "size": drawn.size, "denoiser": dict(learned), "autoencoder": dict(seen)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("weights", type=Path, help="folder that denoiser.py wrote")
    parser.add_argument("out", type=Path, help="pipeline folder to write")
    parser.add_argument("--vae", type=Path, help="vae/ folder of a later decoder")
    parser.add_argument("--spellable", type=Path, nargs="*", default=[], help="more folders whose names stay spellable")
    args = parser.parse_args()
    torch.set_num_threads(1)
    drawn = pictures.read(args.data)
    names = {iconify.caption(row.name) for folder in (args.data, *args.spellable) for row in pictures.read(folder).rows}
    spoken = sorted(names | {text for row in drawn.rows[::7] for text, _ in captions.phrasings(row)})
    assemble(args.weights, load_vae(args.weights, args.vae), args.out, spoken)
    said = json.loads((args.data / "rows.json").read_text())
    (args.out / "training_data.json").write_text(json.dumps(manifest(drawn, said["sources"]), indent=1) + "\n")
    sample = [*spoken[:: max(1, len(spoken) // 300)][:300], *PROMPTS]
    difference = largest_difference(args.out, sample)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB; {len(sample)} prompts differ by at most {difference:.1e}")
    if difference > 1e-5:
        raise SystemExit("the pruned text encoder differs from the full one")


if __name__ == "__main__":
    main()
