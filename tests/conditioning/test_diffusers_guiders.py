"""Ours against diffusers' guiders as they are used there, step by step over a whole loop, also where guidance is off."""

import pytest
import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeZeroStarGuidance,
)
from diffusers.guiders import (
    ClassifierFreeGuidance as ClassifierFreeGuider,
)

from conditioning import ClassifierFreeGuidance, Condition, Dial, Guided, Moment, ProjectedGuidance, ZeroStarGuidance

STEPS = 10
RANDOM = torch.Generator().manual_seed(3)
PAIRS = [tuple(torch.randn(2, 4, 8, 8, generator=RANDOM) * (1 + k) for _ in range(2)) for k in range(STEPS)]
TOLD = [Condition({"text": {"tokens": torch.full((2, 1, 1), side)}}) for side in (1.0, 0.0)]
INTERVALS = [(0.0, 1.0), (0.2, 0.6), (0.5, 1.0)]
intervals = pytest.mark.parametrize(("start", "stop"), INTERVALS)


def theirs(guider):
    """The prediction of each step; the null is made only where the guider asks for it."""
    found = []
    for step, (c, n) in enumerate(PAIRS):
        guider.set_state(step=step, num_inference_steps=STEPS, timestep=torch.tensor(500))
        branches = guider.prepare_inputs({"told": (c, n)})
        for branch in branches:
            branch.noise_pred = branch.told  # the network's part
        found.append(guider(branches).pred)
    return found


def ours(guidance):
    """Likewise, in one loop with its memory."""
    memory, found = {}, []
    for step, (c, n) in enumerate(PAIRS):

        def network(x_t, t, told, c=c, n=n):
            rows = told.parts["text"]["tokens"].flatten().tolist()
            return torch.stack([(c if side else n)[number % 2] for number, side in enumerate(rows)])

        moment = Moment(step, STEPS, torch.tensor(500), memory)
        found.append(guidance({"main": network}, torch.zeros(2, 4, 8, 8), moment, *TOLD))
    return found


def alike(a, b):
    assert len(a) == len(b) == STEPS
    for step, (x, y) in enumerate(zip(a, b, strict=True)):
        torch.testing.assert_close(x, y, atol=2e-4, rtol=1e-4, msg=lambda text, step=step: f"step {step}: {text}")


@intervals
@pytest.mark.parametrize("scale", [1.0, 0.0, 5.0])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_classifier_free(start, stop, scale, rescale):
    guider = ClassifierFreeGuider(guidance_scale=scale, guidance_rescale=rescale, start=start, stop=stop)
    alike(ours(ClassifierFreeGuidance(scale, rescale, start, stop)), theirs(guider))


@intervals
@pytest.mark.parametrize("scale", [1.0, 6.0])
@pytest.mark.parametrize(("eta", "momentum", "norm"), [(1.0, None, 0.0), (0.0, -0.5, 5.0), (0.3, 0.6, 15.0)])
def test_adaptive_projected(start, stop, scale, eta, momentum, norm):
    """In the paper's form, whose scale counts from 0: the other adds the projected push to the null instead."""
    guider = AdaptiveProjectedGuidance(
        guidance_scale=scale - 1, adaptive_projected_guidance_momentum=momentum, adaptive_projected_guidance_rescale=norm,
        eta=eta, use_original_formulation=True, start=start, stop=stop,
    )  # fmt: skip
    alike(ours(ProjectedGuidance(Dial(scale, start, stop), eta, momentum or 0.0, norm)), theirs(guider))


@pytest.mark.parametrize("stop", [1.0, 0.6])
@pytest.mark.parametrize("zero_steps", [0, 1, 3])
def test_zero_star_with_its_steps_of_zero(stop, zero_steps):
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=5.0, zero_init_steps=zero_steps, stop=stop)
    found = ours(ZeroStarGuidance(Dial(5.0, stop=stop), zero_steps))
    alike(found, theirs(guider))
    assert [bool(x.any()) for x in found] == [step >= zero_steps for step in range(STEPS)]


def test_zero_star_at_scale_1_is_their_guider_switched_off():
    """Left on, theirs zeroes the first step at scale 1 too: it is then no neutral setting."""
    off = ClassifierFreeZeroStarGuidance(guidance_scale=1.0, enabled=False)
    found = ours(ZeroStarGuidance(Dial(1.0), zero_steps=1))
    assert all(torch.equal(x, y) for x, y in zip(found, theirs(off), strict=True))
    assert not theirs(ClassifierFreeZeroStarGuidance(guidance_scale=1.0))[0].any()


def test_zeros_stay_zeros_when_contrast_is_brought_back():
    found = ours(Guided([ZeroStarGuidance(Dial(5.0), zero_steps=1)], rescale=0.7))
    assert not found[0].any() and all(torch.isfinite(x).all() for x in found)
