"""What a sweep recommends stands in adapter.json, in the card and in the file for UIs; generate draws so, and says it."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from adapt.adapter import Adapter, Facts
from adapt.api.network import text_width
from adapt.api.recommend import store, why_not
from adapt.api.sweep import sweep
from adapt.backbones import Backbone
from adapt.card import is_untouched, render
from adapt.cli.advice import advice_in_use
from adapt.cli.main import main
from adapt.errors import RunError
from adapt.evaluation.grid import Setting
from adapt.formats import FILE_NAME, LoraWeights, Pair
from adapt.sampling.request import Request

PRESENT = {"scale": 1.0, "guidance_scale": 2.0, "steps": 2, "zero_terminal_snr": False}


@pytest.fixture(scope="module")
def backbone(make_tiny, tmp_path_factory):
    """As wide as Stable Diffusion 1, so that UIs have bases of its kind."""
    folder = tmp_path_factory.mktemp("wide") / "base"
    make_tiny(text_width=768).save_pretrained(folder)
    return Backbone.load(str(folder))


@pytest.fixture(scope="module")
def made(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "style"
    torch.manual_seed(1)
    names = [n for n, m in backbone.denoiser.named_modules() if n.endswith("to_q")]
    widths = {n: backbone.denoiser.get_submodule(n).weight.shape for n in names}
    pairs = {n: Pair(torch.randn(2, i), torch.randn(o, 2), 2.0) for n, (o, i) in widths.items()}
    base = {"reference": backbone.reference, "family": backbone.family, "fingerprint": backbone.fingerprint()}
    adapter = Adapter(LoraWeights({"unet": pairs}), Facts(base=base, recommended=PRESENT), "style").save(folder)
    (folder / "README.md").write_text(render("style", adapter.facts), "utf-8")
    (folder / "kohya").mkdir()
    adapter.export(folder / "kohya" / "style.safetensors", "kohya", text_width=text_width(backbone))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "style")
    return tmp_path / "style"


@pytest.fixture(scope="module")
def swept(backbone, made):
    """One setting; that it is recommended is decided here."""
    found = sweep(
        backbone, Adapter.load(made), prompt=["a", "b"], count=1, scales=(0.5,), guidance_scales=(1.0,), steps=(1,)
    )
    row = replace(found.swept.rows[0], style=0.4, style_error=0.1)
    return replace(found.swept, rows=(row,), recommended=row.setting, references=20)


def test_everything_that_tells_the_settings_follows(folder, swept, backbone):
    stored = store(folder, swept, swept.recommended, backbone)
    facts = Adapter.read_facts(folder)
    assert facts.recommended == {**PRESENT, "scale": 0.5, "guidance_scale": 1.0, "steps": 1}
    assert facts.sweep["references"] == 20 and facts.sweep["style"] == 0.4
    card = (folder / "README.md").read_text("utf-8")
    assert is_untouched(card) and "| steps | 1 |" in card and "against 20 reference pictures" in card
    sidecar = json.loads((folder / "kohya" / "style.json").read_text("utf-8"))
    assert sidecar["preferred weight"] == 0.5
    assert "adapter scale 1 → 0.5, guidance scale 2 → 1, steps 2 → 1" in str(stored)
    assert Adapter.load(folder).digest == swept.digest  # the weights are what they were


def test_a_card_that_a_person_has_changed_stays(folder, swept, backbone):
    mine = (folder / "README.md").read_text("utf-8").replace("Recommended", "My favourite")
    (folder / "README.md").write_text(mine, "utf-8")
    assert "stays" in str(store(folder, swept, swept.recommended, backbone))
    assert (folder / "README.md").read_text("utf-8") == mine


def test_where_nothing_can_be_stored_it_is_said_why(folder, swept, backbone, tmp_path):
    bare = shutil.copy(folder / FILE_NAME, tmp_path / "bare.safetensors")
    assert "no adapter.json" in why_not(bare)
    cached = tmp_path / "models--me--style" / "snapshots" / "0123"
    shutil.copytree(folder, cached)
    assert "adapt pull" in why_not(cached) and why_not(folder) is None
    with pytest.raises(RunError, match="cannot be stored"):
        store(bare, swept, swept.recommended, backbone)


def test_generate_says_what_it_takes_from_the_adapter_and_explicit_options_win(
    folder, swept, backbone, tmp_path, capsys
):
    store(folder, swept, swept.recommended, backbone)
    words = ["generate", "--prompt", "a", "--adapter", str(folder), "--json", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "note: adapter scale 0.5, guidance scale 1, 1 steps: recommended for style by its sweep" in told.err
    result = json.loads(told.out)
    assert result["adapters"][0]["scale"] == 0.5
    assert (result["pictures"][0]["steps"], result["pictures"][0]["guidance_scale"]) == (1, 1.0)
    adapter = Adapter.load(folder)
    explicit = Request(prompt="a", steps=2, guidance_scale=3.0)
    assert advice_in_use([(adapter, 0.7)], [explicit]) == []
    assert advice_in_use([(adapter, None)], [explicit]) == [
        "note: adapter scale 0.5: recommended for style by its sweep"
    ]
    second = advice_in_use([(adapter, 1.0), (adapter, None)], [Request(prompt="a")])
    assert "steps" in second[0] and "scale 0.5" not in second[0] and "steps" not in second[1]


def test_the_command_stores_from_sixteen_pictures_on_or_when_it_is_asked_to(folder, tmp_path, capsys, monkeypatch):
    from adapt.evaluation.advice import Advice

    one = Setting(1.0, 1.0, 1)
    monkeypatch.setattr("adapt.api.sweep.advise", lambda *told: Advice(one, "made up"))
    monkeypatch.chdir(tmp_path)
    words = ["sweep", str(folder), "--prompt", "a", "--scale", "1", "--guidance-scale", "1", "--steps", "1"]

    def steps(*more):
        assert main([*words, *more]) == 0
        return Adapter.read_facts(folder).recommended["steps"], capsys.readouterr()

    count, told = steps("--count", "2")
    assert count == 2 and "only indicate" in told.err
    count, told = steps("--count", "2", "--store")
    assert (
        count == 1 and "stored in" in told.out and "adapter.json: adapter scale 1 → 1, guidance scale 2 → 1" in told.out
    )
    bare = shutil.copy(folder / FILE_NAME, tmp_path / "bare.safetensors")
    assert main(["sweep", str(bare), "--prompt", "a", "--store"]) == 2
    assert "--store" in capsys.readouterr().err
