"""Classes: null at first, linear in their shares, the same bytes after growing, and files that hold no code."""

import json

import pytest
import torch
from safetensors.torch import load_file

from conditioning import ClassConditioner, Condition

LABELS = ("canary", "finch", "Zaunkönig")


def learned(labels=LABELS, slot="tokens", seed=0):
    """A conditioner with something in its table."""
    lot = torch.Generator().manual_seed(seed)
    empty = torch.randn((2, 5) if slot == "tokens" else (5,), generator=lot)
    start = torch.randn(len(labels), empty.numel(), generator=lot)
    found = ClassConditioner.new(labels, empty, slot=slot, width=7, spread=0.5, seed=1, start=start)
    with torch.no_grad():
        found.table.normal_(generator=lot)
    return found


@pytest.mark.parametrize("slot", ["tokens", "embedding"])
def test_a_new_class_says_what_null_says_to_the_bit(slot):
    empty = torch.randn((3, 4) if slot == "tokens" else (4,))
    new = ClassConditioner.new(LABELS, empty, slot=slot)
    part, null = new.encode(["finch", "", "canary"]), new.null(3)
    assert part.keys() == {slot}
    assert torch.equal(part[slot], null[slot])
    assert torch.equal(null[slot], empty.expand(3, *empty.shape))


def test_a_class_with_a_start_is_there_before_anything_is_learned():
    start = torch.randn(3, 8)
    new = ClassConditioner.new(LABELS, torch.randn(2, 4), start=start)
    assert torch.allclose(new.encode(LABELS)["tokens"] - new.empty, start.view(3, 2, 4), atol=1e-6)
    grown = new.grown(["owl"], torch.ones(1, 8))
    assert torch.allclose(grown.encode(["owl"])["tokens"][0] - new.empty, torch.ones(2, 4), atol=1e-6)
    with pytest.raises(ValueError, match="starts of 3 classes"):
        ClassConditioner.new(LABELS, torch.randn(2, 4), start=start[:2])


def test_a_learned_class_moves_and_no_class_stays_null():
    classes = learned()
    part = classes.encode(["finch", ""])["tokens"]
    assert torch.equal(part[1], classes.empty)
    assert (part[0] - part[1]).abs().min() > 0


def test_a_mixture_is_linear_in_its_shares():
    classes = learned()
    a, b, null, mixed = classes.encode(["finch", "canary", "", {"finch": 0.7, "canary": 0.3}])["tokens"]
    assert torch.allclose(mixed - null, 0.7 * (a - null) + 0.3 * (b - null), atol=1e-6)
    assert torch.equal(classes.encode([{"finch": 1.0}])["tokens"], classes.encode(["finch"])["tokens"])


def test_rows_are_independent_of_their_batch():
    classes = learned()
    alone = [classes.encode([label])["tokens"] for label in LABELS]
    assert torch.allclose(classes.encode(LABELS)["tokens"], torch.cat(alone), atol=1e-6)


def test_spread_of_a_standard_normal_embedding():
    wide = ClassConditioner.new(["a"], torch.zeros(50, 60), spread=0.3)
    with torch.no_grad():
        wide.table.normal_(generator=torch.Generator().manual_seed(0))
    assert wide.encode(["a"])["tokens"].std().item() == pytest.approx(0.3, rel=0.15)


def test_growing_keeps_the_old_classes_to_the_bit_whatever_the_new_ones_learn():
    old = learned()
    before = old.encode(LABELS)["tokens"]
    grown = old.grown(["robin", "owl"])
    assert grown.labels == (*LABELS, "robin", "owl")
    assert {name: len(p) for name, p in grown.learned.items()} == {"table": 2, "start": 2}
    with torch.no_grad():
        grown.table.normal_()
        grown.own.normal_()
    assert torch.equal(grown.encode(LABELS)["tokens"], before)
    assert torch.equal(grown.null(1)["tokens"], old.null(1)["tokens"])


def change(number=0, layer="mid.to_q", value=1.0):
    return {f"{number}.{layer}.down": torch.full((2, 6), value), f"{number}.{layer}.up": torch.full((4, 2), value)}


def test_layers_of_a_class_s_own_are_told_for_its_rows_alone():
    old = learned()
    assert old.encode(["finch"]).keys() == old.null(1).keys() == {"tokens"}
    grown = old.grown(["robin", "owl"], own=change(1))
    told = grown.encode(["owl", "robin", "finch", {"owl": 0.25, "finch": 0.75}, ""])["own"]
    assert torch.equal(told[:, 4], torch.tensor([1.0, 0.0, 0.0, 0.25, 0.0]))
    assert not told[:, :4].any()
    assert not grown.null(2)["own"].any()
    assert {name for name in grown.learned if name.startswith("own.")} == {"own.4.mid.to_q.down", "own.4.mid.to_q.up"}


def test_a_class_s_own_layers_stay_where_it_is_not_said():
    grown = learned().grown(["owl"], own=change())
    told = grown.encode(["owl", "finch", {"owl": 0.5}, ""])
    away = grown.beside(told)
    assert torch.equal(away["own"], told["own"])
    assert torch.equal(away["tokens"], grown.null(4)["tokens"])
    assert learned().beside(learned().encode(["finch"])).keys() == {"tokens"}


def test_layers_of_a_class_s_own_go_where_it_goes(tmp_path):
    grown = learned().grown(["robin"], own=change(value=2.0)).grown(["owl"], own=change(layer="conv", value=3.0))
    assert [name for name in grown.learned if name.startswith("own.")] == ["own.4.conv.down", "own.4.conv.up"]
    moved = grown.without(["finch"]).renamed({"owl": "eagle"})
    moved.save(tmp_path)
    again = ClassConditioner.load(tmp_path)
    assert {layer: [(c.number, float(c.up[0, 0])) for c in found] for layer, found in again.own_layers.by_layer().items()} == {
        "conv": [(3, 3.0)], "mid.to_q": [(2, 2.0)],
    }  # fmt: skip
    both = learned().merged(grown)
    assert {name: x.mean().item() for name, x in both.own_layers.tensors.items()} == {
        "3.mid.to_q.down": 2.0, "3.mid.to_q.up": 2.0, "4.conv.down": 3.0, "4.conv.up": 3.0,
    }  # fmt: skip
    other = grown.having({"own.4.conv.up": torch.zeros(4, 2)})
    assert grown.clashes(other) == ["owl"]


def test_a_reader_of_files_without_such_layers_does_not_leave_them_out_in_silence(tmp_path):
    for name, own, schema in (("a", {}, 1), ("b", change(), 2)):
        learned().grown(["owl"], own=own).save(tmp_path / name)
        assert json.loads((tmp_path / name / "config.json").read_text())["schema"] == schema


@pytest.mark.parametrize(
    "own",
    [
        {"0.to_q.down": torch.ones(2, 6)},
        {"0.to_q.down": torch.ones(2, 6), "0.to_q.up": torch.ones(4, 3)},
        {"1.to_q.down": torch.ones(2, 6), "1.to_q.up": torch.ones(4, 2)},
        {"owl.to_q.down": torch.ones(2, 6), "owl.to_q.up": torch.ones(4, 2)},
        {"0.down": torch.ones(2, 6), "0.up": torch.ones(4, 2)},
    ],
)
def test_changes_that_do_not_fit_are_refused(own):
    with pytest.raises(ValueError, match="no change that one of 1 classes makes"):
        learned().grown(["owl"], own=own)


def test_removing_and_renaming_leave_the_others_what_they_were():
    old = learned()
    a, b = old.without(["finch"]), old.renamed({"finch": "Fink"})
    assert a.labels == ("canary", "Zaunkönig")
    assert torch.equal(a.encode(["Zaunkönig"])["tokens"], old.encode(["Zaunkönig"])["tokens"])
    assert torch.equal(b.encode(["Fink"])["tokens"], old.encode(["finch"])["tokens"])


def test_two_that_grew_from_the_same_merge_and_clashes_are_named():
    old = learned()
    one, two = old.grown(["robin"]), old.grown(["owl"])
    with torch.no_grad():
        one.table.fill_(1.0)
        two.table.fill_(2.0)
    both = one.merged(two)
    assert both.labels == (*LABELS, "robin", "owl")
    for part in (one, two):
        assert torch.equal(both.encode(part.labels)["tokens"], part.encode(part.labels)["tokens"])
    with pytest.raises(ValueError, match="robin"):
        one.merged(two.renamed({"owl": "robin"}))
    with pytest.raises(ValueError, match="did not grow"):
        one.merged(learned(seed=5))


@pytest.mark.parametrize("slot", ["tokens", "embedding"])
def test_files_hold_all_of_it_and_equal_ones_are_equal_bytes(slot, tmp_path):
    classes = learned(slot=slot).grown(["robin"])
    classes.save(tmp_path / "a")
    again = ClassConditioner.load(tmp_path / "a")
    again.save(tmp_path / "b")
    assert again.labels == classes.labels
    assert torch.equal(again.encode(again.labels)[slot], classes.encode(classes.labels)[slot])
    assert all((tmp_path / "b" / p.name).read_bytes() == p.read_bytes() for p in (tmp_path / "a").iterdir())
    assert {name: len(t) for name, t in load_file(tmp_path / "a" / "model.safetensors").items()} == {
        "table": 4, "projector": 7, "null": 2 if slot == "tokens" else 5, "start": 4,
    }  # fmt: skip
    assert classes.size == sum(t.numel() for t in load_file(tmp_path / "a" / "model.safetensors").values())


def broken(change):
    def damage(folder):
        told = json.loads((folder / "config.json").read_text())
        change(told)
        (folder / "config.json").write_text(json.dumps(told))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        broken(lambda told: told.update(kind="os.system")),
        broken(lambda told: told.update(schema=2)),
        broken(lambda told: told.update(slot="anything")),
        broken(lambda told: told["labels"].pop()),
        broken(lambda told: told.update(labels=["a", "a", "b"])),
        broken(lambda told: told.update(labels=["a", "", "b"])),
        broken(lambda told: told.pop("labels")),
        lambda folder: (folder / "config.json").write_text("[" * 100_000),
        lambda folder: (folder / "model.safetensors").write_bytes(b"PK\x03\x04"),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
)
def test_a_damaged_folder_is_one_error(damage, tmp_path):
    learned().save(tmp_path / "class")
    damage(tmp_path / "class")
    with pytest.raises(ValueError, match="class/ holds no classes that can be read"):
        ClassConditioner.load(tmp_path / "class")


@pytest.mark.parametrize("labels", [[], ["a", "a"], ["a", ""]])
def test_labels_are_names_each_once(labels):
    with pytest.raises(ValueError, match=r"label|name"):
        ClassConditioner.new(labels, torch.zeros(1, 2))


def test_an_unknown_class_names_the_known_ones():
    with pytest.raises(ValueError, match="'fnich'; known: canary, finch, Zaunkönig"):
        learned().encode(["fnich"])


def test_gradients_reach_what_is_learned():
    classes = learned().grown(["robin"])
    for parameter in classes.learned.values():
        parameter.requires_grad_(True)
    condition = Condition({"class": classes.encode(["robin", "finch"])})
    condition.parts["class"]["tokens"].sum().backward()
    for rows in (classes.table.grad, classes.own.grad):
        assert rows is not None
        assert rows.abs().min() > 0
    assert classes.projector.grad is None
