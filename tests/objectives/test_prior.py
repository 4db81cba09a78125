"""Prior preservation without pictures: the student is pulled to what the base says of the class words."""

import pytest
import torch
from torch import nn

from adapt.objectives import Flow, Loss, Prior, Velocity, weighting
from conditioning import Condition

ALPHAS = torch.linspace(0.999, 0.001, 1000)
X_T = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(0))
T = torch.tensor([10, 500, 900])
WORDS = Condition({"text": {"tokens": torch.full((1, 2, 1), 2.0)}})


class Model(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))
        self.seen = []

    def forward(self, x_t, t, condition):
        self.seen.append((x_t, t, condition))
        return self.weight * x_t * condition.parts["text"]["tokens"].mean((1, 2)).view(-1, 1, 1, 1)


@pytest.fixture
def models():
    return Model(0.7), Model(0.2)


OBJECTIVES = {
    "v": Velocity(alphas_cumprod=ALPHAS),
    "weighted": Velocity(weighting=weighting("min_snr"), alphas_cumprod=ALPHAS),
    "huber": Velocity(loss=Loss("huber"), alphas_cumprod=ALPHAS),
    "flow": Flow(),
}


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_it_is_the_objectives_loss_against_the_base_times_the_weight(models, name):
    student, teacher = models
    prior = Prior(OBJECTIVES[name], student, teacher, WORDS, 0.5)
    expected = 0.5 * OBJECTIVES[name].losses(0.7 * 2 * X_T, 0.2 * 2 * X_T, T)
    assert torch.allclose(prior.losses(X_T, T), expected)


def test_both_see_the_same_input_and_the_class_words_in_every_row(models):
    student, teacher = models
    Prior(OBJECTIVES["v"], student, teacher, WORDS, 1.0).losses(X_T, T)
    for model in models:
        ((x_t, t, condition),) = model.seen
        assert torch.equal(x_t, X_T) and torch.equal(t, T)
        assert len(condition) == 3 and (condition.parts["text"]["tokens"] == 2).all()


def test_only_the_student_is_moved_and_towards_the_base(models):
    student, teacher = models
    Prior(OBJECTIVES["v"], student, teacher, WORDS, 1.0).losses(X_T, T).sum().backward()
    assert teacher.weight.grad is None
    assert float(student.weight.grad) > 0  # 0.7 must fall towards 0.2


def test_an_adapter_that_agrees_with_the_base_pays_nothing(models):
    student = models[0]
    losses = Prior(OBJECTIVES["v"], student, student, WORDS, 3.0).losses(X_T, T)
    assert (losses == 0).all()
