"""`benchmarks/distilled_guidance.py`: what counts as equivalent, on made-up looks and hits."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
for folder in ("training_scripts/icons", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))

import distilled_guidance as benchmark  # noqa: E402
from icons.measures import Estimate  # noqa: E402

RANDOM = torch.Generator().manual_seed(0)
TRUTH = torch.randn(200, 8, generator=RANDOM)
FAR, NEAR = (torch.randn(200, 8, generator=RANDOM) + shift for shift in (1.5, 0.3))
NAMES = [f"noun {i}" for i in range(200)]


def test_the_same_pictures_are_equivalent_and_the_unguided_ones_are_not():
    same = benchmark.style({"unguided": FAR, "guided": NEAR, "distilled": NEAR + 1e-4}, TRUTH)
    assert same.gap.value < 0 and same.equivalent
    nothing = benchmark.style({"unguided": FAR, "guided": NEAR, "distilled": FAR}, TRUTH)
    assert nothing.high > 0.9 and not nothing.equivalent  # distances: it is as far as unguided ones are


def test_retrieval_counts_what_is_lost_in_units_of_what_guidance_gains():
    guided, unguided = (torch.arange(200) < n for n in (160, 80))
    lost = benchmark.retrieval({"unguided": unguided, "guided": guided, "distilled": torch.arange(200) < 152}, NAMES)
    assert lost.gap.value == pytest.approx(0.4) and lost.difference.value == pytest.approx(-0.04)
    assert (lost.low + lost.high) / 2 == pytest.approx(-0.1) and not lost.equivalent
    assert benchmark.retrieval({"unguided": unguided, "guided": guided, "distilled": guided}, NAMES).equivalent


def test_an_interval_that_reaches_beyond_the_margin_proves_nothing():
    gap = Estimate(1.0, 0.1)
    assert benchmark.compared(gap, Estimate(0.0, 0.02)).equivalent
    assert not benchmark.compared(gap, Estimate(0.0, 0.04)).equivalent
    assert not benchmark.compared(Estimate(-1.0, 0.1), Estimate(0.06, 0.001)).equivalent
