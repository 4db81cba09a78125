"""Targets: the objective's own, or the base's word above a share of noise."""

import torch
from torch import nn

from adapt.objectives import Anchored, Epsilon, Flow, Plain
from conditioning import Condition

X, NOISE = (torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
T = torch.tensor([0, 300, 599, 600, 999])
CONDITION = Condition({"text": {"tokens": torch.ones(5, 1, 1)}})
OBJECTIVE = Epsilon(alphas_cumprod=torch.linspace(0.999, 0.001, 1000))


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.seen = []

    def forward(self, x_t, t, condition):
        self.seen.append(x_t)
        return self.weight * x_t + t.view(-1, 1, 1, 1)


def test_above_the_share_the_teacher_is_right_and_below_it_the_picture():
    teacher = Teacher()
    target = Anchored(OBJECTIVE, teacher, above=0.6)(X, NOISE, T, CONDITION)
    plain = Plain(OBJECTIVE)(X, NOISE, T, CONDITION)
    taught = 0.5 * OBJECTIVE.noised(X, NOISE, T) + T.view(-1, 1, 1, 1)
    assert torch.equal(target[:3], plain[:3])
    assert torch.allclose(target[3:], taught[3:])
    assert not torch.allclose(target[3:], plain[3:])


def test_no_gradient_reaches_the_teacher():
    target = Anchored(OBJECTIVE, Teacher(), above=0.0)(X, NOISE, T, CONDITION)
    assert not target.requires_grad


def test_a_teacher_with_nothing_to_say_is_not_asked():
    teacher = Teacher()
    low = torch.full((5,), 100)
    target = Anchored(OBJECTIVE, teacher, above=0.6)(X, NOISE, low, CONDITION)
    assert torch.equal(target, NOISE) and not teacher.seen


def test_share_is_measured_in_noise_for_flow_too():
    flow = Flow()
    target = Anchored(flow, Teacher(), above=0.6)(X, NOISE, T.double(), CONDITION)
    same = (target == flow.target(X, NOISE, T)).flatten(1).all(1)
    assert same.tolist() == [True, True, True, False, False]
