"""Shaped noise is what its formula says, comes from the Plan alone, and is the same for a row in any batch."""

import math

import pytest
import torch
import torch.nn.functional as F

from adapt.data.plan import Plan, normal
from adapt.objectives import PLAIN, Epsilon, Noise
from adapt.objectives.noise import coarser, multires, nearest, offset

PLAN = Plan(seed=7, size=100, batch=8)
STEP = 3
SHAPES = {"sound": (4, 32), "picture": (4, 16, 24), "video": (4, 3, 16, 12)}
KINDS = {
    "offset": Noise(offset=0.1),
    "adaptive": Noise(offset=0.1, adaptive=0.5),
    "multires": Noise(iterations=6, discount=0.4),
    "nearest": Noise(candidates=4),
    "both": Noise(offset=0.1, candidates=3),
}


def rows(positions=range(8), step=STEP, plan=PLAN):
    return plan.rows(step, positions)


def made(noise, x, drawn=None):
    drawn = drawn or rows()
    return noise(x, drawn.noise, lambda stream: drawn.plan.uniform(stream, drawn.step, 0))


def clean(shape, n=8, seed=0, dtype=torch.float32):
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed)).to(dtype)


# --------------------------------------------------------------------------------------------------------------- the Plan
@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_rows_noise_does_not_depend_on_its_neighbours(name, shape):
    x = clean(shape)
    together = made(KINDS[name], x)
    assert together.shape == x.shape and torch.isfinite(together).all()
    for i in (0, 3, 7):
        assert torch.equal(made(KINDS[name], x[i : i + 1], rows([i]))[0], together[i])
    assert torch.equal(made(KINDS[name], x[4:], rows(range(4, 8))), together[4:])


@pytest.mark.parametrize("name", sorted(KINDS))
def test_other_steps_and_seeds_have_other_noise(name):
    x = clean(SHAPES["picture"])
    here = made(KINDS[name], x)
    assert not torch.equal(here, made(KINDS[name], x, rows(step=4)))
    assert not torch.equal(here, made(KINDS[name], x, rows(plan=Plan(8, 100, 8))))
    assert torch.equal(here, made(KINDS[name], x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_plain_noise_is_the_plans_to_the_bit(dtype):
    x = clean(SHAPES["picture"], dtype=dtype)
    assert torch.equal(made(PLAIN, x), rows().noise(x.shape[1:]).to(x))


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_noise_has_the_dtype_of_the_latents(name, dtype):
    assert made(KINDS[name], clean(SHAPES["picture"], dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("name", sorted(KINDS))
def test_noise_is_made_in_fp32_and_in_fp64_for_an_fp64_model(name):
    x = clean(SHAPES["picture"], dtype=torch.bfloat16)
    assert torch.equal(made(KINDS[name], x), made(KINDS[name], x.float()).bfloat16())
    double = made(KINDS["adaptive"], x.double())
    assert not torch.equal(double, double.float().double())


# ----------------------------------------------------------------------------------------------------------------- offset
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_an_offset_shifts_whole_channels(shape):
    x = clean(shape)
    shift = made(KINDS["offset"], x) - made(PLAIN, x)
    level = rows().noise((4,), "noise-offset")
    assert torch.allclose(shift, (0.1 * level).view(8, 4, *[1] * (len(shape) - 1)).expand_as(x), atol=1e-6)
    assert float(level.std()) == pytest.approx(1.0, abs=0.3)


def test_an_adaptive_offset_follows_the_mean_of_the_channel():
    """kohya: noise_offset + adaptive_noise_scale · |mean of the latents|, not below 0."""
    x = clean(SHAPES["picture"])
    x[0] += 10
    level = rows().noise((4,), "noise-offset")
    found = (made(KINDS["adaptive"], x) - made(PLAIN, x)).mean((2, 3))
    assert torch.allclose(found, (0.1 + 0.5 * x.mean((2, 3)).abs()) * level, atol=1e-5)
    falling = made(Noise(offset=0.1, adaptive=-0.5), x) - made(PLAIN, x)
    assert torch.allclose(falling[0], torch.zeros(()), atol=1e-6)


def test_offset_adds_its_variance():
    noise = offset(torch.randn(64, 4, 32, 32), torch.randn(64, 4), 0.5)
    assert float(noise.mean((2, 3)).var()) == pytest.approx(0.25, rel=0.4)


# --------------------------------------------------------------------------------------------------------------- multires
def test_levels_shrink_with_their_ratio_until_one_side_is_1():
    assert coarser((64, 96), [2.0, 3.0, 2.5]) == [(32, 48), (7, 10), (4, 6)]
    assert coarser((8, 64), [2.0, 3.9, 2.0, 2.0]) == [(4, 32), (1, 4)]
    assert coarser((64, 64), []) == []
    assert coarser((3, 64, 64), [2.0, 2.0, 2.0]) == [(1, 32, 32), (1, 16, 16), (1, 8, 8)]  # frames of a video
    assert coarser((32,), [4.0, 4.0, 4.0, 4.0]) == [(8,), (2,), (1,)]


def test_multires_is_the_sum_of_its_levels():
    noise, coarse = torch.randn(2, 4, 16, 16), [torch.randn(2, 4, 7, 7), torch.randn(2, 4, 2, 2)]
    found = multires(noise, coarse, 0.4)
    for i in range(2):
        up = [F.interpolate(c[i : i + 1], size=(16, 16), mode="bilinear")[0] for c in coarse]
        total = math.sqrt(2) * noise[i] + 0.4 * up[0] + 0.16 * up[1]
        assert torch.allclose(found[i], total / total.std(), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_multires_noise_has_unit_variance_and_is_coarser(shape):
    x = clean(shape)
    plain, found = made(PLAIN, x), made(Noise(iterations=6, discount=0.9), x)
    assert torch.allclose(found.flatten(1).std(1), torch.ones(8), atol=1e-5)
    neighbours = [(n[..., 1:] * n[..., :-1]).mean() for n in (plain, found)]
    assert float(neighbours[0]) < 0.1 < 0.2 < float(neighbours[1])


def test_its_levels_are_the_plans():
    x = clean((4, 32, 32))
    ratios = [2 + 2 * PLAN.uniform(f"noise-ratio-{i}", STEP, 0) for i in (1, 2)]
    sizes = coarser((32, 32), ratios)
    levels = [rows().noise((4, *dims), f"noise-level-{i}") for i, dims in enumerate(sizes, 1)]
    expected = multires(rows().noise((4, 32, 32)), levels, 0.4)
    assert len(sizes) == 2 and all(2 <= r < 4 for r in ratios)
    assert torch.equal(made(Noise(iterations=3, discount=0.4), x), expected)


def test_one_level_is_plain_noise_of_unit_variance():
    x = clean(SHAPES["picture"])
    plain, found = made(PLAIN, x), made(Noise(iterations=1), x)
    assert torch.allclose(found, plain / plain.flatten(1).std(1).view(-1, 1, 1, 1), atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------- nearest
def test_the_nearest_of_a_rows_own_noises_is_taken():
    x = clean(SHAPES["picture"], seed=5)
    found = made(KINDS["nearest"], x)
    streams = ["noise", "noise-1", "noise-2", "noise-3"]
    for i in range(8):
        candidates = torch.stack([normal(7, s, STEP, i, x.shape[1:]) for s in streams])
        distances = (candidates - x[i]).flatten(1).norm(dim=1)
        assert torch.equal(found[i], candidates[distances.argmin()])
    taken = [torch.equal(found[i], normal(7, "noise", STEP, i, x.shape[1:])) for i in range(8)]
    assert 0 < sum(taken) < 8


def test_more_candidates_are_never_farther():
    x = clean((4, 4, 4))
    distances = [(made(Noise(candidates=k), x) - x).flatten(1).norm(dim=1) for k in (1, 2, 4, 16)]
    for more, fewer in zip(distances[1:], distances, strict=False):
        assert (more <= fewer).all()
    assert (distances[-1] < distances[0]).any()


def test_nearest_of_one_is_itself():
    x, noise = clean((4, 4, 4)), clean((4, 4, 4), seed=1)
    assert torch.equal(nearest(x, [noise]), noise)


# ----------------------------------------------------------------------------------------------------- input perturbation
def test_perturbed_input_has_the_variance_that_the_paper_gives_it():
    """x_t = √ᾱ x + √(1 - ᾱ) (ε + γ ξ), and the target is ε still."""
    x, t = clean((4, 32, 32)), torch.full((8,), 500)
    noise = made(PLAIN, x)
    perturbed = Noise(perturbation=0.5).perturbed(noise, rows().noise)
    assert torch.allclose(perturbed, noise + 0.5 * rows().noise(x.shape[1:], "noise-input"))
    assert float(perturbed.var()) == pytest.approx(1.25, rel=0.05)
    objective = Epsilon(alphas_cumprod=torch.linspace(0.99, 0.01, 1000))
    alpha = objective.alphas_cumprod[500]
    expected = alpha.sqrt() * x + (1 - alpha).sqrt() * perturbed
    assert torch.allclose(objective.noised(x, perturbed, t), expected, atol=1e-6)


def test_without_perturbation_the_noise_is_the_same_tensor():
    noise = clean((4, 4, 4))
    assert PLAIN.perturbed(noise, rows().noise) is noise


def test_perturbation_is_drawn_apart_from_the_noise():
    noise = rows().noise((4, 64, 64))
    xi = Noise(perturbation=1.0).perturbed(noise, rows().noise) - noise
    assert abs(float((xi * noise).mean())) < 0.02
