"""A tiny UNet to put adapters into, what it predicts, and adapters that look as if they had been trained."""

import copy

import pytest
import torch

from adapt.config.network import NetworkSettings
from adapt.lora import install

TARGETS = ("attn2.to_q", "conv_in", "proj_in", "mid_block.resnets.0.conv1", "mid_block.resnets.0.time_emb_proj")
"""Linear layers and convolutions of several sizes; few, because putting them in takes most of a test's time."""


@pytest.fixture(scope="session")
def plain(make_tiny):
    """Not to be changed."""
    return make_tiny().unet.eval().requires_grad_(False)


@pytest.fixture
def unet(plain):
    return copy.deepcopy(plain)


@pytest.fixture(scope="session")
def predict():
    """What a UNet predicts for two rows."""
    x, tokens = (torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)) for shape in ((4, 8, 8), (24, 16)))

    @torch.no_grad()
    def predict(unet):
        kind = next(unet.parameters()).dtype
        return unet(x.to(kind), torch.tensor([10, 800]), encoder_hidden_states=tokens.to(kind), return_dict=False)[0]

    return predict


@pytest.fixture(scope="session")
def put():
    """`put(unet, kind="loha", …)`: an injection of these settings."""

    def put(unet, targets=TARGETS, seed=0, **settings):
        return install(unet, NetworkSettings(**{"rank": 3, "alpha": 7.0, **settings}), targets, seed)

    return put


@pytest.fixture(scope="session")
def teach():
    """Fills every tensor as training would, near where it started; returns the injection."""

    def teach(injection, seed=5, strength=0.2):
        dice = torch.Generator().manual_seed(seed)
        values = {n: p + strength * torch.randn(p.shape, generator=dice) for n, p in injection.parameters.items()}
        injection.assign({name: value.detach() for name, value in values.items()})
        return injection

    return teach
