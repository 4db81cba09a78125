"""What a base is held in when nothing is said: as its weights are; float16 on a CPU is float32, and that is said."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.cli.device import base_of
from adapt.cli.main import main
from adapt.loading import held_in, own_precision
from adapt.source import source


@pytest.fixture(scope="module")
def kept(make_tiny, tmp_path_factory):
    """Precision → the folder of a tiny base saved in it."""
    folder = tmp_path_factory.mktemp("kept")
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        make_tiny().to(dtype).save_pretrained(folder / name)
    unet = load_file(folder / "fp32" / "unet" / "diffusion_pytorch_model.safetensors")
    eight = {k: v.to(torch.float8_e4m3fn) if v.ndim > 1 else v.bfloat16() for k, v in unet.items()}
    save_file(eight, folder / "eight.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "own", "cpu", "gpu"),
    [
        ("fp32", "fp32", "fp32", "fp32"),
        ("fp16", "fp16", "fp32", "fp16"),
        ("bf16", "bf16", "bf16", "bf16"),
        ("eight.safetensors", "F8_E4M3", "bf16", "bf16"),
    ],
)
def test_as_the_weights_are(kept, name, own, cpu, gpu, capsys):
    reference = str(kept / name) + (f":{kept / 'fp32'}" if "." in name else "")
    where = source(reference)
    assert (own_precision(where), held_in(where, "cpu"), held_in(where, "cuda:1")) == (own, cpu, gpu)
    backbone = base_of(reference, "cpu", None)
    assert backbone.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[cpu]
    assert (f"weights in {own}, held in {cpu}" in capsys.readouterr().err) == (own != cpu)
    assert base_of(reference, "cpu", "fp32").dtype == torch.float32


def test_the_doors(kept, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["steps=1", "batch_size=2", "rank=2", "validation=0", "previews=[a]", "sampling_steps=1", "save_every=1"]

    def held(run):
        return json.loads((tmp_path / run / "run.json").read_text())["settings"]["base_precision"]

    base = str(kept / "bf16")
    assert main(["train", str(pictures), "--base", base, "--output", "runs/a", *words]) == 0
    assert held("runs/a") == "bf16"
    assert main(["train", str(pictures), "--base", base, "--output", "runs/b", *words, "init=pissa"]) == 0
    assert held("runs/b") == "fp32" and "weights in bf16, held in fp32" in capsys.readouterr().err
    draw = ["generate", "--prompt", "a", "--steps", "1", "--base", base, "--device", "cpu", "--adapter", "runs/a"]
    assert main([*draw, "--output", "a.png"]) == 0
    assert main([*draw, "--precision", "fp32", "--output", "b.png"]) == 0
    assert main([*draw, "--precision", "int4", "--output", "c.png"]) == 2
    assert "unknown --precision (given: int4; allowed: fp32, fp16, bf16)" in capsys.readouterr().err
