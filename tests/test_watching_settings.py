"""Settings of watching: what is allowed, what is refused with its reason, what other trainers call them."""

import shutil

import pytest

from adapt.api.gather import gather
from adapt.api.origins import origins_of
from adapt.config import OTHER_NAMES, TrainSettings, kind, require_known, resolve, validate
from adapt.errors import SettingsError
from adapt.training.schedule import forwards, rounds


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("validate_at=sometimes", "validate_at"),
        ("validation_members=-1", "validation_members"),
        ("validation_pairs=maybe", "validation_pairs"),
        ("keep=both", "keep"),
        ("trackers=[tensorbord]", "trackers"),
        ("previews=", ""),
        ('previews=""', "a prompt file has a name"),
        ("validation_times=0", "validation_times"),
    ],
)
def test_what_is_not_allowed_is_named(word, told):
    if not told:
        assert told in str(resolve(overrides=["previews=[]"]).settings.previews)
        return
    with pytest.raises(SettingsError, match=told):
        resolve(overrides=[word])


def test_an_average_that_is_off_cannot_be_kept():
    with pytest.raises(SettingsError, match=r"keep \(ema\): there is no moving average with ema=0"):
        validate({"keep": "ema", "ema": 0.0})
    assert validate({"keep": "raw", "ema": 0.0}).keep == "raw"


def test_one_tracker_needs_no_brackets():
    assert resolve(overrides=["trackers=wandb"]).settings.trackers == ("wandb",)
    assert resolve(overrides=["trackers=[wandb, mlflow]"]).settings.trackers == ("wandb", "mlflow")


def test_a_prompt_file_and_a_list_are_two_things():
    assert resolve(overrides=["previews=prompts.txt"]).settings.previews == "prompts.txt"
    assert resolve(overrides=["previews=[prompts.txt]"]).settings.previews == ("prompts.txt",)


def test_the_others_names_lead_to_settings_that_exist():
    ours = {"trackers", "validate_every", "validation_times", "preview_every", "previews", "validation", "ema"}
    assert ours <= set(OTHER_NAMES.values())
    require_known(sorted(set(OTHER_NAMES.values())))
    with pytest.raises(SettingsError, match="did you mean trackers"):
        resolve(overrides=["report_to=wandb"])


def test_what_changes_a_measurement_is_of_the_course_and_what_only_tells_is_not():
    assert {kind(name) for name in ("validation_times", "validation_pairs", "keep")} == {"course"}
    assert {kind(name) for name in ("validate_at", "validation_members", "trackers", "previews")} == {"show"}


# ---------------------------------------------------------------------------------------------- what it costs
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (10 * 2 + 10) * 8),
        ({"keep": "ema"}, (10 + 10) * 8),
        ({"ema": 0.0, "validation_members": 0}, 10 * 8),
        ({"validation_members": 99, "validation_pairs": True, "keep": "raw"}, (10 + 50) * 16),
    ],
    ids=["default", "one kind", "least", "most"],
)
def test_forward_passes_are_counted(changes, expected):
    assert forwards(TrainSettings(**changes), held_out=10, trained=50) == expected
    assert forwards(TrainSettings(**changes), held_out=0, trained=50) == 0


def test_rounds_are_counted():
    assert rounds(TrainSettings(steps=100, validate_every=50)) == 3
    assert rounds(TrainSettings(steps=120, validate_every=50)) == 4


# ---------------------------------------------------------------------------------------------- origins
def test_origins_of_the_command_line_the_base_and_an_earlier_run():
    resolved = resolve(overrides=["rank=4", "optimizer=lion"])
    settled = resolved.settings.model_copy(update={"resolution": 64})
    found = origins_of(settled, resolved.origins)
    assert (found["rank"], found["resolution"], found["seed"]) == ("command line", "the base", "default")
    assert found["learning_rate"] == "lion"  # it has a default of its own
    again = resolve(overrides=["steps=9"], stored=settled.model_dump(mode="json"))
    later = origins_of(again.settings, again.origins, found)
    assert (later["rank"], later["steps"], later["resolution"]) == ("command line", "command line", "the base")
    assert set(found) == set(TrainSettings.model_fields)


def test_origins_of_settings_made_in_python():
    settings = TrainSettings(rank=16, steps=7)
    found = origins_of(
        settings.model_copy(update={"resolution": 64}), dict.fromkeys(settings.model_fields_set, "given")
    )
    assert (found["rank"], found["steps"], found["seed"], found["resolution"]) == (
        "given",
        "given",
        "default",
        "the base",
    )


# ---------------------------------------------------------------------------------------------- auto
def test_auto_holds_out_a_share_of_enough_pictures_and_says_when_there_are_too_few(pictures, tmp_path):
    found = gather(pictures, TrainSettings(validation="auto"))
    assert (len(found.train), len(found.held_out)) == (8, 4)
    assert any("only indicate" in warning for warning in found.warnings)
    for path in sorted(pictures.iterdir())[:16]:  # eight of them, with captions
        shutil.copy(path, tmp_path)
    few = gather(tmp_path, TrainSettings(validation="auto"))
    assert (len(few.train), len(few.held_out)) == (8, 0)
    assert any("no held-out evidence" in warning for warning in few.warnings)
