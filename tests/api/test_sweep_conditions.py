"""A sweep draws classes, reference pictures and controls as `generate` does, and nothing where they are not told."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from adapt.api.generate import generate
from adapt.api.sweep import sweep
from adapt.api.sweeping import Drawer
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.errors import SettingsError
from adapt.evaluation.grid import Setting
from adapt.report.contact import side_of, strip

ONE = {"scales": (1.0,), "guidance_scales": (2.0,), "steps": (1,), "count": 1}
AT = Setting(1.0, 2.0, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Class folders: pictures of two known classes and of one that the adapter does not know; one has a caption."""
    root, lot = tmp_path_factory.mktemp("reference"), np.random.default_rng(0)
    for label in ("blue-ball", "owl", "toad"):
        (root / label).mkdir()
        for number in range(2):
            Image.fromarray(lot.integers(0, 255, (16, 16, 3), np.uint8)).save(root / label / f"{number}.png")
    (root / "owl" / "1.txt").write_text("in snow")
    return root


@pytest.fixture(scope="module")
def picture(folders):
    return folders / "owl" / "0.png"


def expected(backbone, adapter, setting, asked):
    drawn = [
        generate(backbone, adapters=[(adapter, setting.scale)], guidance_scale=setting.guidance_scale,
                 steps=setting.steps, **each)[0]
        for each in asked
    ]  # fmt: skip
    return np.asarray(strip(drawn, side_of(backbone.resolution)), int)


def apart(found, setting, strip_of):
    return np.abs(np.asarray(found.strips[setting], int) - strip_of).max()


def test_classes_are_drawn_as_generate_draws_them_and_the_base_is_told_their_names(backbone, taught):
    adapter, _ = taught("class")
    found = sweep(backbone, adapter, class_name=["finch", "owl"], prompt="in snow", class_scale=3.0, **ONE)
    asked = [{"prompt": "in snow", "class_name": label, "class_scale": 3.0} for label in ("finch", "owl")]
    assert apart(found, AT, expected(backbone, adapter, AT, asked)) <= 1
    other = [{**one, "class_name": ""} for one in asked]
    assert apart(found, AT, expected(backbone, adapter, AT, other)) > 1  # the null, which was swept once
    base = Setting(0.0, 2.0, 2)
    words = [{"prompt": f"{label}, in snow"} for label in ("finch", "owl")]
    assert apart(found, base, expected(backbone, adapter, base, words)) <= 1
    assert found.swept.prompts == ("finch, in snow", "owl, in snow")
    assert found.swept.as_dict()["class_scale"] == 3.0


def test_class_folders_as_reference_tell_their_classes(backbone, taught, folders):
    found = sweep(backbone, taught("class")[0], reference=folders, **ONE)
    assert found.swept.prompts == ("blue-ball", "owl", "owl, in snow")  # no toads: it knows none


def test_references_and_controls_are_told_to_every_setting(backbone, taught, picture):
    adapter, _ = taught("image", "control")
    told = {"image_prompt": picture, "image_prompt_scale": 3.0, "control": picture, "control_scale": 0.5}
    found = sweep(backbone, adapter, **told, **ONE)
    assert apart(found, AT, expected(backbone, adapter, AT, [{"prompt": "", **told}])) <= 1
    assert apart(found, AT, expected(backbone, adapter, AT, [{"prompt": "", **told, "control": None}])) > 1
    base = Setting(0.0, 2.0, 2)
    assert apart(found, base, expected(backbone, adapter, base, [{"prompt": ""}])) <= 1


@pytest.mark.parametrize(
    ("parts", "asked", "message"),
    [
        (("class",), {"prompt": "a"}, "draws classes, and none is given.*blue-ball, finch, owl"),
        (("class",), {"prompt": "a", "class_name": "fnich"}, "no such class.*did you mean finch"),
        ((), {"prompt": "a", "class_name": "finch"}, "no adapter that knows classes"),
        ((), {"prompt": "a", "class_scale": 2.0}, "no adapter that knows classes"),
        (("image",), {"prompt": "a"}, "draws from reference pictures, and none is given.*--image-prompt"),
        (("control",), {"prompt": "a"}, "draws from a control, and none is given.*--control"),
    ],
)
def test_what_would_sweep_the_null_is_refused_before_anything_is_drawn(
    parts, asked, message, backbone, taught, monkeypatch
):
    monkeypatch.setattr("adapt.api.sweeping.draw", lambda *a, **k: pytest.fail("drawn"))
    with pytest.raises(SettingsError, match=message):
        sweep(backbone, taught(*parts)[0], **asked, **ONE)


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ({"prompt": "a"}, ("class", "image")),
        ({"prompt": "a", "class_scale": 3.0}, ("class",)),
        ({"prompt": "a", "class_scale": 3.0}, ("class", "image")),
        ({"prompt": "a", "class_scale": 1.0}, ("class",)),
        ({"prompt": "", "class_scale": 3.0}, ("class",)),
        ({"prompt": "", "class_scale": 1.0}, ("class",)),
        ({"prompt": "a", "class_scale": 3.0, "image_prompt_scale": 2.0}, ("class", "image")),
        ({"prompt": "a", "class_scale": 3.0, "image_prompt_scale": 1.0}, ("class", "image")),
        ({"prompt": "", "class_scale": 3.0, "image_prompt_scale": 2.0}, ("class", "image")),
    ],
)
def test_evaluations_are_those_of_the_network(asked, parts, taught, picture, tiny_base, monkeypatch):
    backbone, rows = Backbone.load(str(tiny_base)), []
    predict = backbone.predict
    monkeypatch.setattr(backbone, "predict", lambda x_t, t, told: rows.append(len(x_t)) or predict(x_t, t, told))
    shown = {"image_prompt": picture} if "image" in parts else {}
    call, counts = Drawer.__call__, {}

    def counted(self, setting):
        rows.clear()
        drawn = call(self, setting)
        counts[setting] = sum(rows)
        return drawn

    monkeypatch.setattr(Drawer, "__call__", counted)
    axes = {**ONE, "guidance_scales": (1.0, 2.0)}
    found = sweep(backbone, taught(*parts)[0], class_name="owl", **asked, **shown, **axes)
    assert {row.setting: row.evaluations for row in found.swept.rows} == {s: n for s, n in counts.items() if s.scale}
    assert found.swept.base.evaluations == counts[found.swept.base.setting]


def test_the_command_takes_them_and_what_is_stored_says_how(taught, folders, tmp_path, capsys):
    _, folder = taught("class")
    words = ["sweep", str(folder), "--scale", "1", "--guidance-scale", "1", "--steps", "1", "--count", "1"]
    asked = [*words, "--class", "*", "--class-scale", "2", "--output", str(tmp_path / "out"), "--json"]
    assert main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["prompts"] == ["blue-ball", "finch", "owl"] and told["class_scale"] == 2.0
    assert told["settings"][0]["evaluations"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", "a"], "draws classes, and none is given"),
        ([], "draws classes, and none is given"),
        (["--class", "fnich"], "did you mean finch"),
        (["--class", "owl", "--class-scale", "inf"], "class_scale is out of range"),
        (["--class", "owl", "--image-prompt", "no.png"], "no.png"),
        (["--class", "owl", "--size", "big"], "--size cannot be read"),
    ],
)
def test_wrong_conditions_are_one_line_and_exit_2(words, message, taught, tmp_path, capsys):
    _, folder = taught("class")
    assert main(["sweep", str(folder), *words, "--output", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)
    assert not (tmp_path / "o").exists()
