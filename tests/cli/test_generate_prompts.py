"""Variants, weights and lengths of prompts from the user's door."""

import json
from pathlib import Path

import pytest
from PIL import Image

from adapt.api.generate import generate as draw
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.errors import SettingsError
from adapt.sampling.png import read_parameters


@pytest.fixture(scope="module")
def icons():
    return Backbone.load("icons")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, icons):
    """An empty folder with wildcards in it, and the backbone that is already loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Backbone, "load", staticmethod(lambda reference, device, dtype: icons))
    Path("wild").mkdir()
    Path("wild/animal.txt").write_text("fox\nowl\ncat\n", encoding="utf-8")


def run(capsys, *words):
    code = main(["generate", *words, "--steps", "1", "--size", "64"])
    out, err = capsys.readouterr()
    return code, out, err


def pictures(capsys, *words):
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)["pictures"]


def test_all_variants_and_one_a_picture(capsys):
    every = pictures(capsys, "--prompt", "{red|blue} __animal__", "--wildcards", "wild", "--all-variants")
    expected = [f"{colour} {kind}" for colour in ("red", "blue") for kind in ("fox", "owl", "cat")]
    assert [p["prompt"] for p in every] == expected
    assert [p["seed"] for p in every] == [0] * 6
    some = pictures(capsys, "--prompt", "a __animal__", "--wildcards", "wild", "--count", "6", "--seed", "5")
    assert [p["seed"] for p in some] == list(range(5, 11))
    assert len({p["prompt"] for p in some}) > 1
    (alone,) = pictures(capsys, "--prompt", "a __animal__", "--wildcards", "wild", "--seed", "8", "--output", "alone")
    assert alone["prompt"] == some[3]["prompt"]
    assert Image.open(alone["path"]).tobytes() == Image.open(some[3]["path"]).tobytes()


def test_the_picture_of_a_template_is_that_of_its_words_and_says_them(capsys, icons):
    (found,) = pictures(capsys, "--prompt", "{a|a} (red:1.4) fox", "--negative-prompt", "({grey|grey})", "--seed", "3")
    (expected,) = draw(icons, prompt="a (red:1.4) fox", negative_prompt="(grey)", seed=3, steps=1)
    assert Image.open(found["path"]).tobytes() == expected.tobytes()
    told = read_parameters(found["path"])
    assert (told.prompt, told.negative_prompt) == ("a (red:1.4) fox", "(grey)")
    (other,) = draw(icons, prompt="a red fox", negative_prompt="grey", seed=3, steps=1)
    assert other.tobytes() != expected.tobytes()


def test_the_api_draws_variants_too(icons):
    drawn = draw(icons, prompt="a __animal__", wildcards="wild", all_variants=True, steps=1, count=2)
    assert len(drawn) == 6
    alone = draw(icons, prompt=["a fox", "a owl", "a cat"], steps=1, seed=1)
    assert [p.tobytes() for p in drawn[3:]] == [p.tobytes() for p in alone]


def test_plain_prompts_are_captions(capsys):
    (found,) = pictures(capsys, "--prompt", "a {fox} :)", "--prompt-syntax", "plain")
    assert found["prompt"] == "a {fox} :)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", "a (fox:1e9)"), "out of range"),
        (("--prompt", "a fox", "--negative-prompt", "(bad"), "not closed"),
        (("--prompt", "a fox", "--compose", "[bad"), "not closed"),
        (("--prompt", "{a|b"), "not closed"),
        (("--prompt", "__animal__"), "--wildcards DIR"),
        (("--prompt", "__anmal__", "--wildcards", "wild"), "did you mean __animal__"),
        (("--prompt", "__animal__", "--wildcards", "none"), "no wildcards"),
        (("--prompt", "blend(a|b) c"), "whole prompt"),
        (("--prompt", "word " * 300), "longer than"),
        (("--prompt", "a", "--clip-skip", "1"), "clip_skip is for"),
        (("--prompt", "a", "--clip-skip", "-1"), "out of range"),
        (("--prompt", "a", "--prompt-syntax", "compel"), "prompt_syntax"),
        (("--prompt", "{a|b}", "--all-variants", "--output", "x.png"), "one file"),
    ],
)
def test_bad_prompts_are_one_line_and_exit_2(capsys, words, said):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not Path("pictures").exists()


def test_where_prompts_take_no_weights_it_is_said_once(capsys, icons, monkeypatch):
    monkeypatch.setattr(type(icons), "readers", ())
    words = ("--prompt", "a (fox:1.2)", "--prompt", "an (owl)", "--json")
    code, _, err = run(capsys, *words)
    assert code == 0 and err.count("note: brackets in prompts are text") == 1
    assert run(capsys, "--prompt", r"a fox \(x", "--output", "other")[2].count("note") == 0


def test_what_a_request_cannot_hold_is_refused_by_the_api_too(icons):
    with pytest.raises(SettingsError, match="not closed"):
        draw(icons, prompt="a (fox", steps=1)
