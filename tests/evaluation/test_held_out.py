"""The paired held-out loss is a function of the weights alone."""

import math

import pytest
import torch

from adapt.backbones import Backbone
from adapt.evaluation.held_out import HeldOut, compare
from adapt.lora import inject


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return Backbone.load(str(tiny_base))


@pytest.fixture(scope="module")
def held_out(backbone):
    x = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return HeldOut(x, backbone.condition([f"picture {n}" for n in range(5)]), times=4, batch=8)


def _with_batch(held_out, batch):
    return HeldOut(held_out.x, held_out.condition, held_out.times, batch)


def test_measured_again_it_is_exactly_the_same(backbone, held_out):
    first = held_out.losses(backbone, backbone.objective())
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        assert held_out.losses(backbone, backbone.objective()) == first
        assert torch.equal(torch.get_rng_state(), before)
    assert len(first) == len(set(first)) == 5


def test_the_batch_size_changes_nothing(backbone, held_out):
    wanted = held_out.losses(backbone, backbone.objective())
    for batch in (1, 2, 3):
        assert _with_batch(held_out, batch).losses(backbone, backbone.objective()) == pytest.approx(wanted, rel=1e-6)


def test_it_is_the_mean_loss_over_even_times(backbone, held_out):
    """By hand for one picture: four times in the middle of four equal shares, fixed noise."""
    from adapt.data.plan import normal

    objective, x, rows = backbone.objective(), held_out.x[2:3], held_out.condition.rows(slice(2, 3))
    losses = []
    for k, t in enumerate((125, 375, 625, 875)):
        noise = normal(0, "held-out", k, 2, (4, 8, 8))[None]
        t = torch.tensor([t])
        with torch.no_grad():
            prediction = backbone.predict(objective.noised(x, noise, t), t, rows)
        losses.append(float((prediction - noise).square().mean()))
    measured = held_out.losses(backbone, objective)[2]
    assert measured == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_dropout_is_off_and_the_mode_is_put_back(backbone, held_out):
    wanted = held_out.losses(backbone, backbone.objective())
    injection = inject(backbone.denoiser, rank=2, alpha=2, dropout=0.5, targets=("to_q", "conv1"), seed=0)
    try:
        backbone.denoiser.train()
        assert held_out.losses(backbone, backbone.objective()) == wanted
        assert backbone.denoiser.training
        assert all(m.training for m in backbone.denoiser.modules())
    finally:
        injection.remove()
        backbone.denoiser.eval()


def test_base_against_base_is_one(backbone, held_out):
    losses = held_out.losses(backbone, backbone.objective())
    measured = compare(0, losses, losses)
    assert (measured.ratio, measured.standard_error, measured.change) == (1.0, 0.0, 0.0)
    assert measured.loss == measured.base == pytest.approx(sum(losses) / 5)
    assert measured.pictures == 5


def _losses(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(n, generator=generator, dtype=torch.float64) + 0.5
    adapted = base * 0.8 + 0.1 * torch.rand(n, generator=generator, dtype=torch.float64)
    return adapted, base


def test_the_standard_error_is_that_of_a_bootstrap_over_pictures():
    adapted, base = _losses()
    measured = compare(3, adapted.tolist(), base.tolist())
    draws = torch.randint(0, 40, (20_000, 40), generator=torch.Generator().manual_seed(1))
    ratios = adapted[draws].mean(1) / base[draws].mean(1)
    differences = (adapted - base)[draws].mean(1)
    assert measured.ratio == pytest.approx(float(adapted.mean() / base.mean()), rel=1e-12)
    assert measured.standard_error == pytest.approx(float(ratios.std()), rel=0.06)
    assert measured.change == pytest.approx(float((adapted - base).mean() / differences.std()), rel=0.06)
    assert measured.change < -10 and measured.ratio < 1


def test_pairing_is_what_makes_it_sharp():
    """Shuffled pairs have the same ratio and a much larger error."""
    adapted, base = _losses()
    paired, loose = compare(0, adapted.tolist(), base.tolist()), compare(0, adapted.tolist(), base.flip(0).tolist())
    assert paired.ratio == pytest.approx(loose.ratio)
    assert paired.standard_error < loose.standard_error / 3


def test_one_picture_has_no_known_spread():
    import json

    measured = compare(0, [0.5], [1.0])
    assert measured.ratio == 0.5 and measured.pictures == 1 and measured.change == 0
    json.dumps(measured.as_dict(), allow_nan=False)
    assert math.isfinite(measured.loss)
