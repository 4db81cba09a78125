"""Classifier-free guidance: neutral is one forward pass and exactly the conditional prediction."""

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from conditioning import ClassifierFreeGuidance, Condition, Moment

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
CONDITION = Condition({"text": {"tokens": torch.tensor([[[2.0]], [[3.0]]])}})
NEGATIVE = Condition({"text": {"tokens": torch.tensor([[[-1.0]], [[0.5]]])}})


class Predictor:
    """Not linear in the condition; counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, x_t, t, condition):
        assert t.shape == (len(x_t),)
        self.calls.append(len(x_t))
        c = condition.parts["text"]["tokens"].view(-1, 1, 1, 1)
        return torch.sin(x_t * c) + c * x_t.roll(1, -1) + t.view(-1, 1, 1, 1) / 1000


def _guided(index=0, steps=10, **settings):
    predictor = Predictor()
    moment = Moment(index, steps, torch.tensor(500))
    return ClassifierFreeGuidance(**settings)({"main": predictor}, X, moment, CONDITION, NEGATIVE), predictor.calls


def _alone(condition):
    return Predictor()(X, torch.tensor([500, 500]), condition)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_neutral_scale_is_one_forward_and_exactly_the_conditional(rescale):
    prediction, calls = _guided(scale=1.0, rescale=rescale)
    assert calls == [2]
    assert torch.equal(prediction, _alone(CONDITION))


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 7.5, -1.0])
def test_formula(scale):
    prediction, calls = _guided(scale=scale)
    n, c = _alone(NEGATIVE), _alone(CONDITION)
    assert sum(calls) == 4
    assert torch.allclose(prediction, n + scale * (c - n), atol=1e-5)


def test_scale_zero_is_the_negative_alone():
    assert torch.allclose(_guided(scale=0.0)[0], _alone(NEGATIVE), atol=1e-6)


def test_rescale_brings_the_standard_deviation_back():
    plain, full = _guided(scale=7.5)[0], _guided(scale=7.5, rescale=1.0)[0]
    wanted = _alone(CONDITION).std((1, 2, 3))
    assert (plain.std((1, 2, 3)) > 1.5 * wanted).all()
    assert torch.allclose(full.std((1, 2, 3)), wanted, rtol=1e-4)


def test_rescale_equals_diffusers():
    expected = rescale_noise_cfg(_guided(scale=7.5)[0], _alone(CONDITION), guidance_rescale=0.7)
    assert torch.allclose(_guided(scale=7.5, rescale=0.7)[0], expected, atol=1e-6)


def test_works_only_inside_its_interval():
    counts = [sum(_guided(index, scale=3.0, start=0.2, stop=0.6)[1]) for index in range(10)]
    assert counts == [2, 2, 4, 4, 4, 4, 2, 2, 2, 2]
    assert torch.equal(_guided(9, scale=3.0, stop=0.6)[0], _alone(CONDITION))


def test_the_whole_loop_by_default():
    assert all(sum(_guided(index, scale=3.0)[1]) == 4 for index in range(10))
