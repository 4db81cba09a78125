"""docs/sharing.md: every command and every line of Python on it runs, in order, against a local Hub."""

import re
import shlex
from pathlib import Path

import pytest

from adapt.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture
def at_work(hub, base, made, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setenv("HF_TOKEN", "hf_memememememememememe")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "runs" / "my-style" / "adapter")
    return tmp_path


def test_the_page_holds_what_is_tested():
    words = [line.split()[1] for language, body in BLOCKS if not language for line in body.splitlines()]
    assert words == ["push", "push", "pull", "generate", "card", "card"] and [b[0] for b in BLOCKS].count("python") == 1


def test_its_commands_run_in_order(hub, at_work, tiny_base, capsys):
    for line in (line for language, body in BLOCKS if not language for line in body.splitlines()):
        words = shlex.split(line)[1:]
        if words[0] == "generate":
            words += ["--base", str(tiny_base), "--steps", "1", "--device", "cpu"]
        assert main(words) == 0, capsys.readouterr().err
    assert hub["me/my-style"].tags.keys() == {"v1"} and len(hub["me/my-style"].titles) == 2
    assert (at_work / "their-style" / "adapter.json").is_file() and len(list((at_work / "pictures").glob("*.png"))) == 1


def test_its_python_runs(hub, at_work):
    (code,) = (body for language, body in BLOCKS if language == "python")
    names = {}
    exec(compile(code, "docs/sharing.md", "exec"), names)
    assert names["page"].endswith("/me/my-style") and names["adapter"].name == "my-style"
    assert (names["folder"] / "README.md").is_file()
