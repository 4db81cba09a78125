"""What tiny runs are trained on, and `train`, which runs one in this process."""

import numpy as np
import pytest
from PIL import Image
from tiny_runs import tiny

import adapt


@pytest.fixture(scope="session")
def captioned(tmp_path_factory):
    """Eight pictures with two or three captions each."""
    folder = tmp_path_factory.mktemp("captioned")
    random = np.random.default_rng(1)
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number:02d}.png")
        captions = [f"{word} {number}" for word in ("picture", "image", "drawing")[: 2 + number % 2]]
        (folder / f"{number:02d}.txt").write_text("\n".join(captions), encoding="utf-8")
    return folder


@pytest.fixture
def train(captioned, tiny_base):
    """`train(folder, steps=…, existing=…)`: a tiny run in this process."""

    def run(output, *, data=captioned, base=tiny_base, existing="refuse", allow=(), settings=None, **changes):
        if settings is None and (changes or existing != "resume"):
            settings = tiny(**changes)
        return adapt.train(data, output=output, base=str(base), settings=settings, existing=existing, allow=allow)

    return run
