"""Recipes for many devices: read by those whose they are; what adapt cannot do is refused before anything is loaded."""

import os
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.utils import DistributedType

from adapt.api.machine import SHARDING, make_accelerator, require_whole_networks
from adapt.config import TrainSettings, resolve
from adapt.errors import SettingsError

SCRIPTS = Path(__file__).parents[1] / "training_scripts"
RECIPES = SCRIPTS / "recipes"
SBATCH = RECIPES / "slurm.sbatch"


def test_every_recipe_is_described():
    told = (SCRIPTS / "README.md").read_text("utf-8")
    found = sorted(path.name for path in RECIPES.iterdir() if path.is_file())
    assert len(found) >= 3 and [name for name in found if f"recipes/{name}" not in told] == []


def test_accelerate_reads_its_configuration():
    config = ClusterConfig.from_yaml_file(RECIPES / "several_gpus.yaml")
    assert config.distributed_type is DistributedType.MULTI_GPU and config.num_processes == 4
    assert not (config.fsdp_config or config.deepspeed_config or config.use_cpu)


def test_the_batch_job_starts_one_launcher_a_machine(tmp_path):
    """Run by a shell with stand-ins for the cluster's commands: what would be started, word for word."""
    for name, text in {"scontrol": "echo node-1; echo node-2", "srun": 'printf "%s\\n" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {
        "SLURM_JOB_NODELIST": "node-[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_JOB_ID": "7",
    }
    words = ["./my pictures", "--base", "owner/model", "--output", "runs/x", "batch_size=32", "--resume"]
    environment = {**os.environ, **job, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(SBATCH), *words], env=environment, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    script = said.index("training_scripts/train_lora.py")
    assert said[:4] == ["--kill-on-bad-exit=1", "python", "-m", "torch.distributed.run"]
    told = dict(zip(said[4:script:2], said[5:script:2], strict=True))
    assert (told["--nnodes"], told["--nproc-per-node"], told["--rdzv-endpoint"]) == ("2", "4", "node-1:29500")
    parsed = runpy.run_path(str(SCRIPTS / "train_lora.py"))["parser"]().parse_intermixed_args(said[script + 1 :])
    assert parsed.data == Path("my pictures") and parsed.existing == "resume" and parsed.settings == ["batch_size=32"]


def test_the_commands_in_the_recipes_are_words_that_the_script_takes():
    parser = runpy.run_path(str(SCRIPTS / "train_lora.py"))["parser"]()
    named = (RECIPES / "several_gpus.yaml", RECIPES / "sharded.yaml")
    for path, after in ((SBATCH, "slurm.sbatch"), *((path, "train_lora.py") for path in named)):
        line = next(line for line in path.read_text("utf-8").splitlines() if after in line and line.startswith("# "))
        words = shlex.split(line.removeprefix("# "))
        place = next(k for k, word in enumerate(words) if word.endswith(after))
        assert parser.parse_intermixed_args(words[place + 1 :]).output is not None


@pytest.mark.parametrize("variable", SHARDING)
def test_networks_that_are_cut_up_are_refused_before_a_process_group(monkeypatch, variable):
    monkeypatch.setenv(variable, "4" if "TP_SIZE" in variable else "true")
    with pytest.raises(SettingsError, match="networks that a launcher cuts up") as refused:
        make_accelerator(TrainSettings())
    assert SHARDING[variable] in str(refused.value)


@pytest.mark.parametrize(("stage", "said"), [("2", "plain processes"), ("3", "shard=true"), ("", "shard=true")])
def test_who_comes_from_deepspeed_is_told_what_does_the_same(stage, said):
    with pytest.raises(SettingsError) as refused:
        require_whole_networks({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage})
    next_step = str(refused.value).split("Next: ")[1]
    assert next_step.startswith(said) and "DeepSpeed" in str(refused.value)
    for recipe in re.findall(r"recipes/[\w.]+", next_step):
        assert (SCRIPTS / recipe).is_file()
    table = (SCRIPTS / "README.md").read_text("utf-8").split("## If you come from DeepSpeed")[1]
    for name in re.findall(
        r"`(\w+)(?:=\S+)?`", "".join(line.split("|")[2] for line in table.splitlines() if line.startswith("| "))
    ):
        assert name in TrainSettings.model_fields


@pytest.mark.parametrize("recipe", ["openmoji.yaml", "sharded.yaml"])
def test_a_recipe_of_settings_is_one_that_training_takes(recipe):
    found = resolve(RECIPES / recipe)
    assert found.settings.model_fields_set and set(found.origins.values()) >= {str(RECIPES / recipe)}
    assert found.settings.shard == (recipe == "sharded.yaml")


def test_plain_launches_are_not():
    require_whole_networks({})
    require_whole_networks({**dict.fromkeys(SHARDING, "false"), "PARALLELISM_CONFIG_TP_SIZE": "1"})
