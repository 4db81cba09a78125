"""Layers that compute peft's LoRA in fewer passes: peft's numbers, forwards and backwards, and peft's own layer for all else."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from adapt.config.network import NetworkSettings
from adapt.lora import install
from adapt.lora.injection import tuned
from adapt.lora.lean import lean


class Small(nn.Module):
    """A linear layer without bias, one with, a convolution of 3 × 3 with a stride."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8, bias=False), nn.Linear(8, 4)
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def forward(self, x):
        y = self.second(torch.tanh(self.first(x)))  # (B, L, 4)
        return self.conv(y.transpose(1, 2).reshape(len(x), 4, 3, 3)), y


TARGETS = ("first", "second", "conv")


def made(dtype=torch.float64, **changes):
    """The same module twice over: peft's own, and lean; both with weights that are at work."""
    torch.manual_seed(0)
    module = Small().to(dtype)
    module.requires_grad_(False)
    settings = NetworkSettings(**{"rank": 2, "alpha": 3.0, **changes})
    injection = install(module, settings, TARGETS, 0)
    for name, parameter in injection.parameters.items():
        torch.manual_seed(len(name))
        parameter.data = parameter.data + torch.randn_like(parameter) / 4
    return module, injection


def results(module, injection, x, context=None):
    for parameter in injection.parameters.values():
        parameter.grad = None
    x = x.clone().requires_grad_(True)
    with context or torch.autocast("cpu", enabled=False):
        a, b = module(x)
    ((a.double() ** 2).sum() + (b.double() ** 3).sum()).backward()
    return [a.detach(), b.detach(), x.grad, *(p.grad for p in injection.parameters.values())]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_numbers_are_peft_s(dtype):
    x = torch.randn(5, 9, 6, dtype=dtype)
    module, injection = made(dtype)
    expected = results(module, injection, x)
    assert lean(module) == 3
    found = results(module, injection, x)
    assert len(found) == 3 + 6 and all(g is not None and float(g.abs().max()) > 0 for g in found)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        torch.testing.assert_close(
            a, b, rtol=1e-12 if dtype == torch.float64 else 1e-4, atol=1e-5 if dtype != torch.float64 else 1e-12
        )


def test_the_gradient_is_the_derivative():
    """By differences, not by peft."""
    module, injection = made()
    lean(module)
    x = torch.randn(2, 9, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *injection.parameters.values()), atol=1e-6)


def test_under_autocast_and_beside_half_precision():
    x = torch.randn(4, 9, 6)
    module, injection = made(torch.float32)
    expected = results(module, injection, x, torch.autocast("cpu", torch.bfloat16))
    lean(module)
    found = results(module, injection, x, torch.autocast("cpu", torch.bfloat16))
    assert [a.dtype for a in found] == [b.dtype for b in expected]
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).norm() / b.norm()) < 0.02
    half, injection = made(torch.bfloat16)  # without autocast peft computes LoRA in float32, and goes on doing so
    before = results(half, injection, x.bfloat16())
    assert lean(half) == 3
    assert all(torch.equal(a, b) for a, b in zip(results(half, injection, x.bfloat16()), before, strict=True))


def test_switched_off_it_is_the_base_and_taken_out_nothing_stays():
    x = torch.randn(3, 9, 6, dtype=torch.float64)
    torch.manual_seed(0)
    expected = Small().double()(x)[0]
    module, injection = made()
    lean(module)
    assert not torch.equal(module(x)[0], expected)
    with injection.disabled():
        assert torch.equal(module(x)[0], expected)
    injection.remove()
    assert torch.equal(module(x)[0], expected) and not list(tuned(module))


def test_who_looks_at_the_base_or_asks_for_its_gradient_gets_peft_s_own_layer():
    """As the starts that come from the pictures do."""
    x, seen = torch.randn(3, 9, 6, dtype=torch.float64), []
    module, _ = made()
    lean(module)
    layers = dict(tuned(module))
    hook = layers["first"].base_layer.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    layers["second"].base_layer.weight.requires_grad_(True)
    module(x)[0].sum().backward()
    hook.remove()
    assert torch.equal(seen[0], x) and layers["second"].base_layer.weight.grad.any()


def test_the_first_layer_asks_for_no_gradient_of_its_input():
    module, injection = made()
    lean(module)
    module(torch.randn(3, 9, 6, dtype=torch.float64))[0].sum().backward()
    assert all(p.grad is not None for p in injection.parameters.values())


@pytest.mark.parametrize("changes", [{"dropout": 0.5}, {"kind": "dora"}, {"kind": "loha"}, {"kind": "lokr"}])
def test_other_kinds_stay_with_peft(changes):
    module, _ = made(torch.float32, **changes)
    assert lean(module) == 0 and not any("forward" in vars(layer) for _, layer in tuned(module))


def test_several_adapters_are_left_to_peft():
    module, _ = made(torch.float32)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=list(TARGETS), init_lora_weights=False), module, "other")
    lean(module)
    x = torch.randn(3, 9, 6)
    for _, layer in tuned(module):
        layer.set_adapter(["default", "other"] if "default" in layer.lora_A else list(layer.lora_A))
    own = module(x)[0]
    for _, layer in tuned(module):
        del layer.forward
    assert torch.equal(own, module(x)[0])
