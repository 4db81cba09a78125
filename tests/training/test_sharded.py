"""A base cut up over processes: what is learned is what one process learns, and what is on disk is what every run has there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapt.config.settings import TrainSettings

RECIPE = Path(__file__).parents[2] / "training_scripts" / "recipes" / "sharded.yaml"
SCRIPT = """
import sys
from adapt.api.machine import load_base, make_accelerator
from adapt.config import TrainSettings

settings = TrainSettings(shard=True)
accelerator = make_accelerator(settings)
backbone = load_base(sys.argv[1], settings, accelerator)
denoiser = backbone.modules["unet"]
whole = sum(p.numel() for p in denoiser.parameters())
here = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in denoiser.parameters())
print("SHARE", whole, here, backbone.fingerprint(), backbone.content_key("unet"), flush=True)
"""
WORDS = [
    *("steps=4", "learning_rate=1e-2", "warmup=0", "batch_size=4", "rank=2", "resolution=16", "validation=0.25"),
    *("validate_every=2", "preview_every=2", "sampling_steps=2", "previews=[a]", "save_every=2"),
]


def adapt(*words, **more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **more}
    return subprocess.run(
        [sys.executable, "-m", "adapt", *map(str, words)], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def runs(tiny_base, pictures, tmp_path_factory):
    """By name: the run of one process, and that of two which hold half of the base each: by the recipe, in float32."""
    place = tmp_path_factory.mktemp("sharded")
    sharded = ["--num-processes", 2, "--config", RECIPE, "precision='no'"]
    for name, options in {"one": [], "two": sharded}.items():
        done = adapt("train", pictures, "--base", tiny_base, "--output", place / name, *WORDS, *options)
        assert done.returncode == 0, done.stderr[-3000:]
    return place


def test_two_that_hold_half_of_the_base_each_learn_what_one_learns(runs):
    one, two = (load_file(runs / name / "adapter" / "pytorch_lora_weights.safetensors") for name in ("one", "two"))
    assert set(one) == set(two)
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, atol=1e-4, rtol=0)
    assert max(float(x.abs().max()) for name, x in two.items() if "lora_B" in name or "lora.up" in name) > 1e-3
    events = [
        [json.loads(line) for line in (runs / n / "events.jsonl").read_text().splitlines()] for n in ("one", "two")
    ]
    losses = [[e["loss"] for e in told if e["event"] == "step"] for told in events]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    measured = [[e["loss"] for e in told if e["event"] == "validation"] for told in events]
    assert measured[0] == pytest.approx(measured[1], rel=1e-4) and len(measured[1]) >= 2


def test_everything_is_on_disk_that_one_process_leaves_there(runs):
    def names(run):
        return sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file())

    assert names(runs / "two") == names(runs / "one")
    assert json.loads((runs / "two" / "adapter" / "adapter.json").read_text())["proof"]["layers"] > 0


def test_a_share_is_held_and_the_base_is_known_by_its_whole_weights(tiny_base, tmp_path):
    from adapt.backbones import Backbone

    script = tmp_path / "share.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, tiny_base],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("SHARE")]
    backbone = Backbone.load(str(tiny_base))
    for whole, here, fingerprint, content in told:
        assert int(here) < 0.6 * int(whole)
        assert (fingerprint, content) == (backbone.fingerprint(), backbone.content_key("unet"))
    assert len(told) == 2


def test_one_process_is_told_that_there_is_nothing_to_share(tiny_base, pictures, tmp_path, capsys):
    from adapt.cli.main import main

    words = [
        "train",
        str(pictures),
        "--base",
        str(tiny_base),
        "--output",
        str(tmp_path / "run"),
        "shard=true",
        "steps=1",
    ]
    assert main(words) == 2
    assert "there is one" in capsys.readouterr().err and not (tmp_path / "run" / "adapter").exists()


@pytest.mark.parametrize("other", [{"quantize": "int8-bnb"}, {"offload_weights": 0.5}, {"compile": True}, {"kind": "dora"},
                                   {"init": "pissa"}, {"classes": True, "grow_from": "birds"},
                                   {"distill": "guidance", "distill_adapter": "birds"}])  # fmt: skip
def test_what_needs_whole_weights_is_refused(other):
    with pytest.raises(ValueError, match="shard does not go with"):
        TrainSettings.model_validate({"shard": True, **other})
