"""Classifier guidance: neutral is exactly plain, the gradient is the analytic one, and every form of prediction says the same."""

import pytest
import torch

from adapt.objectives import Epsilon, Flow, Sample, Velocity
from conditioning import ClassifierFreeGuidance, ClassifierGuidance, Condition, Dial, Moment

ALPHAS = torch.linspace(0.999, 0.01, 1000, dtype=torch.float64)
X, AIM = (torch.randn(3, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
NOISINGS = {"flow": Flow(), **{c.prediction_type: c(alphas_cumprod=ALPHAS) for c in (Epsilon, Velocity, Sample)}}
T = torch.tensor(400)
WORDS, NULL = (Condition({"text": {"tokens": torch.full((3, 1, 1), v, dtype=torch.float64)}}) for v in (0.3, -0.2))


def near(x):
    """log N(x; AIM, 1), but for a constant: its gradient is AIM - x."""
    return -0.5 * (x - AIM).square().flatten(1).sum(1)


def linear(x_t, t, condition):
    """A network whose derivative is known: 0.3 or -0.2, as it is told."""
    return condition.parts["text"]["tokens"].view(-1, 1, 1, 1) * x_t


def at(index=3, t=T):
    return Moment(index, 10, t)


def levels(noising):
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    t = T.expand(1)
    return noising.noised(one, 0 * one, t), noising.noised(0 * one, one, t)


def guide(guidance, predict=linear, moment=None):
    with torch.no_grad():  # as the loop calls it
        return guidance({"main": predict}, X, moment or at(), WORDS, NULL)


@pytest.mark.parametrize("inner", [None, ClassifierFreeGuidance(4.0)], ids=["plain", "classifier-free"])
@pytest.mark.parametrize("dial", [Dial(1.0), Dial(3.0, start=0.5), Dial(3.0, stop=0.2)], ids=str)
def test_neutral_is_to_the_bit_what_is_inside_and_asks_no_score(dial, inner):
    def never(x):
        raise AssertionError("asked")

    plain = linear(X, T.expand(3), WORDS) if inner is None else guide(inner)
    assert torch.equal(guide(ClassifierGuidance(never, NOISINGS["epsilon"], dial, inner)), plain)


@pytest.mark.parametrize("name", sorted(NOISINGS))
def test_for_a_quadratic_score_the_push_is_the_analytic_one(name):
    """x̂ = κ x_t with κ known, so ∇ score = κ (AIM - κ x_t); the noise that is meant moves by -(scale - 1) σ times that."""
    noising = NOISINGS[name]
    signal, sigma = levels(noising)
    kappa = noising.clean(torch.ones_like(signal), torch.full_like(signal, 0.3), T.expand(1))
    guided = guide(ClassifierGuidance(near, noising, Dial(2.5)))
    gradient = kappa * (AIM - kappa * X)
    plain_noise, noise = ((X - signal * noising.clean(X, p, T.expand(3))) / sigma for p in (0.3 * X, guided))
    assert torch.allclose(noise, plain_noise - 1.5 * sigma * gradient, rtol=1e-9, atol=1e-9)


def test_for_noise_it_is_the_equation_of_the_paper():
    guided = guide(ClassifierGuidance(near, NOISINGS["epsilon"], Dial(2.0)))
    alpha = ALPHAS[400]
    x = X.clone().requires_grad_()
    near((x - (1 - alpha).sqrt() * 0.3 * x) / alpha.sqrt()).sum().backward()
    assert torch.allclose(guided, 0.3 * X - (1 - alpha).sqrt() * x.grad)


@pytest.mark.parametrize("name", sorted(NOISINGS))
@pytest.mark.parametrize("through", [True, False])
def test_the_score_of_what_is_predicted_rises_with_the_scale(name, through):
    noising = NOISINGS[name]
    scores = [
        near(noising.clean(X, guide(ClassifierGuidance(near, noising, Dial(s), None, through)), T.expand(3)))
        for s in (1.0, 1.1, 1.2)
    ]
    assert (scores[0] < scores[1]).all() and (scores[1] < scores[2]).all()


def test_without_the_network_it_is_not_gone_through_and_only_asked_once():
    calls = []

    def watched(x_t, t, condition):
        calls.append(x_t.requires_grad)
        return linear(x_t, t, condition)

    guided = guide(ClassifierGuidance(near, NOISINGS["epsilon"], Dial(2.0), None, False), watched)
    signal, sigma = levels(NOISINGS["epsilon"])
    clean = (X - sigma * 0.3 * X) / signal
    assert calls == [False]
    assert torch.allclose(guided, 0.3 * X - sigma * (AIM - clean) / signal)


def test_it_corrects_what_another_guidance_predicts():
    inner = ClassifierFreeGuidance(3.0)
    guided = guide(ClassifierGuidance(near, NOISINGS["v_prediction"], Dial(1.5), inner))
    combined = 3 * 0.3 - 2 * -0.2  # the network that classifier-free guidance makes of the two

    def same(x_t, t, condition):
        return combined * x_t

    assert torch.allclose(guided, guide(ClassifierGuidance(near, NOISINGS["v_prediction"], Dial(1.5)), same))


def test_pictures_of_a_batch_do_not_push_each_other():
    whole = guide(ClassifierGuidance(near, NOISINGS["flow"], Dial(2.0)))
    alone = ClassifierGuidance(lambda x: near(torch.cat([x, AIM[1:]]))[:1], NOISINGS["flow"], Dial(2.0))
    first = alone({"main": linear}, X[:1], at(), WORDS.rows(slice(0, 1)), NULL.rows(slice(0, 1)))
    assert torch.allclose(whole[:1], first)


def test_at_pure_noise_nothing_is_pushed():
    guidance = ClassifierGuidance(near, Flow(), Dial(3.0))
    assert torch.equal(guide(guidance, moment=at(0, torch.tensor(1000.0))), 0.3 * X)


def test_nothing_of_the_gradient_stays():
    guided = guide(ClassifierGuidance(near, NOISINGS["epsilon"], Dial(2.0)))
    assert not guided.requires_grad and not X.requires_grad and X.grad is None


WRONG = [(lambda x: x.sum(), "one number a row"), (lambda x: torch.zeros(len(x)), "must be differentiable")]


@pytest.mark.parametrize(("score", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_score_that_is_none_is_named(score, message):
    with pytest.raises(ValueError, match=message):
        guide(ClassifierGuidance(score, NOISINGS["epsilon"], Dial(2.0)))
