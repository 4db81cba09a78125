"""What a slider is learned from: the base's prediction, moved along the difference of two prompts."""

import pytest
import torch
from torch import nn

from adapt.objectives import Epsilon, Flow, Slid, Velocity
from conditioning import Condition

ALPHAS = torch.linspace(0.999, 0.001, 1000)
X, NOISE = (torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
T = torch.tensor([10, 500, 900])
OBJECTIVES = {"epsilon": Epsilon(alphas_cumprod=ALPHAS), "v": Velocity(alphas_cumprod=ALPHAS), "flow": Flow()}


def said(*words):
    parts = {"text": {"tokens": torch.tensor(words).view(-1, 1, 1)}}
    return Condition(parts, {"size": torch.full((len(words), 1), float(len(words)))})


WORDS, MORE, LESS = said(2.0, -1.0, 0.5), said(3.0), said(-4.0)


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.facts = []

    def forward(self, x_t, t, condition):
        self.facts.append(condition.facts["size"])
        words = condition.parts["text"]["tokens"].view(-1, 1, 1, 1)
        return self.weight * x_t + words * x_t.roll(1, -1) + words**2 * t.view(-1, 1, 1, 1) / 1000


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_it_is_the_base_and_strength_times_the_difference_of_two_prompts(name):
    objective, teacher = OBJECTIVES[name], Teacher()
    x_t = objective.noised(X, NOISE, T)
    here, more, less = (
        teacher(x_t, T, Condition(c.parts, WORDS.facts)) for c in (WORDS, MORE.expand(3), LESS.expand(3))
    )
    found = Slid(objective, teacher, MORE, LESS, 1.5)(X, NOISE, T, WORDS)
    assert torch.allclose(found, here + 1.5 * (more - less), atol=1e-5) and not found.requires_grad
    assert all((told == 3).all() for told in teacher.facts)  # facts are the pictures' own
    swapped = Slid(objective, teacher, LESS, MORE, 1.5)(X, NOISE, T, WORDS)
    assert torch.allclose(found - here, here - swapped, atol=1e-5)


def test_under_another_objective_only_times_and_weights_change():
    first = Slid(OBJECTIVES["v"], Teacher(), MORE, LESS, 2.0)
    other = first.under(OBJECTIVES["epsilon"])
    assert other.objective is OBJECTIVES["epsilon"] and (other.teacher, other.more) == (first.teacher, first.more)
