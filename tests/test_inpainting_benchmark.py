"""`benchmarks/inpainting.py`: what its base is at first, and what it counts."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import inpainting as benchmark

from adapt.backbones import Backbone
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle


def test_its_base_is_icons_with_channels_that_it_does_not_look_at(tmp_path):
    benchmark.make_base(tmp_path / "base")
    base, icons = Backbone.load(str(tmp_path / "base")), Backbone.load("icons")
    assert base.family == "icons" and base.fills and icons.fingerprint() in base.kin()
    drawn = [draw_latents(b, [settle(Request(prompt="a fox", steps=2), b)], [generator_of(3)]) for b in (base, icons)]
    assert (drawn[0] - drawn[1]).abs().max() <= 1e-4


def test_what_is_counted():
    right = np.random.default_rng(0).random((5, 64, 64, 3))
    perfect, far = benchmark.measured(right, right), benchmark.measured(np.roll(right, 1, 0), right)
    assert (perfect["outside"], perfect["filled"], perfect["nearest is its own"]) == (0, 0, 1)
    assert far["nearest is its own"] == 0 and far["outside"] == pytest.approx((1 / 6) ** 0.5, abs=0.01)
