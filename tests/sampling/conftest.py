"""Two backbones: the bundled icons (v prediction), and a tiny random Stable Diffusion with 4 latent channels."""

import numpy as np
import pytest
from diffusers import DDIMScheduler
from PIL import Image

from adapt.backbones import Backbone


@pytest.fixture(scope="session")
def icons():
    return Backbone.load("icons")


@pytest.fixture(scope="session")
def tiny(tiny_base):
    """`tiny("epsilon")`, `tiny("v_prediction")`: 16 px, 2 px a latent."""
    made = {kind: Backbone.load(str(tiny_base)) for kind in ("epsilon", "v_prediction")}
    for kind, backbone in made.items():
        pipeline = backbone.pipeline
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type=kind)
    return made.__getitem__


@pytest.fixture(scope="session")
def picture():
    """`picture(height, width)`: a smooth RGB gradient with a block in it."""

    def make(height, width):
        y, x = np.mgrid[0:height, 0:width]
        values = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], -1)
        values[height // 4 : height // 2, width // 4 : width // 2] = (250, 20, 20)
        return Image.fromarray(values.astype(np.uint8))

    return make


@pytest.fixture(scope="session")
def mask():
    """`mask(height, width)`: the right half is white."""

    def make(height, width):
        values = np.zeros((height, width), np.uint8)
        values[:, width // 2 :] = 255
        return Image.fromarray(values)

    return make
