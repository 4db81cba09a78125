"""The null of a caption: the encoding of nothing, or zeros, as the family was trained."""

import pytest
import torch

from conditioning import TextConditioner


def _encoder(captions):
    rows = [[float(len(caption) + 1)] * 3 for caption in captions]
    return {"tokens": torch.tensor(rows).unsqueeze(-1), "mask": torch.ones(len(rows), 3, dtype=torch.long)}


def test_empty_null_is_the_encoding_of_nothing_in_every_row():
    text = TextConditioner(_encoder)
    null, encoded = text.null(4), text.encode([""])
    for key, tensor in null.items():
        assert len(tensor) == 4
        assert all(torch.equal(row, encoded[key][0]) for row in tensor)


def test_zero_null_keeps_the_mask():
    null = TextConditioner(_encoder, "zeros").null(2)
    assert not null["tokens"].any()
    assert null["mask"].tolist() == [[1, 1, 1]] * 2
    assert null["tokens"].shape == (2, 3, 1)


def test_one_row_a_caption_in_order():
    tokens = TextConditioner(_encoder).encode(("a", "three"))["tokens"]
    assert tokens[:, 0, 0].tolist() == [2.0, 6.0]


def test_another_null_is_refused():
    with pytest.raises(ValueError, match="'empty' or 'zeros'"):
        TextConditioner(_encoder, "none")
