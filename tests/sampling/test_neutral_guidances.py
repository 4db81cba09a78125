"""Every guidance at its neutral setting and with its other defaults is the plain drawing to the bit, on noise and on flow; and
what goes by a weaker model is its formula."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from adapt.adapter import Adapter, Facts
from adapt.api.generate import applied, generate
from adapt.backbones import Backbone
from adapt.errors import SettingsError
from adapt.formats import LoraWeights, Pair
from adapt.sampling import draw as drawing
from adapt.sampling.guidances import KINDS

NEEDED = {"autoguidance": "weak=0.5", "slg": "layers=mid"}
"""Options that must be said."""
ASKED = {"prompt": "a fox", "steps": 3, "seed": 7}


@pytest.fixture(scope="module")
def flow(tiny_base):
    """A tiny base of flow matching."""
    backbone = Backbone.load(str(tiny_base))
    backbone.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return backbone


def random_adapter(base, seed):
    some = torch.Generator().manual_seed(seed)
    shapes = {n: m.weight.shape for n, m in base.denoiser.named_modules() if n.endswith(("to_q", "to_v"))}
    pairs = {
        n: Pair(torch.randn(2, i, generator=some), torch.randn(o, 2, generator=some), 2.0)
        for n, (o, i) in shapes.items()
    }
    return Adapter(LoraWeights({"unet": pairs}), Facts(base={"fingerprint": base.fingerprint()}))


@pytest.fixture
def latents_of(monkeypatch):
    """What `generate` draws, before it is decoded to eight bits."""
    found, whole = [], drawing.draw_latents
    monkeypatch.setattr(drawing, "draw_latents", lambda *a, **k: found.append(whole(*a, **k)) or found[-1])

    def drawn(backbone, **asked):
        found.clear()
        generate(backbone, **{**ASKED, **asked})
        return found[0]

    return drawn


def neutral(name):
    """The guidance by its name, with nothing said but what must be and scale 1."""
    free = KINDS[name].classifier_free
    said = ",".join(filter(None, (NEEDED.get(name), "" if free else "scale=1")))
    return name + (f":{said}" if said else "")


@pytest.mark.parametrize("kind", ["noise", "flow"])
@pytest.mark.parametrize("name", KINDS)
def test_neutral_is_plain_to_the_bit_with_the_other_defaults(kind, name, tiny, flow, latents_of):
    base = flow if kind == "flow" else tiny("epsilon")
    adapters = [random_adapter(base, 1)]
    for scale in (1.0, 4.0) if not KINDS[name].classifier_free else (1.0,):
        plain = latents_of(base, adapters=adapters, guidance_scale=scale)
        guided = latents_of(base, adapters=adapters, guidance_scale=scale, guidance=neutral(name))
        assert torch.equal(guided, plain)


@pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if kind.classifier_free])
def test_outside_its_interval_it_is_plain_too(name, flow, latents_of):
    plain = latents_of(flow, guidance_scale=1.0)
    assert torch.equal(latents_of(flow, guidance_scale=5.0, guidance=f"{name}:start=0.9,stop=0.95"), plain)


@pytest.mark.parametrize("name", KINDS)
def test_above_it_each_one_does_something(name, flow, latents_of):
    adapters = [random_adapter(flow, 1)]
    free = KINDS[name].classifier_free
    text = name if free else neutral(name).replace("scale=1", "scale=3,start=0,stop=1")
    scale = 5.0 if free else 1.0
    plain = latents_of(flow, adapters=adapters, guidance_scale=1.0)
    assert not torch.allclose(
        latents_of(flow, adapters=adapters, guidance_scale=scale, guidance=text), plain, atol=1e-3
    )


def test_a_guidance_that_would_do_nothing_unsaid_is_refused(flow, monkeypatch):
    monkeypatch.setattr(type(flow), "guidance_scale", 1.0)
    with pytest.raises(SettingsError, match=r"guidance apg does nothing at guidance scale 1.*--guidance-scale"):
        generate(flow, **ASKED, guidance="apg")
    generate(flow, **ASKED, guidance="apg", guidance_scale=1.0)  # said: it is what is wanted


# ---------------------------------------------------------------------------------------------- a weaker model
class Spoken:
    """The conditions and predictions of a drawing's first step, by a guidance of one's own."""

    def __call__(self, predictors, x_t, moment, condition, negative):
        found = predictors["main"](x_t, moment.t.expand(len(x_t)), condition)
        if moment.index == 0:
            self.x_t, self.t, self.condition, self.negative = x_t, moment.t.expand(len(x_t)), condition, negative
        return found


def first_prediction(base, adapters):
    """What a model with these adapters says at the first step (of the condition and of null), and a scheduler's own step."""
    spoken = Spoken()
    generate(base, **{**ASKED, "steps": 1}, adapters=adapters, guidance=spoken)
    with applied(base, adapters), torch.no_grad():
        return spoken, *(base.predict(spoken.x_t, spoken.t, told) for told in (spoken.condition, spoken.negative))


def stepped(base, spoken, prediction):
    """One step to the end with a prediction."""

    def said(predictors, x_t, moment, condition, negative):
        assert torch.equal(x_t, spoken.x_t)
        return prediction

    return {"guidance": said, "steps": 1}


@pytest.mark.parametrize("scale", [0.0, 2.5])
@pytest.mark.parametrize("kind", ["share", "path", "domain", "same"])
def test_weaker_models_are_their_formula(kind, scale, tiny, latents_of, tmp_path):
    """w + scale · (c - w): w the adapter at a share of its strength, another adapter, or the base alone."""
    base = tiny("epsilon")
    mine, other = random_adapter(base, 1), random_adapter(base, 2)
    other.save(tmp_path / "other")
    spoken, c, _ = first_prediction(base, [(mine, 0.8)])
    weak, text = {
        "share": ([(mine, 0.8 * 0.25)], "autoguidance:weak=0.25"),
        "path": ([(other, 1.0)], f"autoguidance:weak={tmp_path / 'other'}"),
        "domain": ([], "domain"),
        "same": ([], "domain:prompt=same"),
    }[kind]
    _, said, null = first_prediction(base, weak)
    w = null if kind == "domain" else said
    expected = latents_of(base, **stepped(base, spoken, w + scale * (c - w)))
    asked = {"adapters": [(mine, 0.8)], "guidance_scale": 1.0, "steps": 1}
    guided = latents_of(base, **asked, guidance=f"{text},scale={scale}" if ":" in text else f"{text}:scale={scale}")
    assert (guided - expected).abs().max() <= 1e-4
    assert (guided - latents_of(base, **asked)).abs().max() > 1e-3


def test_an_empty_negative_is_the_family_s_null_and_another_is_not(tiny):
    base, spoken = tiny("epsilon"), Spoken()
    generate(base, **ASKED, guidance=spoken)
    null = base.null(1)
    for name, x in null.parts["text"].items():
        assert torch.equal(spoken.negative.parts["text"][name], x)
    generate(base, **ASKED, guidance=spoken, negative_prompt="blurred")
    assert not torch.allclose(spoken.negative.parts["text"]["tokens"], null.parts["text"]["tokens"], atol=1e-3)


def test_branches_in_one_batch_are_two_calls(tiny, latents_of):
    """The base, not a formula: rows of a batch differ by rounding only."""
    base, spoken = tiny("epsilon"), Spoken()
    generate(base, **ASKED, guidance=spoken)
    c, n = (base.predict(spoken.x_t, spoken.t, told) for told in (spoken.condition, spoken.negative))
    calls, predict = [], base.predict

    def apart(predictors, x_t, moment, condition, negative):
        c, n = (predictors["main"](x_t, moment.t.expand(len(x_t)), told) for told in (condition, negative))
        return n + 4.0 * (c - n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "predict", lambda x_t, t, told: calls.append(len(x_t)) or predict(x_t, t, told))
        together = latents_of(base, guidance_scale=4.0)
    assert calls == [2, 2, 2]
    assert (together - latents_of(base, guidance=apart)).abs().max() <= 1e-5 * together.abs().max()
    assert not torch.allclose(c, n, atol=1e-3)
