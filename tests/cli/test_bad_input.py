"""Wrong input is one line on standard error, exit code 2, and nothing is written or lost."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from adapt.adapter import Adapter, Facts
from adapt.cli.main import main
from adapt.formats import LoraWeights, Pair
from adapt.training import folder


def tree(root):
    """Name → digest of everything below."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found


@pytest.fixture
def place(tmp_path, pictures, monkeypatch):
    """An empty working folder beside a copy of the pictures."""
    shutil.copytree(pictures, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(place, capsys, words, *expected, code=2):
    """Runs the command; one line that holds what is expected, and everything as it was."""
    before = tree(place)
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("error: "), err
    for text in expected:
        assert text in err
    assert tree(place) == before


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def empty(place):
    (place / "other").mkdir()


def without_pictures(place):
    write(place / "other" / "notes.md", b"none here")


def truncated(place):
    data = (place / "data" / "03.png").read_bytes()
    write(place / "data" / "03.png", data[: len(data) // 2])


def one_pixel(place):
    Image.new("RGB", (1, 1)).save(place / "data" / "03.png")


def latin_caption(place):
    write(place / "data" / "03.txt", "blühend".encode("latin-1"))


DATA = [
    ("other", lambda place: None, ["other"]),
    ("other", empty, ["other"]),
    ("other", without_pictures, ["other"]),
    ("data", truncated, ["03.png", "1 of 12 pictures cannot be used"]),
    ("data", one_pixel, ["03.png", "1 x 1"]),
    ("data", latin_caption, ["03.txt", "UTF-8", "byte"]),
]


@pytest.mark.parametrize(("data", "prepare", "expected"), DATA, ids=[
    "missing folder", "empty folder", "folder without pictures", "truncated PNG", "1x1 picture", "caption not UTF-8",
])  # fmt: skip
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_pictures(place, tiny_base, capsys, data, prepare, expected, dry):
    prepare(place)
    words = ["train", data, "--base", tiny_base, "--output", "runs/a", "steps=2", *dry]
    refused(place, capsys, words, *expected)


WORDS = [
    (["rnk=8"], ["rnk", "did you mean rank?"]),
    (["learning_rat=1", "stps=2"], ["did you mean learning_rate?", "did you mean steps?"]),
    (["network_dim=8"], ["did you mean rank?"]),
    (["rank=0"], ["rank", "greater than or equal to 1", "given 0"]),
    (["steps=-1"], ["steps", "given -1"]),
    (["learning_rate=nan"], ["learning_rate", "finite", "nan"]),
    (["rank=0", "steps=-1"], ["rank", "steps"]),
    (["rank"], ["key=value", "rank"]),
    (["batch_size=6", "accumulation=4"], ["multiple of accumulation"]),
    (["targets=[nowhere]"], ["targets match no layer", "nowhere", "to_q", "conv1"]),
    (["resolution=17"], ["resolution does not fit the base", "multiple of"]),
    (["validation=0.001x"], ["0.001x"]),
    (["--base", "nowhere"], ["no such base", "nowhere", "icons"]),
    (["--base", "model.ckpt"], [".ckpt", "never read"]),
    (["--base", "data"], ["model_index.json is missing"]),
    (["targets=[nowhere]", "--fresh"], ["targets match no layer"]),
    (["--resume"], ["no run to resume", "runs/a"]),
    (["--resume", "--fresh"], ["contradict"]),
    (["--config", "nowhere.yaml"], ["no such settings file", "nowhere.yaml"]),
    (["--config", "broken.yaml"], ["cannot be read", "broken.yaml"]),
    (["--config", "list.yaml"], ["holds no mapping", "list.yaml"]),
    (["--config", "unknown.yaml"], ["did you mean rank?", "unknown.yaml"]),
    (["--output", "data/03.png"], ["output folder is a file"]),
    (["--output", "data/03.png/run"], ["output folder cannot be written"]),
    (["--output", "elsewhere"], ["not empty and holds no run"]),
    (["--output", "data/runs"], ["inside the pictures"]),
    (["--nope"], ["No such option", "--nope", "adapt --help"]),
]


@pytest.mark.parametrize(("words", "expected"), WORDS, ids=[" ".join(words) for words, _ in WORDS])
def test_words_of_train(place, tiny_base, capsys, words, expected):
    write(place / "broken.yaml", b"rank: [1")
    write(place / "list.yaml", b"- rank")
    write(place / "unknown.yaml", b"rnk: 3")
    write(place / "elsewhere" / "thesis.txt", b"mine")
    refused(place, capsys, ["train", "data", "--base", tiny_base, "--output", "runs/a", *words], *expected)


def test_a_command_that_is_not_there(place, capsys):
    refused(place, capsys, ["trian"], "No such command", "trian")
    refused(place, capsys, ["train"], "give the folder of pictures")


def test_json_errors_are_one_object(place, tiny_base, capsys):
    assert main(["train", "nowhere", "--base", str(tiny_base), "--output", "runs/a", "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(err)["error"]
    assert out == "" and error["code"] == "DataError" and error["given"] == "nowhere" and error["next"]


def test_an_output_folder_in_use(place, tiny_base, capsys):
    with folder.claimed(place / "runs" / "a"):
        refused(place, capsys, ["train", "data", "--base", tiny_base, "--output", "runs/a", "steps=1"], "another run")


def test_an_output_folder_that_cannot_be_written(pictures, tiny_base):
    """As another user, because root may write everywhere."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o555)
    read, written = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            sys.stderr = os.fdopen(written, "w", buffering=1)
            code = main(["train", str(pictures), "--base", str(tiny_base), "--output", str(place / "a"), "steps=1"])
            os._exit(code)
        finally:
            os._exit(77)
    os.close(written)
    with os.fdopen(read) as file:
        err = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2, err
    assert err.count("\n") == 1 and "cannot be written" in err and str(place) in err
    assert list(place.iterdir()) == []
    place.rmdir()


# ---------------------------------------------------------------------------------------------- drawing
@pytest.fixture
def adapter(place):
    """An adapter for a base that is not the tiny one."""
    pairs = {
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": Pair(torch.ones(2, 16), torch.ones(16, 2), 2.0)
    }
    base = {"reference": None, "family": "stable-diffusion", "fingerprint": "0" * 16}
    Adapter(LoraWeights({"unet": pairs}), Facts(base=base)).save(place / "adapter")
    return place / "adapter" / "pytorch_lora_weights.safetensors"


DRAWING = [
    (["--adapter", "model.ckpt"], [".ckpt files are never read"]),
    (["--adapter", "model.pt"], [".pt files are never read"]),
    (["--adapter", "model.bin"], [".bin files are never read"]),
    (["--adapter", "nowhere.safetensors"], ["no such adapter"]),
    (["--adapter", "data"], ["holds no adapter"]),
    (["--adapter", "half.safetensors"], ["half.safetensors", "cut off"]),
    (["--adapter", "start.safetensors"], ["start.safetensors", "damaged"]),
    (["--adapter", "adapter"], ["made for another base"]),
    (["--prompts", "nowhere.txt"], ["nowhere.txt"]),
    (["--adapter", "adapter:strong"], ["adapter"]),
]


@pytest.mark.parametrize(("words", "expected"), DRAWING, ids=[" ".join(words) for words, _ in DRAWING])
def test_words_of_generate(place, tiny_base, adapter, capsys, words, expected):
    data = adapter.read_bytes()
    write(place / "half.safetensors", data[: len(data) // 2 + 200])
    write(place / "start.safetensors", data[:20])
    for name in ("ckpt", "pt", "bin"):  # a pickle that would leave a trace when opened
        write(place / f"model.{name}", b"cos\nsystem\n(S'touch opened'\ntR.")
    refused(
        place, capsys, ["generate", "--prompt", "a fox", "--base", tiny_base, "--output", "drawn", *words], *expected
    )


# ---------------------------------------------------------------------------------------------- only a warning
def test_a_caption_without_a_picture_and_a_licence_are_warnings(place, tiny_base, capsys):
    write(place / "data" / "99.txt", b"nobody's caption")
    write(place / "data" / "LICENSE", b"CC BY-SA 4.0")
    write(place / "data" / "LICENSE.txt", b"CC BY-SA 4.0")
    before = tree(place)
    words = ["train", "data", "--base", str(tiny_base), "--output", "runs/a", "--dry-run", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["forecast"]["pictures"] == 12
    assert [w for w in told["warnings"] if "99.txt" in w] and not [w for w in told["warnings"] if "LICENSE" in w]
    assert tree(place) == before
