"""`adapt check`: 0 clean, 1 findings, 2 cannot be read; nothing is changed."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.loading import caption_counter, find, frame_of
from adapt.loading.counter import _slow_counter

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
    assert "48 pictures" in out and "nothing was found" in out and "validation=auto holds out 10 of them" in out


def test_what_is_proposed_is_what_a_run_with_auto_holds_out(tmp_path, capsys):
    """Of 12 pictures on, as the run; of fewer, the line that the run says too."""
    from adapt.api.gather import gather
    from adapt.config import TrainSettings

    for number, said in ((13, "their figures only indicate"), (11, "No picture is held out")):
        folder = tmp_path / str(number)
        folder.mkdir()
        for path in sorted(OPENMOJI.glob("*.png"))[:number]:
            shutil.copy(path, folder)
            shutil.copy(path.with_suffix(".txt"), folder)
        assert main(["check", str(folder), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["held_out"]
        run = gather(folder, TrainSettings(validation="auto"), "icons")
        assert told["names"] == [picture.name for picture in run.held_out]
        assert said in told["note"] and told["note"] in run.warnings
        assert main(["check", str(folder)]) == 0
        assert said in capsys.readouterr().out


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


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with two folders of example pictures, a list of both, and kohya's file of one."""
    for name, pictures in (("fruit", ("airplane", "avocado", "fox")), ("birds", ("owl", "automobile"))):
        (tmp_path / name).mkdir()
        for picture in pictures:
            for ending in (".png", ".txt"):
                shutil.copy(OPENMOJI / f"{picture}{ending}", tmp_path / name)
    (tmp_path / "all.yaml").write_text("sources: [{path: fruit, weight: 3}, {path: birds, weight: 1}]")
    kohya = "[[datasets]]\nbatch_size = {}\n[[datasets.subsets]]\nimage_dir = '{}'\ncache_info = true\n"
    (tmp_path / "one.toml").write_text(kohya.format(2, "fruit"))
    (tmp_path / "two.toml").write_text(kohya.format(2, "fruit") + kohya.format(3, "birds"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys, *words):
    main(["check", *words, "--json", "--exit-zero"])
    return json.loads(capsys.readouterr().out)


def test_several_sources_with_their_shares_of_the_draws(place, capsys):
    assert told(capsys, "all.yaml")["draws"] == {"fruit": 0.75, "birds": 0.25}
    assert main(["check", "all.yaml", "--exit-zero"]) == 0
    out = capsys.readouterr().out
    assert "5 pictures, captions from: sources" in out and "draws    75.0% from fruit" in out


def test_a_dataset_config_with_what_it_changes_not_and_leaves_open(place, capsys):
    notes = told(capsys, "one.toml")["notes"]
    assert any("change nothing (1): cache_info" in note for note in notes)
    assert any("batch_size differs between subsets (2, 3)" in note for note in told(capsys, "two.toml")["notes"])
    (place / "bad.toml").write_text("[genral]")
    assert main(["check", "bad.toml"]) == 2
    assert "did you mean general?" in capsys.readouterr().err


def test_pictures_smaller_than_the_base_s_own_size_are_told(place, tiny_base, capsys):
    Image.open(place / "fruit" / "airplane.png").resize((40, 40)).save(place / "fruit" / "airplane.png")
    assert [f["name"] for f in told(capsys, "fruit")["findings"] if f["kind"] == "enlarged"] == ["airplane.png"]
    assert not [f for f in told(capsys, "fruit", "--base", str(tiny_base))["findings"] if f["kind"] == "enlarged"]
    larger = told(capsys, "fruit", "--resolution", "512")["findings"]
    assert len([f for f in larger if f["kind"] == "enlarged"]) == 3


def test_what_is_cut_off_each_picture(place, capsys):
    Image.open(place / "fruit" / "airplane.png").crop((0, 0, 72, 36)).save(place / "fruit" / "airplane.png")
    square, bucketed = (told(capsys, "fruit", *words) for words in ((), ("--buckets",)))
    assert square["cut"] == {"airplane.png": 0.5, "avocado.png": 0.0, "fox.png": 0.0}
    assert 0 < bucketed["cut"]["airplane.png"] < 0.2
    assert [f["name"] for f in square["findings"] if f["kind"] == "cropped"] == ["airplane.png"]
    assert not [f for f in bucketed["findings"] if f["kind"] == "cropped"]
    main(["check", "fruit"])
    assert "of a picture on average, 50.0% at most" in capsys.readouterr().out
    assert main(["check", "fruit", "--buckets", "--resolution", "63"]) == 2
    assert "a multiple of" in capsys.readouterr().err


def test_masks_are_judged_and_mentioned(place, capsys):
    Image.new("L", (72, 72), 0).save(place / "fruit" / "airplane-masklabel.png")
    report = told(capsys, "fruit")
    assert [(f["name"], f["kind"]) for f in report["findings"] if f["kind"] == "mask"] == [("airplane.png", "mask")]
    assert report["pictures"] == 3 and any("without a mask beside others" in note for note in report["notes"])


def test_the_size_of_a_base_is_in_its_configuration(tiny_base, tmp_path):
    for reference in ("icons", str(tiny_base)):
        backbone = Backbone.load(reference)
        assert frame_of(find(reference)) == (backbone.resolution, backbone.scale_factor)
    assert frame_of(tmp_path) is None
