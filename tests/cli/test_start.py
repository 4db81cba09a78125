"""`--help`, `--version` and every usage error answer without torch; a bug of ours keeps its traceback."""

import json
import os
import subprocess
import sys

import pytest

import adapt

HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "datasets")
CODE = f"""
import json, sys
from adapt.cli.main import main
words = json.loads(sys.argv[1])
codes = [main(w) for w in words]
print("\\n" + json.dumps([codes, [m for m in {HEAVY} if m in sys.modules]]))
"""


def outcome(commands, cwd):
    """Exit codes of commands in one process, which heavy modules were imported, and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands)], capture_output=True, text=True, cwd=cwd, timeout=60,
        env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes, heavy = json.loads(done.stdout.splitlines()[-1])
    return codes, heavy, done.stdout, done.stderr


def test_help_and_version_import_nothing_heavy(tmp_path):
    words = [["--help"], ["--version"], [], *([name, "--help"] for name in ("train", "generate", "demo"))]
    codes, heavy, out, _ = outcome([*words, ["train", "--settings"], ["train", "--settings", "--json"]], tmp_path)
    assert codes == [0, 0, 2, 0, 0, 0, 0, 0] and heavy == []
    assert f"adapt {adapt.__version__}" in out
    for word in ("--resume", "--fresh", "--dry-run", "--adapter", "--negative-prompt", "learning_rate"):
        assert word in out


USAGE = {
    "nothing to train on": ["train"],
    "unknown command": ["trian"],
    "unknown option": ["train", "--nope"],
    "no folder": ["train", "nowhere"],
    "empty folder": ["train", "empty"],
    "unknown key": ["train", "empty", "rnk=8"],
    "rank 0": ["train", "empty", "rank=0"],
    "steps -1": ["train", "empty", "steps=-1"],
    "learning rate nan": ["train", "empty", "learning_rate=nan"],
    "no such base": ["train", "empty", "--base", "nowhere"],
    "pickled base": ["train", "empty", "--base", "model.ckpt"],
    "nothing to resume": ["train", "empty", "--resume"],
    "contradiction": ["train", "empty", "--resume", "--fresh"],
    "no config": ["train", "empty", "--config", "nowhere.yaml"],
    "no folder, dry run": ["train", "nowhere", "--dry-run"],
    "bad validation": ["train", "empty", "validation=2"],
    "no prompt": ["generate"],
    "no prompt file": ["generate", "--prompts", "nowhere.txt"],
    "bad size": ["generate", "--prompt", "fox", "--size", "big"],
    "bad scheduler": ["generate", "--prompt", "fox", "--scheduler", "eulr"],
    "bad count": ["generate", "--prompt", "fox", "--count", "none"],
    "no such base to draw with": ["generate", "--prompt", "fox", "--base", "nowhere"],
}


def test_usage_errors_import_nothing_heavy(tmp_path):
    (tmp_path / "empty").mkdir()
    codes, heavy, out, err = outcome(list(USAGE.values()), tmp_path)
    assert dict(zip(USAGE, codes, strict=True)) == dict.fromkeys(USAGE, 2)
    assert heavy == []
    assert out.count("\n") == 2, out
    assert len(err.splitlines()) == len(USAGE) and all(line.startswith("error: ") for line in err.splitlines())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]


def test_importing_adapt_imports_nothing_heavy():
    code = f"import sys, adapt; adapt.TrainSettings(rank=2); print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", [False, True], ids=["adapt", "python -m adapt"])
def test_a_bug_of_ours_keeps_its_traceback(tmp_path, module):
    """It is injected by a module that Python imports first."""
    (tmp_path / "sitecustomize.py").write_text(
        "import adapt.config\ndef resolve(*_, **__): raise KeyError('injected')\nadapt.config.resolve = resolve\n"
    )
    start = ["-m", "adapt"] if module else ["-c", "from adapt.cli.main import run; run()"]
    done = subprocess.run(
        [sys.executable, *start, "train", "."], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 101 and done.stdout == ""
    assert "Traceback" in done.stderr and "KeyError: 'injected'" in done.stderr
    assert "bug in adapt" in done.stderr.splitlines()[-1]
