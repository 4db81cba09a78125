"""Features without any other network: the same every time, and they see what they are for."""

import numpy as np
import torch
from PIL import Image

from adapt.api.generate import generate
from adapt.backbones import Backbone
from adapt.evaluation.distances import bandwidth, kernel, separation
from adapt.evaluation.features import Inside, Scaling, texture
from adapt.evaluation.retrieval import retrieved


def drawn(style, count=12, side=48):
    """Discs in random places: plain ones, or hatched."""
    random = np.random.default_rng(7)
    pictures = []
    for _ in range(count):
        y, x = np.mgrid[:side, :side]
        cy, cx = random.integers(12, 36, 2)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < 144
        values = np.full((side, side, 3), 255, np.uint8)
        values[inside] = (40, 90, 200)
        if style == "hatched":
            values[inside & ((x + y) % 6 < 2)] = 255
        pictures.append(Image.fromarray(values))
    return pictures


def test_textures_tell_hatching_from_plain_colour_whatever_the_place_and_are_the_same_again():
    plain, hatched = texture(drawn("plain")), texture(drawn("hatched"))
    assert all(torch.equal(a, b) for a, b in zip(plain, texture(drawn("plain")), strict=True))
    scaling = Scaling.fitted(hatched)
    x, y = scaling(plain), scaling(hatched)
    width = bandwidth(y)
    assert separation(kernel(x, x, width), kernel(x, y, width), kernel(y, y, width)) == 1.0


def test_every_block_has_the_same_spread_and_one_without_any_counts_for_nothing():
    blocks = [torch.randn(9, 3) * 100, torch.randn(9, 5), torch.ones(9, 2)]
    found = Scaling.fitted(blocks)(blocks)
    assert found.shape == (9, 8)
    spreads = [float((part - part.mean(0)).square().sum(1).mean()) for part in (found[:, :3], found[:, 3:])]
    assert np.allclose(spreads, 1)


def test_the_base_recognises_what_it_drew_and_not_what_it_did_not():
    base, prompts = Backbone.load("icons"), ["red apple", "penguin", "sailboat", "sunflower"]
    pictures = generate(base, prompt=prompts, steps=5, guidance_scale=3)
    latents = Inside(base, 64, 64).latents(pictures)
    assert int(retrieved(base, latents, [0, 1, 2, 3], prompts).sum()) >= 3
    assert int(retrieved(base, latents, [1, 2, 3, 0], prompts).sum()) <= 1
