"""What is distilled is what a guided drawing predicts, and a score pushes what a prediction stands for: in every family."""

import pytest
import torch
from tiny_families import CASES

from adapt.api.distillation import guided, settled_distillation
from adapt.api.scored import guided_by
from adapt.config import TrainSettings
from adapt.data.plan import normal
from adapt.errors import SettingsError
from adapt.sampling.guided import guidance_of
from adapt.sampling.request import Request, settle
from conditioning import Condition, Moment

SETTINGS = TrainSettings(distill="guidance", distill_scale=3.0)
families = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def backbone(backbones, name):
    return backbones(name)


def asked(backbone, name):
    """x, noise, one time of the middle, two conditions."""
    x, noise = (torch.cat([normal(0, s, 0, i, (1, *backbone.own_latents)) for i in range(2)]) for s in ("x", "noise"))
    t = backbone.objective().times(torch.full((2,), 0.4, dtype=torch.float64))
    return x, noise, t, backbone.condition(CASES[name].prompts[:2])


@families
def test_the_target_is_what_a_guided_drawing_predicts(backbone, name):
    if backbone.embedded_guidance is not None or not backbone.slots or backbone.takes_source:
        with pytest.raises(SettingsError, match=r"told its guidance as a number|no condition to guide by|that edits"):
            settled_distillation(SETTINGS, backbone)
        return
    assert settled_distillation(SETTINGS, backbone)["distill_scale"] == 3.0
    x, noise, t, condition = asked(backbone, name)
    objective = backbone.objective()
    target = guided(objective, backbone, backbone.predict, SETTINGS)(x, noise, t, condition)
    drawing = settle(Request(prompt=CASES[name].prompts[0], guidance_scale=3.0), backbone)
    null = Condition(backbone.null(2).parts, condition.facts)
    x_t, moment = objective.noised(x, noise, t), Moment(3, 10, t[0])
    with torch.no_grad():
        drawn = guidance_of(drawing, backbone)({"main": backbone.predict}, x_t, moment, condition, null)
        plain = backbone.predict(x_t, t, condition)
    torch.testing.assert_close(target, drawn, atol=1e-4, rtol=1e-4)
    assert (target - plain).abs().max() > 1e-5


@families
@pytest.mark.parametrize("through_network", [True, False])
def test_a_score_moves_the_clean_picture_that_is_predicted(backbone, name, through_network):
    def likes(clean):
        return -(clean - 1).square().flatten(1).mean(1)

    x, noise, t, condition = asked(backbone, name)
    objective = backbone.objective()
    x_t, found = objective.noised(x, noise, t), []
    for scale in (1.0, 3.0):
        guidance = guided_by(backbone, likes, scale, on="latents", guidance_scale=1.0, through_network=through_network)
        with torch.no_grad():
            prediction = guidance({"main": backbone.predict}, x_t, Moment(3, 10, t[0]), condition, backbone.null(2))
        found.append(likes(objective.clean(x_t, prediction, t)))
    assert (found[1] > found[0]).all()


def lengths(name, x):
    """What the family's pipeline brings back: the length of every row (Lumina 2), of every token (Qwen-Image: 2 × 2 latents)."""
    if name == "lumina2":
        return torch.linalg.vector_norm(x, dim=-1)
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(3).norm(dim=-1)


@pytest.mark.parametrize("name", ["lumina2", "qwen-image"])
@pytest.mark.parametrize(
    "guidance", ["cfg", "adaptive", "apg", "apg:eta=1,momentum=0", "cfg-zero:zero_steps=0", "cfg-zero"]
)
def test_families_that_renormalise_do_so_whatever_guides_the_words(backbone, name, guidance):
    x, noise, t, condition = asked(backbone, name)
    null = Condition(backbone.null(2).parts, condition.facts)
    x_t, prompt = backbone.objective().noised(x, noise, t), CASES[name].prompts[0]
    found = {}
    with torch.no_grad():
        for text in (guidance, "cfg"):
            drawing = settle(Request(prompt=prompt, guidance_scale=5.0, guidance=text), backbone)
            guide = guidance_of(drawing, backbone)
            found[text] = guide({"main": backbone.predict}, x_t, Moment(1, 10, t[0]), condition, null)
        plain = backbone.predict(x_t, t, condition)
    torch.testing.assert_close(lengths(name, found[guidance]), lengths(name, plain), atol=1e-5, rtol=1e-4)
    assert (found[guidance] - plain).abs().max() > 1e-4
    if guidance == "apg:eta=1,momentum=0":  # which is classifier-free guidance
        torch.testing.assert_close(found[guidance], found["cfg"], atol=1e-4, rtol=1e-3)


@families
def test_a_base_that_says_it_has_no_null_has_none(backbone):
    assert backbone.nullable == bool(backbone.slots)
