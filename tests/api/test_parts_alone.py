"""Without words a class or a reference picture is what is guided, by the guidance that was asked for."""

import numpy as np
import pytest

from adapt.api.generate import generate
from conditioning import (
    AdaptiveGuidance,
    ClassifierFreeGuidance,
    Dial,
    PartGuidance,
    ProjectedGuidance,
    WithParts,
    ZeroStarGuidance,
)

WAYS = {
    "cfg": PartGuidance("class", Dial(6.0)),
    "cfg:stop=0.5": PartGuidance("class", Dial(6.0, stop=0.5)),
    "adaptive:threshold=-1": AdaptiveGuidance(ClassifierFreeGuidance(6.0), -1.0),
    "apg:norm=0.5": ProjectedGuidance(Dial(6.0), norm=0.5),
    "cfg-zero": ZeroStarGuidance(Dial(6.0)),
}


@pytest.mark.parametrize("text", WAYS)
def test_the_guidance_that_is_asked_for_guides_the_class(text, backbone, taught):
    asked = {"prompt": "", "adapters": [taught("class")[0]], "class_name": "owl", "steps": 2}
    found, expected, plain, cfg = (
        np.asarray(generate(backbone, **asked, **how)[0], int)
        for how in (
            {"guidance": text, "class_scale": 6.0},
            {"guidance": WAYS[text]},
            {"guidance_scale": 1.0},
            {"class_scale": 6.0},
        )
    )
    assert np.abs(found - expected).max() <= 1 < np.abs(found - plain).max()
    assert text == "cfg" or np.abs(found - cfg).max() > 1


def test_the_last_part_is_guided_beside_the_one_before_it(backbone, taught):
    """A class and a reference: the class by its chain, the reference by what was asked for, with the class on both sides."""
    from PIL import Image

    from conditioning import ChainedGuidance, Guided

    picture = Image.new("RGB", (16, 16), "red")
    asked = {"prompt": "", "adapters": [taught("class", "image")[0]], "class_name": "owl", "image_prompt": picture}
    found = generate(backbone, **asked, class_scale=3.0, image_prompt_scale=4.0, guidance="apg:norm=0.5", steps=2)[0]
    formula = Guided(
        [ChainedGuidance("class", Dial(3.0)), WithParts(ProjectedGuidance(Dial(4.0), norm=0.5), ("class",))]
    )
    expected = generate(backbone, **asked, guidance=formula, steps=2)[0]
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= 1
