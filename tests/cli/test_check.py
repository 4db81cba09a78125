"""`adapt check`: 0 clean, 1 findings, 2 cannot be read; nothing is changed."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.loading import _slow_counter, caption_counter, find

OPENMOJI = Path(__file__).parents[2] / "examples" / "data" / "openmoji" / "train"


@pytest.fixture
def flawed(tmp_path):
    """The example pictures with a torn file, a copy, a caption that is too long and a stray caption."""
    folder = shutil.copytree(OPENMOJI, tmp_path / "pictures")
    (folder / "fox.png").write_bytes((OPENMOJI / "fox.png").read_bytes()[:200])
    shutil.copy(OPENMOJI / "owl.png", folder / "owl-again.png")
    (folder / "owl-again.txt").write_text("owl " * 40, "utf-8")
    (folder / "nothing.txt").write_text("nothing", "utf-8")
    return folder


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_a_clean_set_is_0_and_gets_advice(capsys):
    assert main(["check", str(OPENMOJI)]) == 0
    out = capsys.readouterr().out
    assert "48 pictures" in out and "nothing was found" in out and "validation=0.1 holds out 5" in out


def test_findings_are_1_each_with_what_to_do_and_nothing_is_changed(flawed, capsys):
    before = digests(flawed)
    assert main(["check", str(flawed)]) == 1
    out = capsys.readouterr().out
    assert "fox.png is cut off or damaged" in out
    assert "owl.png shows the same pixels as owl-again.png: remove one" in out
    assert "owl-again.png has a caption of" in out and "reads the first 16" in out
    assert "nothing.txt" in out
    assert digests(flawed) == before


def test_exit_zero_and_json(flawed, capsys):
    assert main(["check", str(flawed), "--json", "--exit-zero"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == 49 and told["captions"] == "sidecars"
    assert {"unreadable", "duplicate", "long caption"} <= {finding["kind"] for finding in told["findings"]}
    assert told["held_out"]["names"] and "fox.png" not in told["held_out"]["names"]


def test_what_cannot_be_read_is_2_in_one_line(tmp_path, capsys):
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert main(["check", str(OPENMOJI), "--base", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


def test_judging_imports_no_torch(tmp_path):
    """Captions are counted by the tokenizer alone."""
    code = f"import sys; from adapt.cli.main import main; main(['check', {str(OPENMOJI)!r}]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("False"), done.stdout + done.stderr


def test_captions_are_counted_as_the_base_reads_them(tiny_base):
    """Both kinds of base: BERT's words and CLIP's bytes; with and without `tokenizer.json`."""
    for reference in ("icons", str(tiny_base)):
        backbone, count = Backbone.load(reference), caption_counter(find(reference))
        slow = _slow_counter(find(reference) / "tokenizer")
        for caption in ("red apple", "", "a xylophonist's Ünïcode 🦊 " * 4):
            assert count(caption) == backbone.count_tokens(caption) == slow(caption)
