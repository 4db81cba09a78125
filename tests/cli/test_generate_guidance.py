"""`adapt generate --guidance` and `--compose` from the user's door: what Python draws, and what is refused."""

import re

import numpy as np
import pytest
from PIL import Image

from adapt.api.generate import generate
from adapt.backbones import Backbone
from adapt.cli.main import main

ASKED = ["--prompt", "a fox", "--steps", "2", "--guidance-scale", "40", "--device", "cpu", "--seed", "3"]


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return Backbone.load(str(tiny_base))


@pytest.fixture
def drawn(tiny_base, tmp_path):
    """Words of the command line → the picture."""

    def draw(*words):
        file = tmp_path / "one.png"
        file.unlink(missing_ok=True)
        assert main(["generate", "--base", str(tiny_base), *ASKED, *words, "--output", str(file)]) == 0
        return np.asarray(Image.open(file), int)

    return draw


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--guidance", "apg:eta=0.5,norm=0.01"], {"guidance": ["apg:eta=0.5,norm=0.01"]}),
        (["--guidance", "cfg:stop=0.5", "--guidance", "pag:scale=3"], {"guidance": ["cfg:stop=0.5", "pag:scale=3"]}),
        (["--guidance", "cfg-zero", "--guidance-rescale", "0.7"], {"guidance": "cfg-zero", "guidance_rescale": 0.7}),
        (["--compose", "in snow:0.6", "--compose", "night:-0.3"], {"compose": [("in snow", 0.6), ("night", -0.3)]}),
        (["--compose", "in snow"], {"compose": [("in snow", 1.0)]}),
    ],
)
def test_what_the_command_line_says_is_what_python_draws(words, asked, drawn, backbone):
    python = generate(backbone, prompt="a fox", steps=2, guidance_scale=40.0, seed=3, **asked)[0]
    found = drawn(*words)
    assert np.abs(found - np.asarray(python, int)).max() <= 1
    assert np.abs(found - drawn()).max() > 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guidance", "apgg"], "unknown guidance.*did you mean apg"),
        (["--guidance", "apg:etta=1"], "no such option.*did you mean eta"),
        (["--guidance", "apg:eta=much"], "eta is out of range"),
        (["--guidance", "apg", "--guidance", "cfg"], "only one classifier-free"),
        (["--guidance", "cfg-zero:zero_steps=1"], "flow matching.*zero_steps=0"),
        (["--guidance", "slg:layers=99"], "no such layer"),
        (["--guidance", "domain"], "there is no adapter"),
        (["--guidance", "autoguidance:weak=no/such"], "there is no adapter"),
        (["--compose", "night:inf"], "weight of compose is out of range"),
        (["--compose", "night:1e9"], "weight of compose is out of range"),
        (["--compose", "(night:1e9)"], "out of range|weight"),
        (["--guidance-scale", "0.5"], "guidance_scale is out of range"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_2(words, message, tiny_base, tmp_path, capsys):
    file = tmp_path / "one.png"
    assert main(["generate", "--base", str(tiny_base), *ASKED, *words, "--output", str(file)]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and re.search(message, error), error
    assert not file.exists()
