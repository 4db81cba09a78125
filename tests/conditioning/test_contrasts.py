"""Guidances as contrasts: neutral is exactly the conditional prediction, each is its paper's formula, and they add up."""

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale

from conditioning import (
    AdaptiveGuidance,
    AutoGuidance,
    Branch,
    ChainedGuidance,
    ClassifierFreeGuidance,
    Composition,
    Condition,
    Dial,
    DomainGuidance,
    Guided,
    Moment,
    PartGuidance,
    PerturbedGuidance,
    ProjectedGuidance,
    WithParts,
    ZeroStarGuidance,
)
from conditioning.guidance.total import run

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(2, 4, 8, 8, generator=RANDOM)


def condition(text, label):
    return Condition(
        {"text": {"tokens": torch.full((2, 1, 1), text)}, "class": {"tokens": torch.full((2, 1, 1), label)}}
    )


CONDITION, NEGATIVE = condition(2.0, 3.0), condition(-1.0, 0.5)


class Network:
    """Not linear in what it is told; counts rows a call."""

    def __init__(self, shift=0.0):
        self.shift, self.calls = shift, []

    def __call__(self, x_t, t, told):
        self.calls.append(len(x_t))
        text, label = (told.parts[name]["tokens"].view(-1, 1, 1, 1) for name in ("text", "class"))
        return torch.sin(x_t * text + self.shift) + label * x_t.roll(1, -1) + t.view(-1, 1, 1, 1) / 1000


@pytest.fixture
def networks():
    return {"main": Network(), "weak": Network(0.7), "base": Network(1.1), "perturbed": Network(2.0)}


def at(index=3, steps=10, memory=None):
    return Moment(index, steps, torch.tensor(500), {} if memory is None else memory)


def alone(network, told, shift=0.0):
    return Network(shift)(X, torch.tensor([500, 500]), told)


C, N = alone("main", CONDITION), alone("main", NEGATIVE)
NEUTRAL = {
    "cfg": ClassifierFreeGuidance(1.0),
    "adaptive": AdaptiveGuidance(ClassifierFreeGuidance(1.0)),
    "apg": ProjectedGuidance(Dial(1.0)),
    "cfg-zero": ZeroStarGuidance(Dial(1.0)),
    "cfg-zero in its steps of zero": ZeroStarGuidance(Dial(1.0), zero_steps=10),
    "cfg-zero before its interval": ZeroStarGuidance(Dial(5.0, start=0.5), zero_steps=10),
    "autoguidance": AutoGuidance(Dial(1.0)),
    "domain": DomainGuidance(Dial(1.0)),
    "perturbed": PerturbedGuidance(Dial(1.0)),
    "part": PartGuidance("class", Dial(1.0)),
    "chain": ChainedGuidance("class", Dial(1.0)),
    "with parts": WithParts(ClassifierFreeGuidance(1.0), ("class",)),
    "nothing composed": Composition(),
    "weights of zero": Composition(((NEGATIVE, 0.0),)),
    "before its interval": AutoGuidance(Dial(5.0, start=0.5)),
    "after its interval": ProjectedGuidance(Dial(5.0, stop=0.3)),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_is_one_forward_pass_and_exactly_the_conditional(name, networks):
    guided = NEUTRAL[name](networks, X, at(), CONDITION, NEGATIVE)
    assert torch.equal(guided, C)
    assert [n.calls for n in networks.values()] == [[2], [], [], []]


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_ones_change_nothing_beside_another(name, networks):
    guided = Guided([ClassifierFreeGuidance(4.0), NEUTRAL[name]])(networks, X, at(), CONDITION, NEGATIVE)
    assert torch.equal(guided, ClassifierFreeGuidance(4.0)({"main": Network()}, X, at(), CONDITION, NEGATIVE))


@pytest.mark.parametrize("scale", [0.0, 0.4, 3.0])
def test_a_weaker_network_is_what_is_pushed_away_from(scale, networks):
    for contrast, weaker in (
        (AutoGuidance(Dial(scale)), alone("weak", CONDITION, 0.7)),
        (DomainGuidance(Dial(scale)), alone("base", NEGATIVE, 1.1)),
        (DomainGuidance(Dial(scale), same_condition=True), alone("base", CONDITION, 1.1)),
        (PerturbedGuidance(Dial(scale)), alone("perturbed", CONDITION, 2.0)),
    ):
        guided = contrast(networks, X, at(), CONDITION, NEGATIVE)
        assert torch.allclose(guided, weaker + scale * (C - weaker), atol=1e-5)


@pytest.mark.parametrize(("eta", "momentum", "norm"), [(1.0, 0.0, 0.0), (0.0, -0.5, 5.0), (0.3, 0.6, 15.0)])
def test_projected_guidance_is_that_of_diffusers_over_a_whole_loop(eta, momentum, norm):
    ours, buffer, memory = ProjectedGuidance(Dial(6.0), eta, momentum, norm), MomentumBuffer(momentum), {}
    for index in range(4):
        c, n = C + index, N * (index + 1)
        found = ours.combined(at(index, 4, memory), c, [n])
        # the paper's form, which diffusers has as `use_original_formulation`, with its scale counted from 0
        theirs = normalized_guidance(c, n, 5.0, buffer if momentum else None, eta, norm, True, None)
        assert torch.allclose(found, theirs, atol=2e-4, rtol=1e-5)


def test_projected_guidance_without_its_extras_is_classifier_free(networks):
    plain = ProjectedGuidance(Dial(4.0), eta=1.0, momentum=0.0)(networks, X, at(), CONDITION, NEGATIVE)
    assert torch.allclose(plain, ClassifierFreeGuidance(4.0)(networks, X, at(), CONDITION, NEGATIVE), atol=1e-4)


def test_momentum_belongs_to_the_loop_and_not_to_the_guidance(networks):
    guidance = ProjectedGuidance(Dial(4.0), momentum=0.9)
    memory = {}
    first = guidance(networks, X, at(0, 4, memory), CONDITION, NEGATIVE)
    second = guidance(networks, X, at(0, 4, memory), CONDITION, NEGATIVE)
    again = guidance(networks, X, at(0, 4), CONDITION, NEGATIVE)
    assert torch.equal(first, again) and not torch.allclose(first, second)


def test_the_null_is_fitted_as_in_diffusers(networks):
    guided = ZeroStarGuidance(Dial(5.0))(networks, X, at(), CONDITION, NEGATIVE)
    alpha = cfg_zero_star_scale(C.flatten(1), N.flatten(1)).view(-1, 1, 1, 1)
    assert torch.allclose(guided, N * alpha + 5.0 * (C - N * alpha), atol=1e-5)


def test_zero_steps_are_zero_and_then_over(networks):
    guidance = ZeroStarGuidance(Dial(5.0), zero_steps=2)
    assert guidance(networks, X, at(1), CONDITION, NEGATIVE).eq(0).all()
    assert torch.equal(
        guidance(networks, X, at(2), CONDITION, NEGATIVE),
        ZeroStarGuidance(Dial(5.0))(networks, X, at(2), CONDITION, NEGATIVE),
    )


def test_composed_conditions_pull_each_on_its_own(networks):
    other, away = condition(0.3, 1.0), condition(1.0, -2.0)
    guided = Composition(((other, 1.5), (away, -0.5)))(networks, X, at(), CONDITION, NEGATIVE)
    a, b = alone("main", other), alone("main", away)
    assert torch.allclose(guided, C + 1.5 * (a - N) - 0.5 * (b - N), atol=1e-5)


def test_parts_have_scales_of_their_own(networks):
    parts = [PartGuidance("text", Dial(3.0)), PartGuidance("class", Dial(2.0))]
    guided = Guided(parts)(networks, X, at(), CONDITION, NEGATIVE)
    no_text, no_class = alone("main", condition(-1.0, 3.0)), alone("main", condition(2.0, 0.5))
    assert torch.allclose(guided, C + 2 * (C - no_text) + 1 * (C - no_class), atol=1e-5)
    without = PartGuidance("class", Dial(0.0))(networks, X, at(), CONDITION, NEGATIVE)
    assert torch.allclose(without, no_class, atol=1e-6)


def test_a_chain_asks_each_part_with_those_before_it_and_the_words_last(networks):
    words = WithParts(ClassifierFreeGuidance(4.0), ("class",))
    guided = Guided([words, ChainedGuidance("class", Dial(3.0))])(networks, X, at(), CONDITION, NEGATIVE)
    of_class = alone("main", condition(-1.0, 3.0))
    assert torch.allclose(guided, N + 3 * (of_class - N) + 4 * (C - of_class), atol=1e-5)
    assert networks["main"].calls == [6]  # class alone, neither, both: the first is asked once for both contrasts
    of_source = ChainedGuidance("class", Dial(3.0), zeros=True)  # which the negative has too: InstructPix2Pix
    beside, without = condition(-1.0, 3.0), alone("main", condition(-1.0, 0.0))
    beside = beside.replaced({"class": CONDITION.parts["class"]})
    networks["main"].calls.clear()
    edited = Guided([ClassifierFreeGuidance(4.0), of_source])(networks, X, at(), CONDITION, beside)
    assert torch.allclose(edited, without + 3 * (of_class - without) + 4 * (C - of_class), atol=1e-5)
    assert networks["main"].calls == [6]
    further = ChainedGuidance("text", Dial(2.5), before=("class",))
    guided = Guided([ChainedGuidance("class", Dial(3.0)), further])(networks, X, at(), CONDITION, NEGATIVE)
    assert torch.allclose(guided, C + 2 * (of_class - N) + 1.5 * (C - of_class), atol=1e-5)


def test_branches_that_are_told_the_same_are_run_once_and_others_never(networks):
    again = CONDITION.replaced({"class": CONDITION.parts["class"]})
    other = CONDITION.replaced({"class": {k: x.clone() for k, x in CONDITION.parts["class"].items()}})
    for told, passes in ((again, 2), (other, 4)):
        networks["main"].calls.clear()
        run([Branch(CONDITION), Branch(told)], networks, X, at())
        assert networks["main"].calls == [passes]


def test_all_branches_of_one_network_are_one_forward_pass_and_the_same_branch_is_run_once(networks):
    contrasts = [ClassifierFreeGuidance(3.0), Composition(((condition(1.0, 1.0), 1.0),)), AutoGuidance(Dial(2.0))]
    together = Guided(contrasts)(networks, X, at(), CONDITION, NEGATIVE)
    assert networks["main"].calls == [6] and networks["weak"].calls == [2]  # negative, further, conditional; weak
    apart = C + sum(c({"main": Network(), "weak": Network(0.7)}, X, at(), CONDITION, NEGATIVE) - C for c in contrasts)
    assert torch.allclose(together, apart, atol=1e-5)


def test_a_batch_that_does_not_fit_is_run_row_by_row_from_then_on(networks):
    class Small(Network):
        def __call__(self, x_t, t, told):
            if len(x_t) > 2:
                self.calls.append(-1)
                raise torch.OutOfMemoryError
            return super().__call__(x_t, t, told)

    small, memory = Small(), {}
    for index in range(2):
        guided = ClassifierFreeGuidance(3.0)({"main": small}, X, at(index, 10, memory), CONDITION, NEGATIVE)
        assert torch.allclose(guided, N + 3 * (C - N), atol=1e-5)
    assert small.calls == [-1, 2, 2, 2, 2]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_every_schedule_pushes_as_much_in_total(schedule):
    dial = Dial(5.0, schedule=schedule)
    scales = [dial.at(at(index, 1000)) for index in range(1000)]
    assert sum(scales) / 1000 == pytest.approx(5.0, abs=1e-3)
    assert scales == sorted(scales)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="constant, linear, cosine"):
        Dial(schedule="sawtooth")


def test_adaptive_guidance_is_classifier_free_to_the_bit_where_nothing_is_similar_enough(networks):
    memory = {}
    for index in range(3):
        guided = AdaptiveGuidance(ClassifierFreeGuidance(4.0), 1.0)(
            networks, X, at(index, 3, memory), CONDITION, NEGATIVE
        )
        assert torch.equal(guided, ClassifierFreeGuidance(4.0)(networks, X, at(index, 3), CONDITION, NEGATIVE))


def test_once_both_say_the_same_only_the_conditional_is_run(networks):
    memory = {}
    adaptive = AdaptiveGuidance(ClassifierFreeGuidance(4.0), -1.0)
    first = adaptive(networks, X, at(0, 3, memory), CONDITION, NEGATIVE)
    assert torch.equal(first, ClassifierFreeGuidance(4.0)({"main": Network()}, X, at(0, 3), CONDITION, NEGATIVE))
    later = [adaptive(networks, X, at(index, 3, memory), CONDITION, NEGATIVE) for index in (1, 2)]
    assert networks["main"].calls == [4, 2, 2] and all(torch.equal(x, C) for x in later)
    again = adaptive(networks, X, at(0, 3), CONDITION, NEGATIVE)  # another loop
    assert torch.equal(again, first)


def test_every_row_is_judged_by_itself(networks):
    near = C.clone()
    near[1] = -C[1]  # the second row's null says the opposite
    memory = {}
    adaptive = AdaptiveGuidance(ClassifierFreeGuidance(3.0), 0.9)
    adaptive.combined(at(0, 3, memory), C, [near])
    assert adaptive.branches(at(1, 3, memory), CONDITION, NEGATIVE) is not None
    second = adaptive.combined(at(1, 3, memory), C, [N])
    assert torch.equal(second[0], C[0]) and torch.equal(second[1], (N + 3.0 * (C - N))[1])
