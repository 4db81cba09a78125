"""What a run does with conditions before anything is learned: how often each is dropped and each class is seen, and how fast each
conditioner learns."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from tiny_runs import tiny

from adapt.api.assemble import assemble
from adapt.api.gather import gather
from adapt.api.settle import settle
from adapt.backbones import Backbone
from adapt.data.plan import Plan
from adapt.training.step import dropout

DRAWS = 10_000
EVERY = {"classes": True, "image_prompts": True, "control": "edges"}
RATES = {"caption_dropout": 0.1, "class_dropout": 0.08, "image_prompt_dropout": 0.12, "control_dropout": 0.05}
JOINT = {"class+image": 0.06, "caption+image": 0.07, "image+control": 0.04, "caption+class+image+control": 0.03}


def test_each_condition_and_each_pair_is_null_as_often_as_the_settings_say():
    """Three standard errors over ten thousand rows, and the same rows whichever process draws them."""
    rates = dropout(tiny(**EVERY, **RATES, joint_dropout=JOINT, previews=()), "text").rates
    assert rates == {
        ("text",): 0.1, ("class",): 0.08, ("image",): 0.12, ("control",): 0.05, ("class", "image"): 0.06,
        ("text", "image"): 0.07, ("image", "control"): 0.04, ("text", "class", "image", "control"): 0.03,
    }  # fmt: skip
    dropping = dropout(tiny(**EVERY, **RATES, joint_dropout=JOINT, previews=()), "text")
    plan = Plan(seed=5, size=100, batch=100)
    dropped = dropping.dropped(torch.cat([plan.rows(step, range(100)).uniform("drop") for step in range(DRAWS // 100)]))
    parts = ("text", "class", "image", "control")
    found = Counter(zip(*(dropped[part].tolist() for part in parts), strict=True))
    for gone in product((False, True), repeat=len(parts)):
        said = tuple(part for part, missing in zip(parts, gone, strict=True) if missing)
        p = rates.get(said, 0.0) if said else 1 - sum(rates.values())
        assert abs(found[gone] / DRAWS - p) <= 3 * (p * (1 - p) / DRAWS) ** 0.5, said
    apart = [plan.rows(7, rows).uniform("drop") for rows in (range(0, 100, 2), range(1, 100, 2))]
    whole = dropping.dropped(plan.rows(7, range(100)).uniform("drop"))
    for part, rows in whole.items():
        for number, half in enumerate(apart):
            assert torch.equal(rows[number::2], dropping.dropped(half)[part])


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """Classes of 12, 6 and 2 pictures."""
    folder, lot = tmp_path_factory.mktemp("unequal"), np.random.default_rng(0)
    for label, count in (("a", 12), ("b", 6), ("c", 2)):
        (folder / label).mkdir()
        for number in range(count):
            pixels = lot.integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def trainer(unequal, tiny_base, tmp_path):
    """A run of these settings, at step 0."""

    def make(**changes):
        backbone = Backbone.load(str(tiny_base))
        asked = {"validation": 0.0, "previews": (), "ema": 0.0, "caption_dropout": 0.0, **changes}
        settings = settle(tiny(**asked), backbone)
        found = gather(unequal, settings, str(tiny_base))
        return assemble(tmp_path, backbone, found.train, (), settings, Accelerator(cpu=True))

    return make


@pytest.mark.parametrize("balance", [True, False])
def test_classes_are_seen_equally_often_or_as_there_are_pictures(balance, trainer):
    course = trainer(classes=True, class_balance=balance, batch_size=5, accumulation=1).course
    labels = [picture.label for picture in course.examples.pictures]
    steps = 240  # sixty epochs of twenty pictures
    items = [course.plan.item(step, position) for step in range(steps) for position in range(5)]
    seen, each = Counter(labels[item % len(labels)] for item in items), Counter(items)
    expected = {"a": 400, "b": 400, "c": 400} if balance else {"a": 720, "b": 360, "c": 120}
    for label, count in expected.items():
        own = [each[number] for number, one in enumerate(labels) if one == label]
        assert abs(seen[label] - count) <= 0.01 * len(items), (label, seen)
        assert max(own) - min(own) <= 2  # within a class all alike


def test_every_conditioner_learns_at_its_own_rate_in_the_optimizer(trainer):
    rates = {"class_learning_rate": 3e-2, "image_prompt_learning_rate": 5e-3, "control_learning_rate": 7e-3}
    made = trainer(**EVERY, **rates, learning_rate=1e-2, warmup=0, schedule="constant", weight_decay=0.0)
    network, update = made.course.injection, made.update
    update.begin(0)
    of = {id(p): group["lr"] for group in update.optimizer.param_groups for p in group["params"]}
    told = {name: round(of[id(p)], 6) for name, p in network.parameters.items() if ":" in name}
    assert told == {
        "class:table": 3e-2, "class:projector": 1e-2, "class:null": 1e-2,
        "image:down": 5e-3, "image:up": 5e-3, "image:null": 1e-2, "control:weight": 7e-3,
    }  # fmt: skip
    assert {round(of[id(p)], 6) for name, p in network.parameters.items() if ":" not in name} == {1e-2}
    before = {name: p.detach().clone() for name, p in network.parameters.items()}
    for p in network.parameters.values():
        p.grad = torch.ones_like(p)
    update.optimizer.step()  # Adam's first step is as long as the rate
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in network.parameters.items()}
    for name, rate in told.items():
        assert moved[name] == pytest.approx(rate, rel=2e-2), name
