"""Rank and module dropout: kohya's definitions, row by row, as functions of (seed, step, position, layer) alone."""

import copy

import pytest
import torch
from torch import nn

from adapt.config.network import NetworkSettings
from adapt.lora import Dice, ModuleDropout, RankDropout, install

ALL = {"dropout": 0.3, "rank_dropout": 0.3, "module_dropout": 0.3}


def rows(dropout, shape, positions=range(8), step=0, seed=0):
    dropout.dice = Dice(seed, step, positions)
    return dropout(torch.ones(len(positions), *shape))


# ------------------------------------------------------------------------------------------------------------- the masks
def test_rank_dropout_drops_whole_components_and_keeps_the_mean():
    x = rows(RankDropout(0.25, 0, Dice(), -1), (50, 6), range(400))  # (rows, tokens, r)
    assert torch.equal(x, x[:, :1].expand_as(x))  # the same for every token
    assert set(x.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert float((x[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 2400) ** 0.5)
    y = rows(RankDropout(0.25, 0, Dice(), 1), (6, 4, 4), range(400))  # (rows, r, height, width)
    assert torch.equal(y[:, :, 0, 0], x[:, 0]) and torch.equal(y, y[:, :, :1, :1].expand_as(y))


def test_module_dropout_drops_whole_rows_and_makes_none_stronger():
    x = rows(ModuleDropout(0.25, 0, Dice()), (5, 4), range(800))
    assert torch.equal(x, x[:, :1, :1].expand_as(x)) and set(x.unique().tolist()) == {0.0, 1.0}
    assert float((x[:, 0, 0] == 0).float().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 800) ** 0.5)


@pytest.mark.parametrize(
    "make", [lambda: RankDropout(0.5, 0, Dice(), -1), lambda: ModuleDropout(0.5, 0, Dice())], ids=["rank", "module"]
)
def test_masks_are_functions_of_the_position_and_differ_by_step_layer_and_seed(make):
    whole = rows(make(), (3, 40), range(64))
    for positions in (range(32, 64), [6, 1], [3]):
        assert torch.equal(rows(make(), (3, 40), positions), whole[list(positions)])
    other = make()
    other.layer = 1
    found = [
        whole,
        rows(make(), (3, 40), range(64), step=1),
        rows(make(), (3, 40), range(64), seed=1),
        rows(other, (3, 40), range(64)),
    ]
    assert len({tuple(x.flatten().tolist()) for x in found}) == 4
    assert make().eval()(whole) is whole


# ------------------------------------------------------------------------------------------------------------ inside a layer
def model(kind, **settings):
    """A linear layer and a convolution, each with a trained adapter of this kind, and the same without."""
    torch.manual_seed(0)
    base = nn.ModuleDict({"q": nn.Linear(6, 8), "c": nn.Conv2d(4, 8, 3, padding=1)}).requires_grad_(False)
    made = copy.deepcopy(base)
    injection = install(made, NetworkSettings(kind=kind, rank=2, alpha=3.0, **settings), ("q", "c"), 0)
    dice = torch.Generator().manual_seed(1)
    injection.assign(
        {n: (p + 0.3 * torch.randn(p.shape, generator=dice)).detach() for n, p in injection.parameters.items()}
    )
    return base, made.train(), injection


X = {"q": torch.randn(8, 5, 6, generator=torch.Generator().manual_seed(2)),
     "c": torch.randn(8, 4, 5, 5, generator=torch.Generator().manual_seed(3))}  # fmt: skip


@pytest.mark.parametrize("name", ["q", "c"])
@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_a_dropped_module_is_the_base_for_that_row_and_untouched_for_the_others(kind, name):
    base, made, injection = model(kind, module_dropout=0.5)
    injection.dice.positions = range(8)
    found, calm = made[name](X[name]), made.eval()[name](X[name])
    number = {"c": 0, "q": 1}[name]
    kept = [bool(injection.dice.kept(f"module-dropout-{number}", 0.5, k, [1])) for k in range(8)]
    assert 0 < sum(kept) < 8
    plain = base[name](X[name])
    for row, there in enumerate(kept):
        assert torch.allclose(found[row], (calm if there else plain)[row], atol=1e-6), (row, there)
    assert (calm - plain).abs().amax((1, 2)).min() > 1e-3


@pytest.mark.parametrize("name", ["q", "c"])
def test_rank_dropout_of_lora_is_kohyas_formula(name):
    """networks/lora.py: lx = down(x); lx *= mask (row, r); up(lx) * scale / (1 - p)."""
    base, made, injection = model("lora", rank_dropout=0.4)
    injection.dice.positions = range(8)
    found, layer = made[name](X[name]), made[name]
    number = {"c": 0, "q": 1}[name]
    mask = torch.stack([injection.dice.kept(f"rank-dropout-{number}", 0.4, k, [2]) for k in range(8)]).float()
    mask = mask[:, None, :] if name == "q" else mask[:, :, None, None]
    down, up = (half["default"] for half in (layer.lora_A, layer.lora_B))
    wanted = base[name](X[name]) + up(nn.Module.__call__(copy_without_hooks(down), X[name]) * mask) * 1.5 / 0.6
    assert 0 < mask.mean() < 1 and torch.allclose(found, wanted, atol=1e-6)


def copy_without_hooks(layer):
    plain = copy.deepcopy(layer)
    plain._forward_hooks.clear()
    return plain


@pytest.mark.parametrize("name", ["q", "c"])
@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_rank_dropout_of_loha_and_lokr_drops_outputs_of_delta(kind, name):
    """LyCORIS: rows of ΔW; here those of each picture."""
    base, made, injection = model(kind, rank_dropout=0.4)
    injection.dice.positions = range(8)
    found, calm = made[name](X[name]), made.eval()[name](X[name])
    number = {"c": 0, "q": 1}[name]
    mask = torch.stack([injection.dice.kept(f"rank-dropout-{number}", 0.4, k, [8]) for k in range(8)]).float() / 0.6
    mask = mask[:, None, :] if name == "q" else mask[:, :, None, None]
    plain = base[name](X[name])
    assert torch.allclose(found, plain + (calm - plain) * mask, atol=1e-6)


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_a_row_is_the_same_alone_in_halves_and_in_the_whole_batch(kind):
    _, made, injection = model(kind, **{**ALL, **({"rank_dropout": 0.0} if kind == "dora" else {})})
    for name, x in X.items():
        injection.dice.positions = range(8)
        whole = made[name](x)
        for positions in (range(4), range(4, 8), [6]):
            injection.dice.positions = positions
            assert torch.allclose(made[name](x[list(positions)]), whole[list(positions)], atol=1e-6)
        injection.dice.positions, injection.dice.step = range(8), injection.dice.step + 1
        assert not torch.allclose(made[name](x), whole, atol=1e-3)


@pytest.mark.parametrize("kind", ["loha", "lokr"])
@pytest.mark.parametrize("drawn", [0.0, 1.0])
def test_pefts_own_generator_decides_nothing(kind, drawn, monkeypatch):
    """It asks torch.rand whether the module is dropped, also when nothing is to be dropped."""
    _, made, _ = model(kind)
    calm = {name: made.eval()[name](x) for name, x in X.items()}
    monkeypatch.setattr(torch, "rand", lambda *size, **more: torch.full(size, drawn))
    made.train()
    assert all(torch.equal(made[name](x), calm[name]) for name, x in X.items())


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_dropped_rows_give_no_gradient_but_every_parameter_has_one(kind):
    """DDP waits for parameters without a gradient."""
    _, made, injection = model(kind, module_dropout=0.9)
    injection.dice.positions = dropped = [
        k for k in range(64) if not injection.dice.kept("module-dropout-1", 0.9, k, [1])
    ][:4]
    assert len(dropped) == 4
    made["q"](X["q"][:4]).square().sum().backward()
    mine = [p for name, p in injection.parameters.items() if name.startswith("q.")]
    assert all(p.grad is not None and not p.grad.any() for p in mine)
