"""Reference pictures: null at first, a function of their features alone, and files that hold no code."""

import pytest
import torch

from conditioning import ImageConditioner


def learned(seed=0):
    lot = torch.Generator().manual_seed(seed)
    found = ImageConditioner.new(12, torch.randn(3, 5, generator=lot), "features of the test", width=7, seed=1)
    with torch.no_grad():
        found.up.normal_(generator=lot)
    return found


def test_a_new_projector_makes_null_of_every_picture():
    new = ImageConditioner.new(12, torch.randn(3, 5), "f")
    told = new.encode([torch.randn(12), None])["tokens"]
    assert torch.equal(told, new.null(2)["tokens"])


def test_a_picture_is_told_alone_as_in_a_batch_and_no_picture_is_null():
    images, a, b = learned(), torch.randn(12), torch.randn(3, 4)
    told = images.encode([a, None, b])["tokens"]
    assert torch.equal(told[0], images.encode([a])["tokens"][0])
    assert torch.equal(told[1], images.empty)
    assert torch.equal(told[2], images.encode([b.flatten()])["tokens"][0])
    assert (told[0] - told[2]).abs().max() > 1e-3


def test_what_it_makes_is_the_paper_s_projection():
    images, x = learned(), torch.randn(12)
    expected = images.empty + (images.up @ torch.nn.functional.gelu(images.down @ x)).view(3, 5)
    assert torch.allclose(images.encode([x])["tokens"][0], expected, atol=1e-6)


def test_files_hold_all_of_it_and_equal_ones_are_equal_bytes(tmp_path):
    images, x = learned(), torch.randn(12)
    images.save(tmp_path / "a")
    again = ImageConditioner.load(tmp_path / "a")
    again.save(tmp_path / "b")
    assert torch.equal(again.encode([x])["tokens"], images.encode([x])["tokens"])
    assert again.encoder == "features of the test"
    assert all((tmp_path / "b" / p.name).read_bytes() == p.read_bytes() for p in (tmp_path / "a").iterdir())
    assert images.size == 7 * 12 + 15 * 7 + 15


def test_other_values_stand_in_for_its_own():
    images = learned()
    other = images.having({"null": torch.zeros(3, 5)})
    assert torch.equal(other.null(1)["tokens"], torch.zeros(1, 3, 5))
    assert torch.equal(other.up, images.up)


def test_wrong_features_and_damaged_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"\[11\] numbers; this projector takes 12"):
        learned().encode([torch.zeros(11)])
    learned().save(tmp_path / "image")
    (tmp_path / "image" / "config.json").write_text('{"kind": "ClassConditioner", "schema": 1}')
    with pytest.raises(ValueError, match="image/ holds no image projector that can be read: ClassConditioner"):
        ImageConditioner.load(tmp_path / "image")
