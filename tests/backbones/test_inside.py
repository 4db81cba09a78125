"""What a middle block says: finite features of every family, which depend on the picture."""

import pytest
import torch
from tiny_families import CASES, family_of

from adapt.backbones.inside import inside
from adapt.backbones.registry import FAMILIES


@pytest.mark.parametrize("name", [name for name in CASES if FAMILIES[family_of(name)].medium == "picture"])
def test_features_are_one_row_a_picture_and_the_network_is_left_alone(backbones, name):
    backbone = backbones(name)
    random = torch.Generator().manual_seed(1)
    x = torch.randn(2, *backbone.own_latents, generator=random)
    t = backbone.objective().times(torch.tensor([0.3, 0.3], dtype=torch.float64), x.shape[2:])
    found = inside(backbone, x, t, backbone.null(2))
    assert found.ndim == 2 and len(found) == 2 and bool(torch.isfinite(found).all())
    assert not torch.allclose(found[0], found[1])
    assert torch.equal(inside(backbone, x, t, backbone.null(2)), found)
    assert not any(module._forward_hooks for module in backbone.denoiser.modules())
