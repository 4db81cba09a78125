"""`adapt train` with all kinds of data: lists of sources, kohya's files, archives; what is wrong is one line and exit 2."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.cli.main import main
from adapt.cli.train import run_name

FEW = [
    "steps=2",
    "batch_size=4",
    "rank=2",
    "sampling_steps=1",
    "guidance_scale=1",
    "targets=[to_q]",
    "previews=[a fox]",
]
KOHYA = """
[general]
shuffle_caption = true
flip_aug = true
[[datasets]]
resolution = 16
batch_size = 4
  [[datasets.subsets]]
  image_dir = 'fox'
  num_repeats = 3
  keep_tokens = 1
  [[datasets.subsets]]
  image_dir = 'animals'
  is_reg = true
  class_tokens = 'an animal'
"""


def picture(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (18, 16, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def place(tmp_path, tiny_base, monkeypatch):
    """A working folder: a fox with captions, animals without, an archive, a list of all, kohya's file."""
    for folder in ("fox", "animals"):
        (tmp_path / folder).mkdir()
    for i in range(6):
        (tmp_path / "fox" / f"{i}.png").write_bytes(picture(i))
        (tmp_path / "fox" / f"{i}.txt").write_text(
            f"fox {i}, red, sly, looking left" if i == 0 else f"fox {i}, red, sly"
        )
    for i in range(3):
        (tmp_path / "animals" / f"{i}.png").write_bytes(picture(10 + i))
    with tarfile.open(tmp_path / "more.tar", "w") as tar:
        for i in range(3):
            for ending, data in (("png", picture(20 + i)), ("txt", f"fox {20 + i}, red".encode())):
                info = tarfile.TarInfo(f"{i}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    sources = [
        {"path": "fox", "trigger": "zxc"},
        {"path": "more.tar", "repeats": 2},
        {"path": "animals", "prior": True},
    ]
    (tmp_path / "my-sources.json").write_text(json.dumps({"sources": sources}))
    (tmp_path / "kohya.toml").write_text(KOHYA)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(tiny_base, data, *words):
    return ["train", data, "--base", str(tiny_base), *words]


def test_a_run_on_several_sources(place, tiny_base, capsys):
    words = ["shuffle_tags=true", "tag_dropout=0.2", "flip=0.5", "validation=0.2", "validation_times=1"]
    assert main(command(tiny_base, "my-sources.json", *FEW, *words)) == 0, capsys.readouterr().err
    run = place / "runs" / "my-sources"
    assert (run / "adapter" / "pytorch_lora_weights.safetensors").is_file()
    facts = json.loads((run / "adapter" / "adapter.json").read_text())
    assert (facts["trigger"], facts["triggers"]) == ("zxc", ["zxc"])  # a source's own; the prior one has none
    record = json.loads((run / "run.json").read_text())
    assert sum(record["pictures"]) == 12 and record["settings"]["tag_dropout"] == 0.2
    err = capsys.readouterr().err
    assert "never mirrored, because a caption says left or right" in err


def test_the_same_data_goes_on_and_other_repeats_are_another_course(place, tiny_base, capsys):
    words = command(tiny_base, "my-sources.json", *FEW, "save_every=1")
    assert main(words) == 0, capsys.readouterr().err
    assert main([*words, "--resume"]) == 0, capsys.readouterr().err
    listed = json.loads((place / "my-sources.json").read_text())
    listed["sources"][1]["repeats"] = 3
    (place / "my-sources.json").write_text(json.dumps(listed))
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    assert "data" in capsys.readouterr().err


def test_kohya_s_file_brings_its_settings(place, tiny_base, capsys):
    assert main(command(tiny_base, "kohya.toml", *FEW, "--dry-run", "--json", "flip=0.25")) == 0, (
        capsys.readouterr().err
    )
    told = json.loads(capsys.readouterr().out)["settings"]
    assert told["shuffle_tags"] == {"value": True, "from": "kohya.toml"}
    assert told["resolution"] == {"value": 16, "from": "kohya.toml"}
    assert told["flip"] == {"value": 0.25, "from": "command line"}
    assert told["keep_tags"] == {"value": 0, "from": "default"}


def test_a_run_on_kohya_s_file_and_from_python(place, tiny_base, capsys):
    import adapt

    plain = [word for word in FEW if not word.startswith("batch_size")]
    assert main(command(tiny_base, "kohya.toml", *plain)) == 0, capsys.readouterr().err
    record = json.loads((place / "runs" / "kohya" / "run.json").read_text())
    assert record["settings"]["batch_size"] == 4 and record["settings"]["flip"] == 0.5
    settings = adapt.TrainSettings(
        steps=2, rank=2, sampling_steps=1, guidance_scale=1, targets=("to_q",), previews=("a fox",)
    )
    adapt.train("kohya.toml", output=place / "python", base=str(tiny_base), settings=settings)
    other = json.loads((place / "python" / "run.json").read_text())
    assert other["settings"] == record["settings"] and other["data"] == record["data"]


def test_masks_and_archives_train(place, tiny_base, capsys):
    Image.new("L", (16, 18), 255).save(place / "fox" / "1-masklabel.png")
    assert main(command(tiny_base, "fox", *FEW, "masks=files")) == 0, capsys.readouterr().err
    assert main(command(tiny_base, "more.tar", *FEW)) == 0, capsys.readouterr().err
    assert (place / "runs" / "more" / "adapter").is_dir()


@pytest.mark.parametrize(
    ("data", "name"),
    [("./my-images", "my-images"), ("a/my-sources.yaml", "my-sources"), ("kohya.toml", "kohya"), ("a/x.tar", "x"),
     ("shards/s-{000..003}.tar", "shards"), ("user/name", "name"), ("v1.2", "v1.2"), ("table.parquet", "table")],
)  # fmt: skip
def test_a_run_is_named_after_its_data(data, name):
    assert run_name(Path(data)) == name


WRONG = [
    (["gone.yaml"], "no such list of sources"),
    (["gone.toml"], "no such dataset_config"),
    (["gone.tar"], "does not exist"),
    (["gone/pictures"], "no such folder, and no data set of this name"),
    (["rows-{0..3}.tar"], "4 of 4 archives are missing"),
    (["typo.json"], "source 1: repeat is unknown (did you mean repeats?)"),
    (["typo.toml"], "flip_augg is unknown (did you mean flip_aug?)"),
    (["kohya.toml", "batch_size=0"], "batch_size"),
    (["open.toml"], "batch_size differs between subsets (4, 2)"),
    (["fox", "masks=files"], "There are no masks"),
    (["fox", "keep_tags=2"], "keep_tags (2) does something only with"),
    (["counts", "repeats=folders"], "count that is no number of repeats"),
]


@pytest.mark.parametrize(("words", "expected"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_what_is_wrong_is_one_line_before_anything_is_loaded(place, tiny_base, capsys, words, expected, dry):
    (place / "typo.json").write_text('{"sources": [{"path": "fox", "repeat": 3}]}')
    (place / "typo.toml").write_text(KOHYA.replace("flip_aug", "flip_augg"))
    (place / "open.toml").write_text(KOHYA + "[[datasets]]\nbatch_size = 2\n[[datasets.subsets]]\nimage_dir = 'fox'\n")
    (place / "counts" / "0_fox").mkdir(parents=True)
    (place / "counts" / "0_fox" / "a.png").write_bytes(picture(0))
    assert main(command(tiny_base, *words, *dry)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and expected in err, err
    assert not (place / "runs").exists()
