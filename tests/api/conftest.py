"""Adapters of the tiny base that know classes, reference pictures and controls, trained by nobody."""

import pytest
import torch

from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.formats import LoraWeights, Pair
from conditioning import ClassConditioner, ControlConditioner, ImageConditioner

LABELS = ("blue-ball", "finch", "owl")


def conditioners():
    """By part; each says something."""
    some = torch.Generator().manual_seed(4)

    def random(*shape):
        return torch.randn(shape, generator=some)

    return {
        "class": ClassConditioner(LABELS, random(3, 8), random(8, 64), random(4, 16)),
        "image": ImageConditioner(random(32, 256) / 16, random(64, 32), random(4, 16), "latents 8 × 8"),
        "control": ControlConditioner(random(16, 4, 3, 3), "edges"),
    }


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return Backbone.load(str(tiny_base))


@pytest.fixture(scope="module")
def taught(backbone, tiny_base, tmp_path_factory):
    """`taught("class", "image")`: an adapter with these conditioners, saved and loaded."""

    def make(*parts, samples=()):
        torch.manual_seed(1)
        names = [n for n, _ in backbone.denoiser.named_modules() if n.endswith(("to_q", "to_v"))]
        widths = {n: backbone.denoiser.get_submodule(n).weight.shape for n in names}
        pairs = {n: Pair(torch.randn(2, i), torch.randn(o, 2), 2.0) for n, (o, i) in widths.items()}
        facts = Facts(
            base={"reference": str(tiny_base), "family": backbone.family, "fingerprint": backbone.fingerprint()},
            recommended={"scale": 1.0, "guidance_scale": 2.0, "steps": 2},
            samples=samples,
        )
        made = conditioners()
        folder = tmp_path_factory.mktemp("taught") / "my"
        Adapter(LoraWeights({"unet": pairs}), facts, conditioners={part: made[part] for part in parts}).save(folder)
        return Adapter.load(folder), folder

    return make
