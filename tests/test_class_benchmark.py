"""`benchmarks/class_adapter.py` and its judge, on made-up pictures and features."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[1]
for folder in ("training_scripts/icons", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))

import class_adapter as benchmark  # noqa: E402
from classes import judge, real  # noqa: E402

KINDS = len(judge.NAMES)


@pytest.fixture(scope="module")
def lessons():
    """Two versions of 160 pictures: eight numbers for each kind, far apart."""
    random = torch.Generator().manual_seed(0)
    kind = torch.arange(160) % KINDS
    features = torch.nn.functional.one_hot(kind, KINDS).float().repeat(1, 2) * 4
    return features + 0.3 * torch.randn(2, 160, 2 * KINDS, generator=random), kind


def test_every_class_of_the_data_set_is_a_kind_that_the_judge_knows():
    data = ROOT / "examples" / "data" / "animals"
    named = benchmark.folders(data / "train") + benchmark.folders(data / "added")
    assert sorted(named) == judge.NAMES and len(benchmark.folders(data / "train")) == 8
    for kind in named:
        pictures = {path.stem for path in data.glob(f"*/{kind}/*.png")}
        assert len(pictures) >= 3 and pictures <= set(real.KINDS[kind].split())


def test_twins_are_kept_together_and_every_kind_is_dealt_to_many_parts():
    kinds = ["cat"] * 24 + ["pig"] * 24
    groups = [f"house {i // 2}/{kind}" for i, kind in enumerate(kinds)]
    parts = real.folds(kinds, groups)
    assert (parts[::2] == parts[1::2]).all()
    assert parts[:24].unique().numel() == parts[24:].unique().numel() == real.FOLDS
    assert real.twin("cat", "weary-cat") == real.twin("cat", "grinning-cat") != real.twin("cat", "black-cat")


def test_heads_learn_what_can_be_told_and_are_tried_on_what_they_never_saw(lessons):
    seen, kind = lessons
    parts = torch.arange(160) % 7 % 4
    heads = judge.taught(seen, kind, parts)
    assert (judge.tried(heads, seen, parts) == kind).float().mean() > 0.95
    swapped = torch.where(
        parts == 2, (kind + 1) % KINDS, kind
    )  # wrong in one part alone: only the others' heads learn it
    said = judge.tried(judge.taught(seen, swapped, parts), seen, parts)
    assert (said == kind)[parts == 2].float().mean() > 0.9, "the head that judges a part was not taught by it"


def test_a_drawing_is_one_of_the_classes_that_the_adapter_knows(lessons):
    seen, kind = lessons
    heads = judge.taught(seen, kind, torch.arange(160) % 2)
    net = SimpleNamespace(features=lambda pictures: torch.cat([seen[0, :10], seen[1, :10]]))
    pictures = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
    assert judge.judged(heads, net, pictures, judge.NAMES).tolist() == kind[:10].tolist()
    without = [name for name in judge.NAMES if name != judge.NAMES[3]]
    assert 3 not in judge.judged(heads, net, pictures, without).tolist()


def test_shares_and_their_errors_are_of_the_noise_that_drawings_begin_with():
    shown = benchmark.Shown(torch.zeros(6, 3, 4, 4, dtype=torch.uint8), ["cat", "pig"], 1.0)
    assert shown.each == 3 and shown.first(2).shape == (2, 2, 3, 4, 4)
    same = benchmark.by_noise(torch.tensor([1, 0, 1, 1, 0, 1]), 3)
    assert same.value == pytest.approx(2 / 3) and same.groups == 3
    assert same.error > benchmark.by_noise(torch.tensor([1, 0, 1, 0, 1, 1]), 3).error
