"""Every example runs, and what it leaves behind is what it says."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("[0-9]*.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples run, in the order of their numbers: later ones use what earlier ones made."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """`run("01_train.py", "--steps", "1")` → its standard output."""
    monkeypatch.chdir(folder)

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *words])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def trained(folder):
    """The run of the first example; it is made once, whichever test comes first."""
    output = folder / "trained"
    if not output.exists():
        saved, sys.argv = sys.argv, ["01_train.py", "--steps", "2", "--output", str(output)]
        try:
            runpy.run_path(str(ROOT / "examples" / "01_train.py"), run_name="__main__")
        finally:
            sys.argv = saved
    return output


def is_grey(picture):
    low, high = picture.convert("L").getextrema()
    return low == high


def test_the_examples_are_these_and_each_is_short():
    assert EXAMPLES == ["01_train.py", "02_generate.py", "03_plain_diffusers.py", "04_class_folders.py", "05_share.py",
                        "06_classes.py", "07_class_growth.py", "08_image_prompt.py", "09_control.py",
                        "10_your_own_family.py", "11_any_score.py", "12_joint_guidance.py"]  # fmt: skip
    for name in EXAMPLES:
        lines = (ROOT / "examples" / name).read_text("utf-8").splitlines()
        assert len(lines) <= (80 if name.startswith("10_") else 60), name  # that one has a family and its loop in it
        assert lines[0].startswith('"""'), f"{name} says what it shows"


def test_training_leaves_an_adapter_with_its_facts_samples_and_card(trained):
    adapter = trained / "adapter"
    with safe_open(adapter / "pytorch_lora_weights.safetensors", framework="pt") as file:
        keys = list(file.keys())
    assert len(keys) == 2 * 107
    assert all(key.startswith("unet.") for key in keys)
    facts = json.loads((adapter / "adapter.json").read_text("utf-8"))
    assert facts["training"]["pictures"] == 48
    assert facts["training"]["held_out"]["pictures"] == 16
    assert len(list((adapter / "samples").glob("*.png"))) == 2
    assert "penguin" in (adapter / "README.md").read_text("utf-8")


def test_generating_shows_base_half_and_whole_adapter(run, trained):
    run("02_generate.py", "--adapter", str(trained), "--prompt", "penguin", "--steps", "2", "--output", "sheet.png")
    sheet = Image.open("sheet.png")
    assert sheet.size == (3 * 64, 64)
    columns = [sheet.crop((x, 0, x + 64, 64)) for x in (0, 64, 128)]
    assert not is_grey(columns[0])
    assert len({column.tobytes() for column in columns}) == 3, "the adapter shows, and its scale shows"


def test_without_an_adapter_there_is_one_column(run):
    run("02_generate.py", "--prompt", "penguin", "--steps", "1", "--output", "plain.png")
    assert Image.open("plain.png").size == (64, 64)


def test_a_score_turns_a_drawing_red(run):
    import numpy as np

    run("11_any_score.py", "--prompt", "fish", "--steps", "3", "--output", "red.png")
    sheet = np.asarray(Image.open("red.png"), float)
    assert sheet.shape == (64, 128, 3)
    plain, red = (side[..., 0].mean() - side[..., 1:].mean() for side in (sheet[:, :64], sheet[:, 64:]))
    assert red > plain + 5


def test_plain_diffusers_draws_what_adapt_draws(run, trained):
    import numpy as np

    from adapt import Adapter, Backbone, generate

    run("03_plain_diffusers.py", "--adapter", str(trained / "adapter"), "--steps", "2", "--output", "theirs.png")
    adapter, backbone = Adapter.load(trained), Backbone.load("icons")
    ours = generate(backbone, prompt="penguin", adapters=[adapter], steps=2, seed=7)[0]
    theirs = Image.open("theirs.png")
    difference = np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max()
    assert difference <= 1
    base = generate(backbone, prompt="penguin", steps=2, seed=7, guidance_scale=adapter.recommended["guidance_scale"])
    assert base[0].tobytes() != theirs.tobytes(), "the adapter shows"


def test_class_folders_become_captions_and_the_trigger_is_kept(run):
    told = run("04_class_folders.py", "--steps", "1", "--output", "classes")
    assert told.count(" animal\n") == 8 and told.count(" fruit\n") == 4
    facts = json.loads(Path("classes/adapter/adapter.json").read_text("utf-8"))
    assert facts["trigger"] == "openmoji"
    assert facts["training"]["pictures"] == 12
    assert not is_grey(Image.open("classes/adapter/samples/01.png"))


def test_classes_are_learned_and_one_row_is_drawn_for_each(run):
    told = run("06_classes.py", "--steps", "2", "--sampling-steps", "2", "--output", "animals")
    assert "bear, cat, chicken, fish, horse, insect, monkey, whale" in told
    assert Image.open("animals/classes.png").size == (2 * 64, 8 * 64)


def test_classes_are_added_and_the_old_ones_stay_byte_for_byte(run):
    if not Path("animals").exists():
        run("06_classes.py", "--steps", "1", "--sampling-steps", "1", "--output", "animals")
    told = run(
        "07_class_growth.py", "--adapter", "animals", "--steps", "2", "--sampling-steps", "2", "--output", "more"
    )
    assert "cat before and after: the same bytes" in told
    assert not is_grey(Image.open("more/pig.png")) and not is_grey(Image.open("more/mouse.png"))


def test_pictures_ask_for_drawings_and_the_scale_shows(run):
    run("08_image_prompt.py", "--steps", "2", "--sampling-steps", "2", "--output", "asked")
    sheet = Image.open("asked/references.png")
    assert sheet.size == (4 * 64, 4 * 64)
    assert len({sheet.crop((x, 0, x + 64, 64)).tobytes() for x in (64, 128, 192)}) == 3


def test_a_control_decides_a_drawing(run):
    run("09_control.py", "--net", "--steps", "2", "--sampling-steps", "2", "--output", "along")
    sheet = Image.open("along/control.png")
    assert sheet.size == (3 * 64, 4 * 64)
    assert sheet.crop((64, 0, 128, 64)).tobytes() != sheet.crop((128, 0, 192, 64)).tobytes()


def test_class_and_words_have_a_dial_each(run):
    if not Path("animals").exists():
        run("06_classes.py", "--steps", "1", "--sampling-steps", "1", "--output", "animals")
    run("12_joint_guidance.py", "--adapter", "animals", "--sampling-steps", "2", "--output", "joint.png")
    sheet = Image.open("joint.png")
    cells = {sheet.crop((x, y, x + 64, y + 64)).tobytes() for x in (0, 64, 128) for y in (0, 64, 128)}
    assert sheet.size == (3 * 64, 3 * 64) and len(cells) == 9


def test_a_push_is_shown_without_network_or_login(run, trained):
    told = run("05_share.py", "--adapter", str(trained / "adapter"), "--repository", "me/style")
    assert "push to me/style" in told and "pytorch_lora_weights.safetensors" in told and "nothing was sent" in told
    assert "the pictures are cc-by-sa-4.0" in told


def test_a_family_of_ones_own_is_trained_adapted_and_drawn(run):
    from adapt.backbones import FAMILIES

    try:
        said = run("10_your_own_family.py", "--steps", "40")
    finally:
        FAMILIES.pop("series", None)
    errors = float(re.search(r"([-\d.]+) standard errors", said)[1])
    assert errors > 3 and "mean of |x|" in said
