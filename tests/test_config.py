"""One strict model: every fault is named, all at once, with where each value came from."""

import json
from typing import get_args

import pytest

from adapt import config
from adapt.config import OTHER_NAMES, TrainSettings, kind, parse_overrides, read_file, resolve, validate
from adapt.errors import SettingsError

NAMES = list(TrainSettings.model_fields)


def _file(tmp_path, text):
    (tmp_path / "settings.yaml").write_text(text, "utf-8")
    return tmp_path / "settings.yaml"


# ------------------------------------------------------------------------------------------------------------- precedence
def test_command_line_over_file_over_the_run_over_defaults(tmp_path):
    file = _file(tmp_path, "rank: 4\nsteps: 50\nseed: 9\n")
    resolved = resolve(file, ["rank=8", "flip=0.5"], {"seed": 3, "steps": 40, "alpha": 2.0, "warmup": 1})
    settings, origins = resolved.settings, resolved.origins
    assert (settings.rank, origins["rank"]) == (8, "command line")
    assert (settings.flip, origins["flip"]) == (0.5, "command line")
    assert (settings.steps, origins["steps"]) == (50, str(file))
    assert (settings.seed, origins["seed"]) == (9, str(file))
    assert (settings.alpha, origins["alpha"]) == (2.0, "the run")
    assert (settings.ema, origins["ema"]) == (0.98, "default")
    assert set(origins) == set(NAMES)


def test_a_value_that_is_given_as_its_default_still_says_who_gave_it():
    assert resolve(overrides=["rank=16"]).origins["rank"] == "command line"


def test_what_is_stored_resolves_to_itself():
    settings = resolve(overrides=["previews=[red fox, tulip]", "targets=[to_q]", "alpha=1e-3"]).settings
    stored = json.loads(settings.model_dump_json())
    assert resolve(stored=stored).settings == settings


def test_json_is_a_settings_file_too(tmp_path):
    assert resolve(_file(tmp_path, '{"rank": 4, "previews": ["a"]}')).settings.previews == ("a",)


# ----------------------------------------------------------------------------------------------------------- unknown names
@pytest.mark.parametrize(
    ("given", "meant"), [("learning_rat", "learning_rate"), ("Rank", "rank"), ("batchsize", "batch_size")]
)
def test_a_misspelt_name_is_answered_with_the_nearest(given, meant):
    with pytest.raises(SettingsError, match=rf"{given} \(did you mean {meant}\?\)"):
        resolve(overrides=[f"{given}=1"])


def test_names_of_other_trainers_are_answered_with_ours(tmp_path):
    assert len(OTHER_NAMES) > 20
    for given, meant in OTHER_NAMES.items():
        assert meant in NAMES and given not in NAMES
        with pytest.raises(SettingsError, match=rf"{given} \(did you mean {meant}\?\)"):
            resolve(_file(tmp_path, f"{given}: 1"))


def test_all_unknown_names_at_once_and_where_they_stand(tmp_path):
    with pytest.raises(SettingsError) as caught:
        resolve(_file(tmp_path, "network_dim: 4\nxyzzy: 1\n3: 4\n"))
    text = str(caught.value)
    assert all(part in text for part in ("network_dim (did you mean rank?)", "xyzzy", "3", "settings.yaml"))
    assert "xyzzy (did" not in text


# ------------------------------------------------------------------------------------------------------------ wrong values
WRONG = ({"a": 1}, [[1]], object())


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_refuses_a_wrong_kind(name):
    mapping = "dict" in str(TrainSettings.model_fields[name].annotation)
    for value in WRONG[mapping:]:
        with pytest.raises(SettingsError, match=rf"^{name}: "):
            validate({name: value})


@pytest.mark.parametrize("name", NAMES)
def test_yes_is_no_number(name):
    """kohya's `flip_aug: true` must not become a probability of 1, nor `rank: true` a rank of 1."""
    annotation = TrainSettings.model_fields[name].annotation
    if bool in (annotation, *get_args(annotation)):
        assert getattr(validate({name: True}), name) is True
        return
    for value in (True,) if "no" in get_args(annotation) else (True, False):  # YAML's bare `no` is false: see below
        with pytest.raises(SettingsError, match=rf"^{name}: "):
            validate({name: value})


def _is_number(name):
    annotation = TrainSettings.model_fields[name].annotation
    return any(part in (int, float) for part in (annotation, *get_args(annotation))) or "Annotated" in str(annotation)


@pytest.mark.parametrize("name", [name for name in NAMES if _is_number(name)])
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", ".nan", ".inf", "1e999"])
def test_numbers_are_finite(name, text, tmp_path):
    for origin in ({"overrides": [f"{name}={text}"]}, {"file": _file(tmp_path, f"{name}: {text}")}):
        with pytest.raises(SettingsError, match=f"{name}: "):
            resolve(**origin)


SIGNED = {
    "logit_mean": "time_sampling=logit_normal",
    "mode_scale": "time_sampling=mode",
    "adaptive_noise_scale": "noise_offset=0.1",
}
"""Numbers that may be below zero, with the setting that they need."""


@pytest.mark.parametrize("name", [name for name in NAMES if _is_number(name)])
def test_negative_numbers_are_refused_by_name(name):
    for text in ("-1", "-0.5", "-1e9") if name not in SIGNED else ():
        with pytest.raises(SettingsError, match=f"{name}: "):
            resolve(overrides=[f"{name}={text}"])
    if name in SIGNED:
        found = resolve(overrides=[f"{name}=-0.5", SIGNED[name]]).settings
        assert getattr(found, name) == -0.5


def test_there_are_numbers_to_check():
    assert len([name for name in NAMES if _is_number(name)]) > 25


@pytest.mark.parametrize(
    "word",
    ["rank=0", "rank=-1", "rank=1.5", "rank=4096", "steps=0", "steps=-1", "batch_size=0", "learning_rate=0",
     "learning_rate=-1", "learning_rate=11", "flip=1.1", "dropout=1", "ema=1", "alpha=0", "precision=fp8",
     "schedule=cosin", "validation=1", "validation=-0.1", "validation=1.5", "seed=-1", "time_high=1.01",
     "targets=to_q", "guidance_scale=0.5", "min_snr_gamma=0", "resolution=8", "max_grad_norm=0", "time_sampling=beta"],
)  # fmt: skip
def test_values_out_of_range_are_named_with_what_was_given(word):
    name, _, value = word.partition("=")
    with pytest.raises(SettingsError, match=rf"^{name}: .*given .*{value}"):
        resolve(overrides=[word])


def test_all_faults_at_once_in_one_line():
    with pytest.raises(SettingsError) as caught:
        resolve(overrides=["rank=0", "steps=-1", "learning_rate=nan", "precision=half"])
    text = str(caught.value)
    assert "\n" not in text
    assert all(f"{name}: " in text for name in ("rank", "steps", "learning_rate", "precision"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["time_low=0.5", "time_high=0.5"], "must lie below"),
        (["batch_size=8", "accumulation=3"], "multiple of accumulation"),
    ],
)
def test_contradictions_are_refused(words, message):
    with pytest.raises(SettingsError, match=message):
        resolve(overrides=words)


# ------------------------------------------------------------------------------------------------------- how it is written
def test_scientific_notation_is_a_number_everywhere(tmp_path):
    """YAML 1.1 reads 1e-4 as text."""
    for origin in ({"overrides": ["learning_rate=1e-4", "steps=1e3"]},
                   {"file": _file(tmp_path, "learning_rate: 1e-4\nsteps: 1e3\n")}):  # fmt: skip
        settings = resolve(**origin).settings
        assert settings.learning_rate == 1e-4 and settings.steps == 1000


@pytest.mark.parametrize("text", ["1e5", "nan", "infinity", "42", "0.5", "2024-01-31", "2024-13-45", "yes", "null"])
def test_a_word_stays_the_word_that_was_written(tmp_path, text):
    """A trigger may look like anything; written out it is text."""
    assert resolve(overrides=[f"trigger='{text}'"]).settings.trigger == text
    assert resolve(_file(tmp_path, f"trigger: '{text}'")).settings.trigger == text


@pytest.mark.parametrize("text", ["sks style", "ohwx", "red, blue", "a#b", "1e5", "nan", "infinity", "2024-13-45"])
def test_a_plain_word_needs_no_quotes(text):
    assert resolve(overrides=[f"trigger={text}"]).settings.trigger == text


def test_previews_are_a_list_of_prompts():
    settings = resolve(overrides=["previews=[red fox, tulip]"]).settings
    assert settings.previews == ("red fox", "tulip")


def test_nothing_after_the_sign_is_none():
    assert parse_overrides(["alpha=", "previews=[]"]) == {"alpha": None, "previews": []}
    assert resolve(stored={"alpha": 3}, overrides=["alpha="]).settings.alpha is None


@pytest.mark.parametrize("word", ["rank", "=3", "", "--rank"])
def test_a_word_without_a_sign_is_explained(word):
    with pytest.raises(SettingsError, match="key=value"):
        resolve(overrides=[word])


@pytest.mark.parametrize(
    ("given", "expected"), [("0.1", 0.1), ("0", None), ("", None), ("held-out", "held-out"), ("./12", "./12")]
)
def test_validation_is_a_fraction_or_a_folder(given, expected):
    assert resolve(overrides=[f"validation={given}"]).settings.validation == expected
    assert TrainSettings(validation=0.25).validation == TrainSettings(validation="0.25").validation == 0.25


# ---------------------------------------------------------------------------------------------------------------- files
def test_a_file_that_is_not_there_or_not_readable_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"no such settings file.*none\.yaml"):
        resolve(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="cannot be read"):
        resolve(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"trigger: \xe4\n")
    with pytest.raises(SettingsError, match=r"cannot be read.*latin\.yaml"):
        resolve(tmp_path / "latin.yaml")


@pytest.mark.parametrize("text", ["rank: [4", "a: b: c", "\t- x", "- rank", "rank", "3", "0", "false", "[]", "''",
                                  "!!python/object/apply:os.getcwd []", "rank: 2024-13-45"])  # fmt: skip
def test_a_file_that_holds_no_settings_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(SettingsError) as caught:
        resolve(_file(tmp_path, text))
    assert "settings.yaml" in str(caught.value) or "rank" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing but a remark\n", "{}", "null", "---\n"])
def test_an_empty_file_gives_the_defaults(tmp_path, text):
    assert resolve(_file(tmp_path, text)).settings == TrainSettings()
    assert read_file(_file(tmp_path, text)) == {}


# ---------------------------------------------------------------------------------------------------------------- kinds
def test_every_setting_says_what_it_is_and_whether_it_decides_the_course():
    settings = TrainSettings()
    assert all(field.description for field in TrainSettings.model_fields.values())
    assert {kind(name) for name in NAMES} == {config.COURSE, config.SHOW}
    course = settings.course()
    assert {"seed", "rank", "learning_rate", "steps", "flip"} <= set(course)
    assert not {"save_every", "preview_every", "previews", "guidance_scale"} & set(course)


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        TrainSettings().rank = 3


def test_no_section_of_the_settings_hides_a_validator_of_another():
    """The sections are parents of one class: a second method of the same name would replace the first without a word."""
    own = [name for parent in TrainSettings.__mro__ if parent.__module__.startswith("adapt.") for name in vars(parent)]
    twice = {n for n in own if own.count(n) > 1 and not n.startswith("__") and n not in ("model_config", "_abc_impl")}
    assert not {name for name in twice if callable(getattr(TrainSettings, name))}


def test_no_mixed_precision_is_the_word_that_yaml_reads_as_false(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("precision: no\n")
    assert resolve(file).settings.precision == resolve(overrides=["precision=no"]).settings.precision == "no"
