"""`adapt.guided_by`: a score of pictures guides a whole drawing."""

import numpy as np
import pytest

import adapt
from adapt.errors import SettingsError


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return adapt.Backbone.load(str(tiny_base))


def redness(x):
    """Of pictures (B, 3, H, W) in [0, 1] → (B,)."""
    return (x[:, 0] - 0.5 * x[:, 1] - 0.5 * x[:, 2]).mean((1, 2))


def drawn(backbone, **more):
    return adapt.generate(backbone, prompt=["a", "b"], steps=4, **more)


def red(pictures):
    return np.array([np.asarray(p, float)[..., 0].mean() - np.asarray(p, float)[..., 1:].mean() for p in pictures])


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_at_scale_1_a_drawing_is_the_plain_one_to_the_bit(backbone, guidance_scale):
    guidance = adapt.guided_by(backbone, redness, 1.0, guidance_scale=guidance_scale)
    plain, same = drawn(backbone, guidance_scale=guidance_scale), drawn(backbone, guidance=guidance)
    assert [p.tobytes() for p in plain] == [p.tobytes() for p in same]


@pytest.mark.parametrize("through_network", [True, False])
def test_every_drawing_becomes_what_the_score_likes(backbone, through_network):
    plain = red(drawn(backbone, guidance_scale=1.0))
    more = {"guidance_scale": 1.0, "through_network": through_network}
    redder, less = (red(drawn(backbone, guidance=adapt.guided_by(backbone, redness, s, **more))) for s in (61, -59))
    assert (redder > plain).all() and (less < plain).all()


def test_a_score_can_see_latents(backbone):
    seen = []

    def bright(x):
        seen.append(tuple(x.shape))
        return x.mean((1, 2, 3))

    drawn(backbone, guidance=adapt.guided_by(backbone, bright, 5.0, on="latents"))
    assert seen == [(2, 4, 8, 8)] * 4


def test_no_weight_remembers_a_gradient(backbone):
    drawn(backbone, guidance=adapt.guided_by(backbone, redness, 5.0))
    assert all(p.grad is None for module in backbone.modules.values() for p in module.parameters())


def test_what_is_no_score_and_where_it_cannot_look_is_said(backbone):
    with pytest.raises(SettingsError, match="pictures or latents"):
        adapt.guided_by(backbone, redness, 2.0, on="pixels")
    with pytest.raises(SettingsError, match="function of pictures"):
        adapt.guided_by(backbone, 3.0, 2.0)
