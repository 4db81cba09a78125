"""Parts are dropped row by row, facts never; rows of different lengths are padded together with their masks."""

import pytest
import torch

from conditioning import Condition


def _condition(rows=3, length=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parts = {
        "text": {
            "tokens": torch.randn(rows, length, 5, generator=generator),
            "mask": torch.ones(rows, length, dtype=torch.long),
            "pooled": torch.randn(rows, 6, generator=generator),
        },
        "image": {"tokens": torch.randn(rows, 2, 5, generator=generator)},
    }
    return Condition(parts, {"time_ids": torch.randn(rows, 6, generator=generator)})


def _same(a, b):
    assert {name: set(part) for name, part in a.items()} == {name: set(part) for name, part in b.items()}
    for name, part in a.items():
        for key, tensor in part.items():
            assert torch.equal(tensor, b[name][key]), (name, key)


def test_everything_dropped_is_the_null_and_nothing_dropped_is_the_condition():
    condition, null = _condition(), _condition(seed=1)
    for dropped, expected in ((torch.ones(3), null), (torch.zeros(3), condition)):
        result = condition.drop(dict.fromkeys(condition.parts, dropped.bool()), null)
        _same(result.parts, expected.parts)
        assert torch.equal(result.facts["time_ids"], condition.facts["time_ids"])


def test_each_row_and_each_part_is_dropped_alone():
    condition, null = _condition(), _condition(rows=1, seed=1).expand(3)
    result = condition.drop({"text": torch.tensor([False, True, False])}, null)
    for row, source in enumerate((condition, null, condition)):
        for key, tensor in result.parts["text"].items():
            assert torch.equal(tensor[row], source.parts["text"][key][row]), (row, key)
    _same({"image": result.parts["image"]}, {"image": condition.parts["image"]})


def test_a_null_of_another_length_is_padded_and_masked():
    condition, null = _condition(length=4), _condition(length=2, seed=1)
    result = condition.drop({"text": torch.tensor([True, False, False])}, null)
    tokens, mask = result.parts["text"]["tokens"], result.parts["text"]["mask"]
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert torch.equal(tokens[0, :2], null.parts["text"]["tokens"][0])
    assert not tokens[0, 2:].any()
    longer = null.drop({"text": torch.tensor([True, False, False])}, condition)
    assert longer.parts["text"]["mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_rows_of_different_lengths_are_joined_in_order_with_their_masks():
    short, long = _condition(2, 3), _condition(1, 5, seed=1)
    joined = Condition.cat([short, long])
    assert len(joined) == 3
    assert joined.parts["text"]["mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert torch.equal(joined.parts["text"]["tokens"][:2, :3], short.parts["text"]["tokens"])
    assert not joined.parts["text"]["tokens"][:2, 3:].any()
    assert torch.equal(joined.parts["text"]["pooled"][2:], long.parts["text"]["pooled"])
    assert torch.equal(joined.facts["time_ids"], torch.cat([short.facts["time_ids"], long.facts["time_ids"]]))
    _same(joined.rows(slice(2, 3)).parts, long.parts)


def test_padding_without_a_mask_would_be_read_as_words():
    short, long = (Condition({"text": {"tokens": torch.ones(1, length, 2)}}) for length in (2, 3))
    with pytest.raises(ValueError, match="mask"):
        Condition.cat([short, long])


def test_conditions_with_other_parts_do_not_join():
    full, bare = _condition(), Condition({"text": _condition().parts["text"]})
    for pair in ([full, bare], [bare, full]):
        with pytest.raises(ValueError, match="same parts"):
            Condition.cat(pair)


def test_rows_must_agree():
    with pytest.raises(ValueError, match="one row a sample"):
        Condition({"text": {"tokens": torch.ones(2, 3, 4), "pooled": torch.ones(3, 4)}})


def test_a_cast_changes_floats_only():
    cast = _condition().to("cpu", torch.float64)
    assert cast.parts["text"]["tokens"].dtype == cast.facts["time_ids"].dtype == torch.float64
    assert cast.parts["text"]["mask"].dtype == torch.long
