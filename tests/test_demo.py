"""`adapt demo` with a short recipe: what it makes, and that a second call makes only what is missing."""

import json
from pathlib import Path

import pytest
from PIL import Image

from adapt.api.demo import CELL, run_demo, table
from adapt.cli.main import main

OPENMOJI = Path(__file__).parents[1] / "examples" / "data" / "openmoji"
RECIPE = """
steps: 2
batch_size: 2
rank: 2
validate_every: 1
validation_times: 1
save_every: 1
sampling_steps: 1
guidance_scale: 1.0
previews: [penguin]
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "short.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    return run_demo(OPENMOJI, recipe, folder)


def test_it_makes_an_adapter_and_a_comparison_of_every_held_out_noun(made):
    assert made.done == ("adapter", "comparison")
    assert {p.name for p in (made.folder / "adapter").iterdir()} == {
        "pytorch_lora_weights.safetensors", "adapter.json", "samples", "README.md",
    }  # fmt: skip
    with Image.open(made.folder / "comparison.png") as picture:
        assert picture.width > 6 * CELL and picture.height > 8 * CELL  # 16 nouns in two blocks of three columns
    held_out = json.loads((made.folder / "adapter" / "adapter.json").read_text())["training"]["held_out"]
    assert held_out["pictures"] == 16
    assert f"{held_out['base']:.4f} before, {held_out['loss']:.4f} after" in "\n".join(made.lines())


def test_a_second_call_makes_only_what_is_missing(made, recipe):
    weights = made.folder / "adapter" / "pytorch_lora_weights.safetensors"
    before = weights.stat().st_mtime_ns
    again = run_demo(OPENMOJI, recipe, made.folder)
    assert again.done == () and "already" in again.lines()[0]
    comparison = (made.folder / "comparison.png").read_bytes()
    (made.folder / "comparison.png").unlink()
    assert run_demo(OPENMOJI, recipe, made.folder).done == ("comparison",)
    assert (made.folder / "comparison.png").read_bytes() == comparison
    assert weights.stat().st_mtime_ns == before


def test_without_the_pictures_it_says_where_they_are(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("adapt.cli.demo.DATA", tmp_path / "nowhere")
    assert main(["demo", "--output", str(tmp_path / "run")]) == 2
    assert "clone it" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_table_holds_every_picture_where_its_row_and_column_cross():
    rows = [f"noun {i}" for i in range(3)]
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    sheet = table(rows, {"base": [Image.new("RGB", (8, 8), c) for c in colours]})
    found = [sheet.getpixel((sheet.width - CELL // 2 - 16, 20 + CELL // 2 + y * (CELL + 8))) for y in range(3)]
    assert found == colours
