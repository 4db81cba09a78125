"""The paired held-out loss is a function of the weights alone."""

import math
from dataclasses import replace

import pytest
import torch

from adapt.backbones import Backbone
from adapt.data.plan import normal
from adapt.evaluation.held_out import HeldOut, compare
from adapt.lora import inject


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return Backbone.load(str(tiny_base))


@pytest.fixture(scope="module")
def held_out(backbone):
    x = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return HeldOut(x, backbone.condition([f"picture {n}" for n in range(5)]), times=4, batch=8)


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
        assert replace(held_out, batch=batch).losses(backbone, backbone.objective()) == pytest.approx(wanted, rel=1e-6)


def by_hand(backbone, held_out, picture, quantiles, signs=(1,)):
    """Losses of one picture at these quantiles, each the mean over the signs of its fixed noise."""
    objective, x = backbone.objective(), held_out.x[picture][None]
    rows, losses = held_out.condition.rows(slice(picture, picture + 1)), []
    for k, quantile in enumerate(quantiles):
        t = torch.tensor([int(1000 * quantile)])
        noises = [sign * normal(0, "held-out", k, picture, (4, 8, 8))[None] for sign in signs]
        with torch.no_grad():
            predictions = [backbone.predict(objective.noised(x, noise, t), t, rows) for noise in noises]
        each = [float((p - noise).square().mean()) for p, noise in zip(predictions, noises, strict=True)]
        losses.append(sum(each) / len(each))
    return losses


def test_it_is_the_loss_at_one_time_in_each_of_as_many_shares(backbone, held_out):
    """For picture i, (k + {1/2 + i / golden ratio}) / 4: the middles for the first, elsewhere for the others."""
    table = held_out.table(backbone, backbone.objective())
    assert table.shape == (5, 4) and table.dtype == torch.float64
    for picture in (0, 2):
        place = (0.5 + picture * 0.6180339887498949) % 1
        quantiles = [(k + place) / 4 for k in range(4)]
        assert table[picture].tolist() == pytest.approx(by_hand(backbone, held_out, picture, quantiles), rel=1e-5)
    assert held_out.losses(backbone, backbone.objective())[2] == pytest.approx(float(table[2].mean()), rel=1e-12)


def test_a_pair_is_the_noise_and_its_negative(backbone, held_out):
    table = replace(held_out, pairs=True).table(backbone, backbone.objective())
    quantiles = [(k + 0.5) / 4 for k in range(4)]
    assert table[0].tolist() == pytest.approx(by_hand(backbone, held_out, 0, quantiles, (1, -1)), rel=1e-5)


def test_shares_are_where_the_losses_are_taken(backbone, held_out):
    shares = held_out.shares(backbone.objective())
    assert shares[0].tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=1e-3)
    assert all(k / 4 - 1e-3 <= share < (k + 1) / 4 for row in shares.tolist() for k, share in enumerate(row))
    assert len({round(share, 4) for share in shares.flatten().tolist()}) == 20  # no two pictures share a time


def test_all_pictures_together_cover_the_times_closely(backbone):
    """With 16 pictures and 4 times, no gap between neighbouring times is wider than three of 64 even steps."""
    x = torch.zeros(16, 4, 8, 8)
    shares = HeldOut(x, backbone.null(1).expand(16), times=4).shares(backbone.objective()).flatten().sort().values
    assert float(shares.diff().max()) <= 3 / 64
    assert float(shares[0]) <= 2 / 64 and float(shares[-1]) >= 62 / 64


def test_pictures_of_several_shapes_are_measured_each_as_alone(backbone, held_out):
    random = torch.Generator().manual_seed(4)
    shapes = [(4, 8, 8), (4, 8, 16), (4, 8, 8), (4, 16, 8), (4, 8, 16)]
    mixed = replace(held_out, x=[torch.randn(shape, generator=random) for shape in shapes], batch=2)
    table = mixed.table(backbone, backbone.objective())
    others = torch.zeros(4, 8, 8)
    for place, shape in enumerate(shapes):
        alone = [mixed.x[place] if i == place else others for i in range(5)]  # its place decides its noise and times
        assert alone[place].shape == shape
        row = replace(mixed, x=alone, batch=1).table(backbone, backbone.objective())[place]
        assert table[place].tolist() == pytest.approx(row.tolist(), rel=1e-5)


def test_an_area_is_what_counts(backbone, held_out):
    """Half of the second picture: the mean over that half; the others as they were."""
    half = torch.zeros(1, 8, 8)
    half[:, :, :4] = 1
    whole = held_out.table(backbone, backbone.objective())
    table = replace(held_out, areas=[None, half, None, None, None]).table(backbone, backbone.objective())
    torch.testing.assert_close(table[[0, 2, 3, 4]], whole[[0, 2, 3, 4]], rtol=1e-6, atol=0)
    objective, t = backbone.objective(), held_out._times(backbone.objective(), [1], 0)
    noise = normal(0, "held-out", 0, 1, (4, 8, 8))[None]
    with torch.no_grad():
        x_t = objective.noised(held_out.x[1][None], noise, t)
        prediction = backbone.predict(x_t, t, held_out.condition.rows(slice(1, 2)))
    expected = (prediction - noise)[..., :4].square().mean()
    assert float(table[1, 0]) == pytest.approx(float(expected), rel=1e-5)


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


def test_rounding_is_no_change():
    """An adapter that does nothing rounds elsewhere; in standard errors of that rounding it would seem to have learned."""
    base = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    rounded = base * (1 + 1e-7 * torch.tensor([3.0, 4.0, 3.5, 4.0]))
    found = compare(0, rounded, base)
    assert found.change == 0.0 and found.ratio == pytest.approx(1.0, abs=1e-6)
    assert compare(0, rounded, base, rounding=0.0).change > 1.5
    assert compare(1, base * 0.999, base).change < -2
