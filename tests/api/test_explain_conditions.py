"""Controls, further prompts and weights in an explanation: what `generate` draws with them, and without each."""

import json

import numpy as np
import pytest
from PIL import Image

from adapt.api.explain import explain
from adapt.api.generate import generate
from adapt.backbones.told import columns
from adapt.cli.main import main
from adapt.errors import SettingsError
from adapt.prompts import PLAIN, WEIGHTS, unmarked
from adapt.sampling.words import left_out, words_named

DRAWN = {"steps": 2, "seed": 5, "guidance_scale": 4.0}


def same(picture, other):
    return np.array_equal(np.asarray(picture), np.asarray(other))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    lot = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("along") / "one.png"
    Image.fromarray(lot.integers(0, 255, (16, 16, 3), np.uint8)).save(file)
    return file


def test_a_control_is_drawn_along_and_left_out(backbone, taught, picture):
    worn = [taught("control", "class")[0]]
    asked = {"adapters": worn, "control": picture, "control_scale": 0.5, "class_name": "owl", **DRAWN}
    found = explain(backbone, "a fox", **asked)
    assert same(found.picture, generate(backbone, prompt="a fox", **asked)[0])
    pictures = {(one.kind, one.name): one for one in found.left_out}
    without = generate(backbone, prompt="a fox", **{**asked, "control": None})[0]
    assert same(pictures["part", "control"].picture, without) and pictures["part", "control"].distance > 0
    assert found.settings["control_scale"] == 0.5
    bare = explain(backbone, "a fox", **{**asked, "control": None})
    assert ("part", "control") not in {(one.kind, one.name) for one in bare.left_out}


def test_further_prompts_are_left_out_one_by_one(backbone):
    compose = [("in snow", 9.0), ("night", -5.0)]
    found = explain(backbone, "a fox", compose=compose, **DRAWN)
    assert same(found.picture, generate(backbone, prompt="a fox", compose=compose, **DRAWN)[0])
    pictures = {one.name: one.picture for one in found.left_out if one.kind == "further prompt"}
    for number, (text, _) in enumerate(compose):
        rest = compose[:number] + compose[number + 1 :]
        assert same(pictures[text], generate(backbone, prompt="a fox", compose=rest, **DRAWN)[0])
    assert found.settings["compose"] == [["in snow", 9.0], ["night", -5.0]]


def test_weights_weigh_and_words_are_those_without_them(backbone):
    prompt = r"a (red:1.5) [cat], \(wet\)"
    found = explain(backbone, prompt, **DRAWN)
    assert same(found.picture, generate(backbone, prompt=prompt, **DRAWN)[0])
    assert [one.word.text for one in found.looked] == ["a", "red", "cat", "wet"]
    assert [prompt[one.word.start : one.word.end] for one in found.looked] == ["a", "red", "cat", "wet"]
    assert sum(one.share for one in found.looked) + sum(found.elsewhere.values()) == pytest.approx(1, abs=1e-4)
    pictures = {one.name: one.picture for one in found.left_out if one.kind == "word"}
    for word, left in (("red", r"a (:1.5) [cat], \(wet\)"), ("cat", r"a (red:1.5) [], \(wet\)")):
        assert same(pictures[word], generate(backbone, prompt=left, **DRAWN)[0])
    text = explain(backbone, prompt, prompt_syntax="plain", leave_one_out=False, **DRAWN)
    assert same(text.picture, generate(backbone, prompt=prompt, prompt_syntax="plain", **DRAWN)[0])
    assert not same(text.picture, found.picture)


def test_columns_of_a_weighted_prompt_are_those_of_its_tokens(backbone):
    """Each token's characters are what the tokenizer makes of them, stretch by stretch."""
    prompt = unmarked("a (red:1.5) cat", WEIGHTS)
    spans = columns(backbone, prompt)
    assert prompt.text == "a red cat"
    plain = backbone.columns("a red cat")
    assert list(spans)[: len(plain)] == list(plain) and not any(map(any, spans[len(plain) :]))


def test_a_blend_is_drawn_and_says_why_there_are_no_maps(backbone):
    prompt = "blend(a fox:0.7|an owl:0.3)"
    found = explain(backbone, prompt, **DRAWN)
    assert same(found.picture, generate(backbone, prompt=prompt, **DRAWN)[0])
    assert "blend" in found.no_maps and found.looked == ()
    assert "word" not in {one.kind for one in found.left_out}


def test_words_of_several_chunks_have_maps_and_break_is_none_of_them(backbone):
    prompt = "a (fox:1.3) BREAK in snow"
    found = explain(backbone, prompt, **DRAWN)
    assert same(found.picture, generate(backbone, prompt=prompt, **DRAWN)[0])
    assert [(one.word.text, one.tokens) for one in found.looked] == [("a", 1), ("fox", 3), ("in", 2), ("snow", 4)]
    assert sum(one.share for one in found.looked) + sum(found.elsewhere.values()) == pytest.approx(1, abs=1e-4)
    pictures = {(one.kind, one.name): one.picture for one in found.left_out}
    assert same(pictures["word", "snow"], generate(backbone, prompt="a (fox:1.3) BREAK in", **DRAWN)[0])
    assert same(pictures["part", "text"], generate(backbone, prompt="", **DRAWN)[0])
    assert not same(pictures["part", "text"], found.picture)


def test_a_word_that_is_not_there_is_named(backbone):
    with pytest.raises(SettingsError, match="did you mean fox"):
        explain(backbone, "a (fox:1.2)", words=["foxx"], **DRAWN)


def test_a_variant_is_the_one_that_the_seed_draws(backbone):
    prompt = "a {red|blue|green|grey} fox"
    found = explain(backbone, prompt, leave_one_out=False, **DRAWN)
    assert same(found.picture, generate(backbone, prompt=prompt, **DRAWN)[0])
    assert found.prompt in {f"a {colour} fox" for colour in ("red", "blue", "green", "grey")}


@pytest.mark.parametrize(
    ("prompt", "syntax", "word", "left"),
    [
        ("a (red:1.3) fox", WEIGHTS, "red", "a ( :1.3) fox"),
        ("a (red fox:1.3), wet", WEIGHTS, "red fox", "a ( :1.3), wet"),
        ("a (very:1.2)y fox", WEIGHTS, "veryy", "a ( :1.2) fox"),
        (r"a fox\!, \(wet\)", PLAIN, "fox\\", "a!, \\(wet\\)"),
    ],
)
def test_a_word_is_left_out_and_marks_stay(prompt, syntax, word, left):
    read = unmarked(prompt, syntax)
    assert left_out(read, words_named(read.text, [word])[0]) == left


def test_the_command_takes_them(taught, tiny_base, picture, tmp_path, capsys):
    _, folder = taught("control")
    words = ["explain", str(folder), "--prompt", "a (fox:1.2)", "--steps", "1", "--output", str(tmp_path / "o")]
    asked = ["--control", str(picture), "--control-scale", "0.7", "--compose", "in snow:0.6"]
    assert main([*words, *asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {(one["kind"], one["name"]) for one in told["left_out"]} >= {
        ("part", "control"),
        ("further prompt", "in snow"),
    }
    assert told["settings"]["control_scale"] == 0.7 and [one["word"] for one in told["words"]] == ["a", "fox"]
    assert main([*words, "--no-leave-one-out"]) == 0
    assert "my draws along a control, and none is given: --control FILE" in capsys.readouterr().err
    assert main(["generate", "--adapter", str(folder), "--prompt", "a", "--steps", "1", "--output", str(tmp_path)]) == 0
    assert "draws along a control, and none is given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--control", "none.png"], "none.png"),
        (["--control-scale", "-1"], "control_scale is out of range"),
        (["--compose", "night:inf"], "weight of compose"),
        (["--prompt-syntax", "odd"], "unknown prompt_syntax"),
    ],
)
def test_wrong_conditions_are_one_line_and_exit_2(words, message, tiny_base, tmp_path, capsys):
    base = ["explain", "--base", str(tiny_base), "--prompt", "a fox", "--output", str(tmp_path / "o")]
    assert main([*base, *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
