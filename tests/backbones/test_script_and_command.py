"""`training_scripts/train_lora.py` and `adapt train` are one job for every medium: the same files, the same refusals."""

import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from adapt.cli.main import main

TINY = ["steps=2", "batch_size=2", "rank=2", "validation=0.25", "validation_times=1", "sampling_steps=1", "save_every=2",
        "caption_dropout=0.1"]  # fmt: skip


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    root, numbers = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for k in range(4):
        soundfile.write(root / f"{k}.wav", numbers.uniform(-0.5, 0.5, (40 + 20 * k, 2)), 64)
        (root / f"{k}.txt").write_text(f"noise {k}")
    return root


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(("family", "data"), [("stable-audio", "sounds"), ("wan", "clips")])
def test_script_and_command_write_the_same_adapter_for_sounds_and_clips(
    script, folders, request, tmp_path, capsys, family, data
):
    words = [str(request.getfixturevalue(data)), "--base", str(folders(family)), *TINY]
    assert main(["train", *words, "--output", str(tmp_path / "command" / "run")]) == 0
    theirs = capsys.readouterr().err.replace("command", "script")
    code, _, ours = script(*words, "--output", tmp_path / "script" / "run")
    assert code == 0, ours
    one, other = (contents(tmp_path / name / "run" / "adapter") for name in ("command", "script"))
    assert list(one) == list(other) and [name for name in one if name.endswith(".safetensors")]
    assert [name for name in one if one[name] != other[name]] == []
    records = [json.loads((tmp_path / name / "run" / "run.json").read_text()) for name in ("command", "script")]
    for key in ("settings", "origins", "findings", "data", "base"):
        assert records[0][key] == records[1][key]
    warned = [[line for line in text.splitlines() if line.startswith("warning")] for text in (theirs, ours)]
    assert warned[0] == warned[1]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory, folders, tiny_base, tiny_editor, pictures):
    """What each door has to refuse: (data, base, output, words), by what is asked for."""
    foxes = tmp_path_factory.mktemp("foxes") / "fox"
    foxes.mkdir()
    for k in range(4):
        Image.effect_noise((32, 32), 50).convert("RGB").save(foxes / f"{k}.png")
    elsewhere = tmp_path_factory.mktemp("runs")
    return {
        "the output lies inside the pictures": (pictures, tiny_base, pictures / "run", []),
        "the output lies inside the held-out pictures": (foxes, tiny_base, pictures / "a", [f"validation={pictures}"]),
        "an edit base without sources": (pictures, tiny_editor, elsewhere / "b", []),
        "a class that the base has not": (foxes.parent, folders("dit"), elsewhere / "c", ["validation=0.25"]),
        "pictures for a base of clips": (pictures, folders("wan"), elsewhere / "d", []),
        "a start that is not there": (pictures, tiny_base, elsewhere / "e", ["init_from=nowhere"]),
    }


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("the output lies inside the pictures", "inside the pictures"),
        ("the output lies inside the held-out pictures", "inside the pictures"),
        ("an edit base without sources", "the base edits pictures"),
        ("a class that the base has not", "no such class"),
        ("pictures for a base of clips", "holds no clips"),
        ("a start that is not there", "nowhere"),
    ],
)
def test_both_refuse_the_same_with_the_same_words(script, refusals, capsys, what, said):
    data, base, output, words = refusals[what]
    words = [str(data), "--base", str(base), "--output", str(output), *TINY, *words]
    assert main(["train", *words]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    code, out, err = script(*words)
    assert (code, out) == (2, "") and err.splitlines()[-1] == told and said in told
    assert not output.exists()
