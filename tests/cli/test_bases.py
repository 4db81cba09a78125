"""`adapt bases`: the table, one base judged from its headers, and what is refused; without torch."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from adapt.api.families import table
from adapt.backbones.registry import FAMILIES
from adapt.cli.main import main


def test_the_table_names_every_family_with_its_state(capsys):
    assert main(["bases", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["families"]
    assert [row["family"] for row in rows] == list(FAMILIES)
    assert all(row["licence"] and row["pipelines"] and row["state"] and row["conditions"] for row in rows)
    assert main(["bases"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert all(any(line.split()[:1] == [name] for line in lines) for name in FAMILIES)
    assert max(map(len, lines)) <= 106
    assert "schnell" not in out  # of one family
    for family in FAMILIES.values():
        if family.name != "icons":  # a base too
            assert main(["bases", family.name]) == 0
            told = capsys.readouterr().out
            assert family.title in told and all(pipeline in told for pipeline in family.pipelines)
            assert family.licence in told and all(refusal.why in told for refusal in family.refused)
    assert main(["bases", "flux", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Flux.1"


def test_what_training_takes_is_data(capsys):
    """As counted for the real sizes: more with everything kept, less in NF4; weights alone are two bytes a number."""
    rows = {row["family"]: row for row in table()}
    flux = rows["flux"]["memory"]["Flux.1 dev"]
    assert flux["bf16"] > flux["bf16_checkpointing"] > flux["nf4_checkpointing"] > flux["parameters"] / 2**31
    assert flux["bf16_checkpointing"] > 2 * flux["parameters"] / 2**30
    assert rows["flux"]["guidance"] == "embedded" and rows["ddpm"]["guidance"] == "none"
    assert rows["lumina2"]["guidance"] == "classifier-free 4, renormalised"
    assert rows["pixart-sigma"]["loads_in"] == ["adapt", "peft"] and "UIs" in rows["stable-diffusion-xl"]["loads_in"]
    assert rows["flux"]["trained"] == ["attention", "feed-forward"]
    assert main(["bases", "--memory"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Flux.1 dev"))
    assert line.split()[-3:] == [f"{flux[way]:.1f}" for way in ("bf16", "bf16_checkpointing", "nf4_checkpointing")]


def test_it_needs_no_torch(tiny_base):
    code = f"from adapt.cli.main import main; import sys; main(['bases', {str(tiny_base)!r}]); main(['bases'])"
    code += "; assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, env={**os.environ})


def test_one_base_is_judged_from_its_files(tiny_base, make_tiny, capsys):
    assert main(["bases", str(tiny_base), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["family"], told["task"], told["frame"]) == ("stable-diffusion", "text-to-image", [16, 2])
    assert told["refused"] is None and told["held"] == {"cpu": "fp32", "cuda": "fp32"} and told["memory"] is None
    modules = {n: m for n, m in make_tiny().components.items() if isinstance(m, torch.nn.Module)}
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    assert {part["name"]: part["parameters"] for part in told["components"]} == counts
    assert all(part["precision"] == {"F32": part["parameters"]} for part in told["components"])
    assert main(["bases", "icons"]) == 0
    out = capsys.readouterr().out
    assert "icons (bundled)" in out and "held in fp32 on a CPU and fp16 on a GPU" in out


@pytest.fixture
def broken(tiny_base, tmp_path):
    copy = tmp_path / "base"
    shutil.copytree(tiny_base, copy)
    return copy


def refused(words, capsys, *said):
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    for word in said:
        assert word in error, error


def test_bases_that_are_not_whole(broken, capsys):
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    refused(["bases", str(broken)], capsys, "cut off", "bytes")
    weights.write_bytes(b"\x05")
    refused(["bases", str(broken)], capsys, "cannot be read")
    weights.write_bytes(whole)
    shutil.rmtree(broken / "scheduler")
    refused(["bases", str(broken)], capsys, "scheduler is missing")
    refused(["bases", str(broken / "nothing")], capsys, "no such base")
    refused(["bases", "icons", "--memory"], capsys, "--dry-run")


def test_weights_that_do_not_fit_the_configuration(broken, capsys, tmp_path):
    """diffusers warns and leaves such layers empty; a picture of them would be noise."""
    from safetensors.torch import load_file, save_file

    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({n: t for n, t in tensors.items() if "mid_block" not in n}, file, {"format": "pt"})
    words = ["generate", "--prompt", "a", "--base", str(broken), "--device", "cpu", "--output", str(tmp_path / "a.png")]
    refused(words, capsys, "unet", "do not fit")
    save_file({n: t[..., :1].contiguous() for n, t in tensors.items()}, file, {"format": "pt"})
    refused(words, capsys, "cannot be loaded")


def test_a_pipeline_that_nobody_knows(broken, capsys):
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "_class_name": "SomethingPipeline"}))
    refused(["bases", str(broken)], capsys, "does not know", "SomethingPipeline", "FluxPipeline")
