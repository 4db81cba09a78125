"""Losses are kohya's and the paper's formulas; the masked loss is a mean over the masked area."""

import math

import pytest
import torch

from adapt.objectives import Epsilon, Flow, Loss, Velocity, weighting
from adapt.objectives.losses import huber, mean, smooth_l1

ERRORS = torch.linspace(-3, 3, 61, dtype=torch.float64)
ALPHAS = torch.linspace(0.999, 0.001, 1000)
T = torch.tensor([0, 250, 500, 999])


def _random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


P, Q = _random(4, 3, 5, 5), _random(4, 3, 5, 5, seed=1)


# ------------------------------------------------------------------------------------------------------------------ huber
@pytest.mark.parametrize("c", [0.01, 0.1, 1.0])
def test_formulas_are_kohyas_and_the_papers(c):
    root = (ERRORS**2 + c**2).sqrt() - c
    assert torch.allclose(huber(ERRORS, torch.tensor(c, dtype=torch.float64)), 2 * c * root, atol=1e-12)
    assert torch.allclose(smooth_l1(ERRORS, torch.tensor(c, dtype=torch.float64)), 2 * root, atol=1e-12)
    paper = c**2 * ((1 + (ERRORS / c) ** 2).sqrt() - 1)  # Khrapov et al., h_δ
    assert torch.allclose(huber(ERRORS, torch.tensor(c, dtype=torch.float64)), 2 * paper, atol=1e-12)


def test_small_errors_cost_their_square_and_large_ones_their_size():
    c = torch.tensor(0.5)
    assert torch.allclose(
        huber(torch.tensor([1e-4]), c), torch.tensor([1e-8]), rtol=1e-5, atol=0
    )  # nothing is lost in fp32
    assert torch.allclose(huber(torch.tensor([1e4]), c), torch.tensor([1e4]), rtol=1e-3)
    assert torch.allclose(smooth_l1(torch.tensor([-1e4]), c), torch.tensor([2e4]), rtol=1e-3)


def test_a_single_outlier_pulls_no_harder_than_twice_the_threshold():
    error = torch.tensor([0.0, 0.01, 100.0], requires_grad=True)
    huber(error, torch.tensor(0.1)).sum().backward()
    assert torch.allclose(error.grad, torch.tensor([0.0, 0.02, 0.2]), rtol=2e-2)


@pytest.mark.parametrize("kind", ["l2", "huber", "smooth_l1"])
def test_the_loss_of_an_objective_is_that_of_its_errors(kind):
    loss = None if kind == "l2" else Loss(kind, 0.3, "constant")
    objective = Velocity(loss=loss, alphas_cumprod=ALPHAS)
    root = ((P - Q) ** 2 + 0.09).sqrt() - 0.3
    expected = {"l2": (P - Q) ** 2, "huber": 0.6 * root, "smooth_l1": 2 * root}[kind].mean((1, 2, 3))
    assert torch.allclose(objective.losses(P, Q, T), expected)


def test_the_plain_loss_has_the_bits_of_a_mean_of_squares():
    p, q = P.float(), Q.float()
    assert torch.equal(Velocity(alphas_cumprod=ALPHAS).losses(p, q, T), (p - q).square().flatten(1).mean(1))


def test_a_threshold_may_lie_where_snr_is_0_or_infinite():
    for alphas in (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])):
        for kind in ("huber", "smooth_l1"):
            objective = Epsilon(loss=Loss(kind, 0.1, "snr"), alphas_cumprod=alphas)
            assert torch.isfinite(objective.losses(P[:2], Q[:2], torch.tensor([0, 1]))).all()


# -------------------------------------------------------------------------------------------------------------- schedules
def threshold(schedule, objective, t, c=0.1):
    return Loss("huber", c, schedule).threshold(objective.share(t), objective.snr(t)).double()


def test_schedules_are_kohyas():
    objective, c = Epsilon(alphas_cumprod=ALPHAS), 0.1
    t = torch.arange(1000)
    sigmas = ((1 - ALPHAS.double()) / ALPHAS.double()).sqrt()
    assert torch.allclose(threshold("snr", objective, t), (1 - c) / (1 + sigmas) ** 2 + c, rtol=1e-4)
    alpha = -math.log(c) / 1000
    assert torch.allclose(threshold("exponential", objective, t), torch.exp(-alpha * t.double()), rtol=1e-4)
    assert (threshold("constant", objective, t) == torch.tensor(c)).all()


@pytest.mark.parametrize("schedule", ["exponential", "snr"])
@pytest.mark.parametrize(
    "objective", [Epsilon(alphas_cumprod=torch.linspace(1, 0, 1001)), Flow()], ids=["discrete", "flow"]
)
def test_scheduled_thresholds_fall_from_1_to_c(schedule, objective):
    found = threshold(schedule, objective, torch.arange(1001, dtype=torch.float64))
    assert float(found[0]) == pytest.approx(1.0) and float(found[-1]) == pytest.approx(0.1, rel=1e-2)
    assert (found[1:] < found[:-1] + 1e-7).all()


def test_along_a_flow_the_snr_schedule_follows_the_signal():
    """1 / (1 + 1 / √SNR) is 1 - σ."""
    sigma = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose(threshold("snr", Flow(), sigma * 1000), 0.9 * (1 - sigma) ** 2 + 0.1)


def test_every_row_has_the_threshold_of_its_time():
    objective = Flow(loss=Loss("huber", 0.1, "exponential"))
    t = torch.tensor([0.0, 500.0, 900.0, 1000.0], dtype=torch.float64)
    expected = [float(huber(P[i] - Q[i], torch.tensor(0.1 ** (float(t[i]) / 1000))).mean()) for i in range(4)]
    assert objective.losses(P, Q, t).tolist() == pytest.approx(expected)


# ----------------------------------------------------------------------------------------------------------------- masked
WEIGHTED = {
    "plain": Velocity(alphas_cumprod=ALPHAS),
    "weighted": Velocity(weighting=weighting("min_snr"), alphas_cumprod=ALPHAS),
    "huber": Velocity(loss=Loss("huber"), alphas_cumprod=ALPHAS),
}


@pytest.mark.parametrize("name", sorted(WEIGHTED))
@pytest.mark.parametrize("shape", [(4, 1, 5, 5), (4, 3, 5, 5), (1, 1, 5, 5), (4, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_weight_of_all_ones_changes_not_one_bit(name, shape, dtype):
    p, q = P.to(dtype).requires_grad_(), Q.to(dtype)
    plain = WEIGHTED[name].losses(p, q, T)
    masked = WEIGHTED[name].losses(p, q, T, torch.ones(shape))
    assert torch.equal(plain, masked) and plain.dtype == masked.dtype
    gradients = [torch.autograd.grad(losses.sum(), p)[0] for losses in (plain, masked)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("name", sorted(WEIGHTED))
def test_the_mean_is_over_the_weighted_area(name):
    weight = torch.zeros(4, 1, 5, 5)
    weight[:, :, :2, :3] = 1.0
    cut = WEIGHTED[name].losses(P[..., :2, :3], Q[..., :2, :3], T)
    assert torch.allclose(WEIGHTED[name].losses(P, Q, T, weight), cut)


def test_what_is_masked_out_neither_counts_nor_gets_a_gradient():
    weight = (torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    spoiled = torch.where(weight.bool(), P, 1e6).requires_grad_()
    losses = WEIGHTED["plain"].losses(spoiled, Q, T, weight)
    assert torch.equal(losses, WEIGHTED["plain"].losses(P, Q, T, weight))
    (gradient,) = torch.autograd.grad(losses.sum(), spoiled)
    assert (gradient[(weight == 0).expand_as(gradient)] == 0).all() and (gradient != 0).any()


def test_half_weights_count_half():
    values, weight = torch.tensor([[[1.0, 4.0]]]), torch.tensor([[[1.0, 0.5]]])
    assert mean(values, weight).tolist() == [2.0]  # (1 + 0.5 · 4) / 1.5
    assert mean(values, 0.1 * weight).tolist() == pytest.approx([2.0])  # only ratios count within a picture


def test_each_row_is_normalised_by_its_own_area():
    weight = torch.ones(4, 1, 5, 5)
    weight[1, :, 0] = 0
    found, plain = WEIGHTED["plain"].losses(P, Q, T, weight), WEIGHTED["plain"].losses(P, Q, T)
    assert (found == plain).tolist() == [True, False, True, True]


def test_an_empty_mask_gives_nothing_to_learn():
    p = P.clone().requires_grad_()
    losses = WEIGHTED["plain"].losses(p, Q, T, torch.zeros(4, 1, 5, 5))
    assert (losses == 0).all()
    (gradient,) = torch.autograd.grad(losses.sum(), p)
    assert (gradient == 0).all()


def test_losses_of_half_precision_are_fp32_and_of_double_fp64():
    for dtype, expected in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ):
        for objective in WEIGHTED.values():
            assert objective.losses(P.to(dtype), Q.to(dtype), T, torch.ones(4, 1, 5, 5)).dtype == expected


def test_the_square_of_a_large_error_does_not_overflow_half_precision():
    error = torch.full((4, 3, 5, 5), 300.0, dtype=torch.float16)
    assert WEIGHTED["plain"].losses(error, torch.zeros_like(error), T).tolist() == [90_000.0] * 4
