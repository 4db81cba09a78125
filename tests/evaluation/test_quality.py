"""The figures of a sweep, against their formulas and on made-up features whose truth is known."""

from itertools import combinations, product

import pytest
import torch

from adapt.evaluation.advice import advise, smoothed
from adapt.evaluation.distances import bandwidth, between, kernel, mmd2, modes, separation, spread, within
from adapt.evaluation.grid import Grid, Setting
from adapt.evaluation.quality import Measured, Seen


def normal(*shape, seed=0, mean=0.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def ones(n):
    return torch.ones(n, dtype=torch.float64)


def test_the_distance_is_its_formula_over_all_pairs_of_different_pictures():
    x, y = normal(5, 3), normal(7, 3, seed=1, mean=0.5)
    width = bandwidth(y)
    k = lambda a, b: torch.exp(-(a - b).square().sum() / width)  # noqa: E731
    expected = (
        sum(k(a, b) for a, b in combinations(x, 2)) / 10
        + sum(k(a, b) for a, b in combinations(y, 2)) / 21
        - 2 * sum(k(a, b) for a, b in product(x, y)) / 35
    )
    found = mmd2(kernel(x, x, width), kernel(x, y, width), kernel(y, y, width), ones(5), ones(7))
    assert float(found) == pytest.approx(float(expected), abs=1e-12)


def test_leaving_a_picture_out_by_its_weight_is_leaving_it_out():
    x, y = normal(6, 3), normal(4, 3, seed=1)
    weights = ones(6)
    weights[2] = 0
    kept = torch.cat([x[:2], x[3:]])
    assert float(within(kernel(x, x, 2.0), weights)) == pytest.approx(float(within(kernel(kept, kept, 2.0), ones(5))))
    assert float(between(kernel(x, y, 2.0), weights, ones(4))) == pytest.approx(
        float(between(kernel(kept, y, 2.0), ones(5), ones(4)))
    )


def test_equal_distributions_have_no_distance_on_average_and_few_pictures_do_not_change_that():
    found = []
    for seed in range(300):
        x, y = normal(8, 10, seed=2 * seed), normal(16, 10, seed=2 * seed + 1)
        width = bandwidth(y)
        found.append(mmd2(kernel(x, x, width), kernel(x, y, width), kernel(y, y, width), ones(8), ones(16)))
    values = torch.stack(found)
    assert abs(float(values.mean())) < 3 * float(values.std() / len(values) ** 0.5)
    assert float(values.min()) < 0


def test_the_standard_error_of_a_mean_is_the_textbooks_and_groups_fall_together():
    x = normal(12)
    mean = lambda a, b: (x * a).sum() / a.sum()  # noqa: E731
    alone = spread(mean, torch.arange(12), 3)
    assert float(alone) == pytest.approx(float(x.std() / 12**0.5))
    pairs = x.view(6, 2).mean(1)
    together = spread(mean, torch.arange(12) // 2, 3)
    assert float(together) == pytest.approx(float(pairs.std() / 6**0.5))


def test_the_effective_number_of_pictures_counts_clusters_whatever_their_size():
    centres = 1e3 * torch.eye(4, dtype=torch.float64)
    for each in (5, 20):
        x = centres.repeat(each, 1)
        n = len(x)
        pairs = n * (n - 1) / (4 * each * (each - 1))  # of all pairs, one in so many is within a cluster
        assert float(modes(kernel(x, x, 1.0), ones(n))) == pytest.approx(pairs)
    same = torch.zeros(6, 2, dtype=torch.float64)
    assert float(modes(kernel(same, same, 1.0), ones(6))) == pytest.approx(1)


def test_separation_is_chance_for_equal_sets_and_one_for_sets_apart():
    def of(mean):
        x, y = normal(40, 5, seed=1), normal(40, 5, seed=2, mean=mean)
        width = bandwidth(y)
        return separation(kernel(x, x, width), kernel(x, y, width), kernel(y, y, width))

    assert 0.35 < of(0.0) < 0.65 and of(4.0) == 1.0


def test_smoothing_keeps_a_constant_and_shares_a_peak_with_its_neighbours():
    flat = torch.full((12,), 0.3, dtype=torch.float64)
    assert torch.allclose(smoothed(flat, (2, 3, 2)), flat)
    peak = torch.tensor([0.0, 0, 1, 0, 0], dtype=torch.float64)
    assert smoothed(peak, (5,)).tolist() == pytest.approx([0, 0.25, 0.5, 0.25, 0])


GRID = Grid((0.5, 1.0), (1.0, 3.0), (10, 20))


def seen(place, hits=None, reference=3.0, n=24):
    """Pictures whose features are the same noise moved by `place(setting)` towards the reference at 3; the base stays at 0."""
    noise = normal(n, 8, seed=5)
    rows = [noise, *(place(setting, noise) for setting in GRID.settings)]
    far = normal(32, 8, seed=6, mean=reference)
    return Seen(torch.stack(rows), hits, torch.arange(n), far)


def advice(found):
    measured = Measured(found)
    quality = measured.quality()
    return advise(GRID, measured, quality), quality


def test_style_is_0_for_the_base_and_1_at_the_reference():
    _, quality = advice(seen(lambda setting, noise: noise + 3 * setting.scale))
    assert float(quality.style[0]) == 0
    assert quality.style[5:].tolist() == pytest.approx([1] * 4, abs=0.1)
    assert all(0.1 < style < 0.9 for style in quality.style[1:5].tolist())
    assert float(quality.style_error[0]) == pytest.approx(0, abs=1e-9) and (quality.style_error[1:] > 0).all()


def test_of_equally_good_settings_the_cheapest_is_recommended():
    found, _ = advice(seen(lambda setting, noise: noise + 3 * setting.scale))
    assert found.setting == Setting(1.0, 1.0, 10)
    assert "style 1.0" in found.reason or "style 0.9" in found.reason


def test_of_settings_at_the_same_cost_the_better_one_is_recommended():
    found, quality = advice(seen(lambda setting, noise: noise + 3 * min(1.0, 0.97 + setting.scale / 50)))
    assert (quality.style[1:] > 0.9).all() and found.setting.evaluations == 10
    scores = {s: float(v) for s, v in zip(GRID.settings, smoothed(quality.score[1:], GRID.shape), strict=True)}
    assert scores[found.setting] == max(v for s, v in scores.items() if s.evaluations == 10)


def test_better_prompts_pay_for_guidance_and_worse_ones_do_not():
    def hits(better):
        share = {1.0: 6, 3.0: 22} if better else {1.0: 22, 3.0: 6}
        rows = [torch.arange(24) < 20, *(torch.arange(24) < share[s.guidance_scale] for s in GRID.settings)]
        return torch.stack(rows)

    place = lambda setting, noise: noise + 3 * setting.scale  # noqa: E731
    assert advice(seen(place, hits(True)))[0].setting == Setting(1.0, 3.0, 10)
    assert advice(seen(place, hits(False)))[0].setting == Setting(1.0, 1.0, 10)


def test_collapsed_settings_are_left_out_and_when_all_are_nothing_is_recommended():
    def place(setting, noise):
        return 3 + noise * (0.05 if setting.scale == 1 else 1)

    found, quality = advice(seen(place))
    assert (quality.diversity[5:] < 0.5).all() and found.setting.scale == 0.5
    found, _ = advice(seen(lambda setting, noise: 3 + 0.05 * noise))
    assert found.setting is None and "half as diverse" in found.reason


def test_without_a_difference_or_a_reference_nothing_is_recommended():
    found, _ = advice(seen(lambda setting, noise: noise, reference=0.0))
    assert found.setting is None and "chance" in found.reason
    bare = seen(lambda setting, noise: noise)
    found, quality = advice(Seen(bare.features, None, bare.own, None))
    assert found.setting is None and "--reference" in found.reason
    assert quality.style is None and float(quality.diversity[0]) == 1
