"""A sweep draws what `generate` draws at every setting, from the same noise, and leaves the base as it was."""

import html.parser
import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from adapt.adapter import Adapter, Facts
from adapt.api.generate import generate
from adapt.api.sweep import sweep
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.errors import AdapterError, DataError, SettingsError
from adapt.evaluation.grid import Setting
from adapt.formats import LoraWeights, Pair
from adapt.report.contact import side_of, strip
from adapt.report.sweep import render_sweep

AXES = {"scales": (0.5, 1.0), "guidance_scales": (1.0, 2.0), "steps": (1, 2)}


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return Backbone.load(str(tiny_base))


@pytest.fixture(scope="module")
def adapter(backbone, tiny_base, tmp_path_factory):
    """Trained by nobody; its samples were drawn from two prompts."""
    torch.manual_seed(1)
    names = [n for n, m in backbone.denoiser.named_modules() if n.endswith(("to_q", "to_v"))]
    widths = {n: backbone.denoiser.get_submodule(n).weight.shape for n in names}
    pairs = {n: Pair(torch.randn(2, i), torch.randn(o, 2), 2.0) for n, (o, i) in widths.items()}
    facts = Facts(
        base={"reference": str(tiny_base), "family": backbone.family, "fingerprint": backbone.fingerprint()},
        recommended={"scale": 1.0, "guidance_scale": 2.0, "steps": 2},
        samples=({"file": "samples/01.png", "prompt": "a"}, {"file": "samples/02.png", "prompt": "b"}),
    )
    folder = tmp_path_factory.mktemp("swept") / "style"
    Adapter(LoraWeights({"unet": pairs}), facts).save(folder)
    return Adapter.load(folder)


@pytest.fixture(scope="module")
def found(backbone, adapter):
    return sweep(backbone, adapter, **AXES, count=2, seed=5)


def test_every_strip_is_what_generate_draws_at_its_setting(found, backbone, adapter):
    assert found.swept.prompts == ("a", "b")  # the samples'
    for setting in (Setting(0.5, 2.0, 2), Setting(1.0, 1.0, 1), Setting(0.0, 2.0, 2)):
        asked = [(prompt, seed) for seed in (5, 6) for prompt in "ab"]
        drawn = [
            generate(backbone, prompt=prompt, seed=seed, adapters=[(adapter, setting.scale)], steps=setting.steps,
                     guidance_scale=setting.guidance_scale)[0]
            for prompt, seed in asked
        ]  # fmt: skip
        expected = strip(drawn, side_of(backbone.resolution))
        different = np.abs(np.asarray(expected, int) - np.asarray(found.strips[setting], int))
        assert different.max() <= 1


def test_the_base_is_bit_for_bit_what_it_was_and_the_sheet_the_same_again(found, backbone, adapter):
    before = {name: p.clone() for name, p in backbone.denoiser.named_parameters()}
    again = sweep(backbone, adapter, **AXES, count=2, seed=5)
    assert all(torch.equal(p, before[name]) for name, p in backbone.denoiser.named_parameters())
    assert again.sheet.tobytes() == found.sheet.tobytes()
    assert [row.score for row in again.swept.rows] == [row.score for row in found.swept.rows]
    assert again.swept.rows[0].diversity == found.swept.rows[0].diversity


def test_the_sheet_has_every_setting_at_its_place(found):
    sheet, height = found.sheet, found.strips[Setting(0.5, 1.0, 1)].height
    assert sheet.height > 5 * height  # the base, and two guidance scales for each of two scales
    places = []
    for setting in found.swept.grid.settings:
        one = found.strips[setting]
        spots = [(x, y) for y in range(sheet.height - height + 1) for x in (150, 150 + one.width + 16)
                 if sheet.crop((x, y, x + one.width, y + height)).tobytes() == one.tobytes()]  # fmt: skip
        assert len(spots) == 1, setting
        places.append((setting, spots[0]))
    for (a, (xa, ya)), (b, (xb, yb)) in pairwise(places):
        assert (xb > xa) if b.steps > a.steps else (yb > ya)


def test_with_a_reference_style_is_told_and_its_captions_are_drawn(backbone, adapter, pictures):
    axes = {"scales": (1.0,), "guidance_scales": (1.0,), "steps": (1,)}
    one = sweep(backbone, adapter, **axes, reference=pictures)
    swept = one.swept
    assert swept.references == 12 and set(swept.prompts) == {f"picture {number}" for number in range(12)}
    assert swept.pictures >= 16 and swept.base.style == 0 and swept.rows[0].style_error > 0
    assert swept.recommended in (None, swept.grid.settings[0]) and swept.reason
    told = swept.as_dict()
    assert told["candidates"] == 4 and 0 <= told["settings"][0]["prompt"] <= 1
    page = render_sweep(swept, one.strips)
    assert "reference pictures" in page and swept.reason.split(":")[0] in page


def test_reference_pictures_that_cannot_be_used_are_named(adapter, backbone, pictures, tmp_path):
    with pytest.raises(DataError, match="too few reference"):
        (tmp_path / "few").mkdir()
        for number in range(3):
            shutil.copy(pictures / f"{number:02d}.png", tmp_path / "few")
        sweep(backbone, adapter, reference=tmp_path / "few")
    shutil.copy(pictures / "03.png", tmp_path / "few")
    (tmp_path / "few" / "04.png").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"is a GIF.*04\.png"):
        sweep(backbone, adapter, reference=tmp_path / "few")


def test_seconds_are_taken_of_every_setting(found):
    assert len(found.swept.rows) == 8 and all(row.seconds > 0 for row in found.swept.rows)
    assert [row.setting for row in found.swept.rows] == found.swept.grid.settings
    assert found.swept.base.setting == Setting(0.0, 2.0, 2) and found.swept.present == Setting(1.0, 2.0, 2)


def test_what_cannot_be_drawn_is_refused_before_anything_is(backbone, adapter, monkeypatch):
    monkeypatch.setattr("adapt.api.sweeping.draw", lambda *a, **k: pytest.fail("drawn"))
    for wrong, told in (({"steps": (2000,)}, "steps"), ({"count": 0}, "count"), ({"prompt": [3]}, "prompt")):
        with pytest.raises(SettingsError, match=told):
            sweep(backbone, adapter, **{**AXES, **wrong})
    bare = Adapter(adapter.weights)
    with pytest.raises(SettingsError, match="no prompt"):
        sweep(backbone, bare, **AXES)
    with pytest.raises(AdapterError, match="another base"):
        other = Adapter(adapter.weights, Facts(base={"fingerprint": "no"}))
        sweep(backbone, other, prompt="a", **AXES)


class Sources(html.parser.HTMLParser):
    """Every address that a page loads, and its text."""

    def __init__(self):
        super().__init__()
        self.found, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_else_and_escapes_prompts(backbone, adapter):
    hostile = "<script>alert(1)</script>"
    one = sweep(backbone, adapter, prompt=hostile, scales=(1.0,), guidance_scales=(1.0,), steps=(1,), count=1)
    page = render_sweep(one.swept, one.strips)
    read = Sources()
    read.feed(page)
    assert len(read.found) == 2 and all(address.startswith("data:image/webp;base64,") for address in read.found)
    assert "<script" not in page and hostile in read.text
    assert not re.search(r"https?://", page)


def test_the_command_writes_a_sheet_a_page_and_its_figures(adapter, tmp_path, capsys):
    folder = tmp_path / "style"
    adapter.save(folder)
    words = [
        "sweep",
        str(folder),
        "--prompt",
        "a",
        "--count",
        "1",
        "--steps",
        "2,1",
        "--guidance-scale",
        "1",
        "--scale",
        "1",
    ]
    assert main([*words, "--output", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {**json.loads((tmp_path / "out" / "sweep.json").read_text()), "files": told["files"], "stored": None}
    assert [one["steps"] for one in told["settings"]] == [1, 2]
    assert Image.open(told["files"]["sheet"]).size[1] > 200
    assert "adapter scale" in (tmp_path / "out" / "sweep.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--steps", "1,x"], "--steps cannot be read"),
        (["--steps", "1.5"], "--steps cannot be read"),
        (["--guidance-scale", "0"], "guidance scales are out of range"),
        (["--device", "tpu"], "unknown --device"),
        (["--output", "file"], "--output is a file"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(words, told, adapter, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    adapter.save(tmp_path / "style")
    assert main(["sweep", "style", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert main(["sweep", "style:0.5"]) == 2 and "--scale 0.5" in capsys.readouterr().err
