"""Presets stand where defaults would, give way to everything that is said, and are documented from the code."""

from pathlib import Path

import pytest

import adapt
from adapt.cli.main import main
from adapt.config import TrainSettings, resolve, validate
from adapt.config.presets import PRESETS, markdown
from adapt.errors import SettingsError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", PRESETS)
def test_its_values_are_allowed_differ_from_the_defaults_and_say_where_they_come_from(name):
    values = {setting: value for setting, (value, _) in PRESETS[name].values.items()}
    resolved = resolve(overrides=[f"preset={name}"])
    assert {setting: getattr(resolved.settings, setting) for setting in values} == values
    assert all(TrainSettings.model_fields[setting].default != value for setting, value in values.items())
    assert {s for s, origin in resolved.origins.items() if origin == f"preset={name}"} == set(values)


def test_what_is_said_goes_before_it(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("rank: 3\n")
    resolved = resolve(file, ["preset=subject", "steps=70"])
    assert (resolved.settings.rank, resolved.origins["rank"]) == (3, str(file))
    assert (resolved.settings.steps, resolved.settings.epochs) == (70, None)
    assert resolved.settings.caption_dropout == 0.0
    assert TrainSettings(preset="style", flip=0.0).flip == 0.0
    assert TrainSettings(preset="style", optimizer="schedulefree").ema == 0.0


def test_a_stored_run_is_not_changed_by_it():
    stored = {**TrainSettings(rank=5).model_dump(mode="json"), "preset": "subject"}
    assert validate(stored).rank == 5 and validate(stored).epochs is None


def test_the_page_is_the_codes_and_every_setting_has_its_reason():
    page = (ROOT / "docs" / "presets.md").read_text("utf-8")
    assert page == markdown(), "run `make docs`"
    for preset in PRESETS.values():
        assert preset.advice in page and all(len(reason) > 20 for _, reason in preset.values.values())


def test_a_preset_for_another_kind_of_base_is_refused(captioned_folder, tiny_base, tmp_path):
    with pytest.raises(SettingsError, match="bases that take a picture beside the words"):
        adapt.train(
            captioned_folder, output=tmp_path / "run", base=str(tiny_base), settings=TrainSettings(preset="edit")
        )
    assert not (tmp_path / "run").exists()


def test_the_dry_run_shows_it(captioned_folder, tiny_base, capsys):
    assert main(["train", str(captioned_folder), "--base", str(tiny_base), "--dry-run", "preset=style", "rank=2"]) == 0
    out = capsys.readouterr().out
    assert "preset=style" in out and "0.7" in out


@pytest.fixture(scope="module")
def captioned_folder(tmp_path_factory):
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")
    return folder
