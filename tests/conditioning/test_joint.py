"""Several parts at once: each part's null as often as asked, alone and together, by a draw that is the Plan's."""

import pytest
import torch

from adapt.data.plan import Plan
from conditioning import ClassConditioner, Dropout, JointConditioner, TextConditioner

RATES = {("text",): 0.1, ("class",): 0.2, ("image",): 0.05, ("text", "class"): 0.1, ("text", "class", "image"): 0.05}
DRAWS = 10_000


@pytest.fixture(scope="module")
def drawn():
    """The draws of a run of 10 000 rows."""
    plan = Plan(seed=7, size=100, batch=100)
    return torch.cat([plan.rows(step, range(100)).uniform("drop") for step in range(DRAWS // 100)])


def test_each_part_and_each_pair_is_null_as_often_as_asked(drawn):
    dropped = Dropout(RATES).dropped(drawn)
    found = {
        parts: sum(
            1 for row in zip(*(dropped[p].tolist() for p in ("text", "class", "image")), strict=True)
            if {p for p, gone in zip(("text", "class", "image"), row, strict=True) if gone} == set(parts)
        )
        for parts in (*RATES, ())
    }  # fmt: skip
    expected = {**RATES, (): 1 - sum(RATES.values())}
    for parts, p in expected.items():
        error = (p * (1 - p) / DRAWS) ** 0.5
        assert abs(found[parts] / DRAWS - p) < 3 * error, (parts, found[parts])
    for part in ("text", "class", "image"):
        p = Dropout(RATES).of(part)
        assert abs(dropped[part].double().mean() - p) < 3 * (p * (1 - p) / DRAWS) ** 0.5


def test_any_number_of_processes_draws_the_same():
    plan, dropout = Plan(seed=3, size=10, batch=8), Dropout(RATES)
    whole = dropout.dropped(plan.rows(5, range(8)).uniform("drop"))
    halves = [dropout.dropped(plan.rows(5, rows).uniform("drop")) for rows in (range(4), range(4, 8))]
    for part, rows in whole.items():
        assert torch.equal(rows, torch.cat([half[part] for half in halves]))


def test_one_part_alone_is_dropped_below_its_probability():
    u = torch.linspace(0, 0.999, 1000, dtype=torch.float64)
    assert torch.equal(Dropout({("text",): 0.25}).dropped(u)["text"], u < 0.25)


@pytest.mark.parametrize("rates", [{("a",): -0.1}, {("a",): 1.5}, {("a",): 0.6, ("b",): 0.6}])
def test_what_is_no_probability_is_refused(rates):
    with pytest.raises(ValueError, match="dropout"):
        Dropout(rates)


def joint():
    text = TextConditioner(lambda captions: {"tokens": torch.tensor([[[float(len(c))]] for c in captions])})
    classes = ClassConditioner.new(["a", "b"], torch.tensor([[9.0]]), width=3)
    with torch.no_grad():
        classes.table.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    return JointConditioner([text, classes], Dropout({("text",): 0.3, ("class",): 0.3, ("text", "class"): 0.3}))


def test_a_joint_condition_has_each_conditioners_part_and_null():
    both = joint()
    condition, null = both.encode({"text": ["xy", "z"], "class": ["a", "b"]}), both.null(2)
    for name, conditioner in both.conditioners.items():
        raw = {"text": ["xy", "z"], "class": ["a", "b"]}[name]
        assert torch.equal(condition.parts[name]["tokens"], conditioner.encode(raw)["tokens"])
        assert torch.equal(null.parts[name]["tokens"], conditioner.null(2)["tokens"])


def test_a_part_that_is_not_named_is_null():
    found = joint().encode({"class": ["a", "b"]})
    assert torch.equal(found.parts["text"]["tokens"], joint().null(2).parts["text"]["tokens"])


def test_drops_replace_rows_by_null_and_leave_the_others():
    both = joint()
    condition = both.encode({"text": ["xy"] * 4, "class": ["a"] * 4})
    found = both.drop(condition, torch.tensor([0.1, 0.4, 0.7, 0.95]))
    null = both.null(4)
    for part, gone in (("text", [1, 0, 1, 0]), ("class", [0, 1, 1, 0])):
        for row, dropped in enumerate(gone):
            expected = (null if dropped else condition).parts[part]["tokens"][row]
            assert torch.equal(found.parts[part]["tokens"][row], expected)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="no conditioner for"):
        joint().encode({"image": [1]})
    with pytest.raises(ValueError, match="rows"):
        joint().encode({"text": ["a"], "class": ["a", "b"]})
    with pytest.raises(ValueError, match="not: \\['image'\\]"):
        JointConditioner(list(joint().conditioners.values()), Dropout({("image",): 0.1}))
