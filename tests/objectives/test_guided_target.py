"""What guidance is distilled from: the teacher's guided prediction, row by row, for every objective."""

import pytest
import torch
from torch import nn

from adapt.objectives import Epsilon, Flow, Guided, Velocity
from conditioning import ClassifierFreeGuidance, Condition

ALPHAS = torch.linspace(0.999, 0.001, 1000)
X, NOISE = (torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
T = torch.tensor([10, 500, 900])
WORDS = Condition({"text": {"tokens": torch.tensor([2.0, -1.0, 0.5]).view(3, 1, 1)}}, {"size": torch.ones(3, 1)})
NULL = Condition({"text": {"tokens": torch.zeros(1, 1, 1)}}, {"size": torch.zeros(1, 1)})
OBJECTIVES = {"epsilon": Epsilon(alphas_cumprod=ALPHAS), "v": Velocity(alphas_cumprod=ALPHAS), "flow": Flow()}


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.facts = []

    def forward(self, x_t, t, condition):
        self.facts.append(condition.facts["size"])
        words = condition.parts["text"]["tokens"].view(-1, 1, 1, 1)
        return self.weight * x_t + words * x_t.roll(1, -1) + t.view(-1, 1, 1, 1) / 1000


def target(objective, teacher, **guidance):
    return Guided(objective, teacher, ClassifierFreeGuidance(**guidance), NULL)(X, NOISE, T, WORDS)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_it_is_the_null_prediction_and_scale_times_the_difference(name):
    objective, teacher = OBJECTIVES[name], Teacher()
    x_t = objective.noised(X, NOISE, T)
    c, n = (teacher(x_t, T, Condition(p.parts, WORDS.facts)) for p in (WORDS, NULL.expand(3)))
    assert torch.allclose(target(objective, teacher, scale=4.0), n + 4 * (c - n), atol=1e-5)


def test_no_gradient_reaches_the_teacher_and_facts_are_told_to_both():
    teacher = Teacher()
    assert not target(OBJECTIVES["v"], teacher, scale=3.0).requires_grad
    assert len(teacher.facts) == 2 and all((told == 1).all() for told in teacher.facts)


def test_an_empty_caption_is_taught_to_stay_what_the_base_says():
    teacher, objective = Teacher(), OBJECTIVES["v"]
    empty = Condition(NULL.expand(3).parts, WORDS.facts)
    guided = Guided(objective, teacher, ClassifierFreeGuidance(5.0), NULL)(X, NOISE, T, empty)
    assert torch.allclose(guided, teacher(objective.noised(X, NOISE, T), T, empty), atol=1e-6)


def test_rescale_and_the_familys_own_form_are_taken_over():
    def halved(guided, conditional):
        return guided / 2

    plain = target(OBJECTIVES["v"], Teacher(), scale=4.0)
    assert torch.allclose(target(OBJECTIVES["v"], Teacher(), scale=4.0, normalise=halved), plain / 2)
    objective, teacher = OBJECTIVES["v"], Teacher()
    conditional = teacher(objective.noised(X, NOISE, T), T, WORDS)
    rescaled = target(objective, teacher, scale=4.0, rescale=1.0)
    assert torch.allclose(rescaled.std((1, 2, 3)), conditional.std((1, 2, 3)), rtol=1e-4)


def test_under_another_objective_only_times_and_weights_change():
    first = Guided(OBJECTIVES["v"], Teacher(), ClassifierFreeGuidance(3.0), NULL)
    other = first.under(OBJECTIVES["epsilon"])
    assert other.objective is OBJECTIVES["epsilon"] and other.teacher is first.teacher
