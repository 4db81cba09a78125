"""Max-norm: ΔW no longer than allowed, in the same direction, and untouched where it is short enough."""

import pytest
import torch

from adapt.config.network import NetworkSettings
from adapt.formats import LoHa, LoKr, Pair


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


LAYERS = {
    "lora": Pair(randn(2, 6), randn(5, 2), 3.0),
    "lora of a convolution": Pair(randn(2, 4, 3, 3), randn(5, 2, 1, 1), 3.0),
    "loha": LoHa(randn(5, 2), randn(2, 6), randn(5, 2, seed=1), randn(2, 6, seed=1), 3.0),
    "loha with cores": LoHa(
        randn(2, 5),
        randn(2, 4),
        randn(2, 5, seed=1),
        randn(2, 4, seed=1),
        3.0,
        randn(2, 2, 3, 3),
        randn(2, 2, 3, 3, seed=1),
    ),
    "lokr": LoKr(3.0, w1=randn(2, 3), w2_a=randn(4, 2), w2_b=randn(2, 5)),
    "lokr, both in two": LoKr(3.0, w1_a=randn(3, 2), w1_b=randn(2, 3), w2_a=randn(4, 2), w2_b=randn(2, 5)),
    "lokr, whole": LoKr(3.0, w1=randn(2, 3), w2=randn(4, 5), given_rank=2),
    "lokr with a core": LoKr(3.0, w1=randn(2, 3), w2_a=randn(2, 4), w2_b=randn(2, 5), t2=randn(2, 2, 3, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_norm_is_that_of_delta(name):
    layer = LAYERS[name]
    assert layer.fault() is None
    assert float(layer.norm()) == pytest.approx(float(layer.delta().norm()), rel=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_too_long_is_shortened_in_the_same_direction_by_equal_shares(name):
    layer = LAYERS[name]
    longest = float(layer.norm()) / 3
    short = layer.shortened(longest)
    assert float(short.norm()) == pytest.approx(longest, rel=1e-5)
    assert torch.allclose(short.delta(), layer.delta() / 3, atol=1e-5)
    shares = {float((a / b).mean()) for a, b in zip(short.tensors().values(), layer.tensors().values(), strict=True)}
    assert max(shares) - min(shares) < 1e-6 and layer.alpha == short.alpha


@pytest.mark.parametrize("name", LAYERS)
def test_short_enough_is_untouched_bit_for_bit(name):
    layer = LAYERS[name]
    assert layer.shortened(float(layer.norm()) * 1.01).equals(layer)


def test_lora_is_kohyas_formula():
    """networks/lora.py, apply_max_norm_regularization: both halves times √(desired / norm)."""
    layer = LAYERS["lora"]
    ratio = (torch.tensor(1.0) / layer.delta().norm()) ** 0.5
    short = layer.shortened(1.0)
    assert torch.allclose(short.up, layer.up * ratio) and torch.allclose(short.down, layer.down * ratio)


def test_nothing_stays_nothing():
    zero = Pair(randn(2, 6), torch.zeros(5, 2), 3.0)
    assert zero.shortened(0.1).equals(zero)


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_an_injection_shortens_what_is_too_long_and_nothing_else(unet, put, teach, kind):
    injection = teach(put(unet, kind=kind))
    norms = {name: float(layer.norm()) for name, layer in injection.layers().items()}
    before = {name: p.detach().clone() for name, p in injection.parameters.items()}
    longest = sorted(norms.values())[len(norms) // 2]
    injection.shorten(None)
    assert all(torch.equal(p, before[name]) for name, p in injection.parameters.items())
    injection.shorten(longest)
    after = {name: float(layer.norm()) for name, layer in injection.layers().items()}
    assert max(after.values()) <= longest * 1.0001
    assert sum(norm > longest * 1.001 for norm in norms.values()) >= len(norms) // 3
    for name, parameter in injection.parameters.items():
        owner = next(layer for layer in norms if name.startswith(f"{layer}."))
        assert torch.equal(parameter, before[name]) == (norms[owner] <= longest), name


def test_dora_has_lengths_of_its_own():
    with pytest.raises(ValueError, match="max_norm"):
        NetworkSettings(kind="dora", max_norm=1.0)
