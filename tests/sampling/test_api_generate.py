"""`adapt.generate`: seeds, generators, and adapters that leave no trace."""

import numpy as np
import pytest
import torch

from adapt.adapter import Adapter, Facts
from adapt.api.generate import generate
from adapt.errors import AdapterError, DataError, SettingsError
from adapt.formats import LoraWeights, Pair


@pytest.fixture(scope="module")
def adapter(tiny):
    torch.manual_seed(1)
    names = [n for n, m in tiny("epsilon").denoiser.named_modules() if n.endswith(("to_q", "to_v"))]
    widths = {n: tiny("epsilon").denoiser.get_submodule(n).weight.shape for n in names}
    pairs = {n: Pair(torch.randn(2, i), torch.randn(o, 2), 2.0) for n, (o, i) in widths.items()}
    return Adapter(LoraWeights({"unet": pairs}), Facts(recommended={"steps": 2, "scale": 0.5}), "style", "0123456789")


def bytes_of(pictures):
    return [p.tobytes() for p in pictures]


def test_pictures_of_a_prompt_have_rising_seeds_and_prompts_follow_each_other(tiny):
    settings = {"steps": 2, "batch_size": 1}
    together = generate(tiny("epsilon"), prompt=["a", "b"], count=2, seed=5, **settings)
    alone = [generate(tiny("epsilon"), prompt=p, seed=s, **settings)[0] for p in "ab" for s in (5, 6)]
    assert bytes_of(together) == bytes_of(alone)
    assert len(set(bytes_of(together))) == 4


def test_a_generator_stands_in_for_a_seed(tiny):
    (seeded,) = generate(tiny("epsilon"), prompt="a", seed=9, steps=2)
    (drawn,) = generate(tiny("epsilon"), prompt="a", generator=torch.Generator().manual_seed(9), steps=2)
    assert drawn.tobytes() == seeded.tobytes()
    with pytest.raises(SettingsError, match="one generator a picture"):
        generate(tiny("epsilon"), prompt="a", count=3, generator=[torch.Generator()] * 2)


def test_an_adapter_changes_the_picture_and_leaves_the_backbone_bit_for_bit(tiny, adapter):
    backbone = tiny("epsilon")
    before = {name: x.clone() for name, x in backbone.denoiser.state_dict().items()}
    (plain,) = generate(backbone, prompt="a", steps=2)
    (adapted,) = generate(backbone, prompt="a", steps=2, adapters=[adapter, (adapter, 2.0)])
    (off,) = generate(backbone, prompt="a", steps=2, adapters=[(adapter, 0.0)])
    assert np.abs(np.asarray(plain).astype(int) - np.asarray(adapted)).max() > 1
    assert off.tobytes() == plain.tobytes()
    assert all(torch.equal(x, before[name]) for name, x in backbone.denoiser.state_dict().items())


def test_the_backbone_is_restored_when_drawing_fails(tiny, adapter):
    backbone = tiny("epsilon")
    before = {name: x.clone() for name, x in backbone.denoiser.state_dict().items()}

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(backbone, prompt="a", steps=2, adapters=[adapter], progress=stop)
    assert all(torch.equal(x, before[name]) for name, x in backbone.denoiser.state_dict().items())


def test_steps_and_scale_come_from_the_adapter_when_nothing_is_said(tiny, adapter):
    backbone, calls = tiny("epsilon"), []
    (advised,) = generate(backbone, prompt="a", adapters=[adapter], progress=lambda done, total: calls.append(total))
    (spelled,) = generate(backbone, prompt="a", adapters=[(adapter, 0.5)], steps=2)
    assert calls == [2, 2]
    assert advised.tobytes() == spelled.tobytes()


def test_an_adapter_for_another_base_is_refused(icons, adapter):
    with pytest.raises(AdapterError, match="another base"):
        generate(icons, prompt="a", adapters=[adapter])


def test_image_and_mask_may_be_paths(tiny, picture, mask, tmp_path):
    picture(16, 16).save(tmp_path / "a.png")
    mask(16, 16).save(tmp_path / "m.png")
    settings = {"prompt": "a", "steps": 3, "strength": 1.0}
    (by_path,) = generate(tiny("epsilon"), image=tmp_path / "a.png", mask=str(tmp_path / "m.png"), **settings)
    (given,) = generate(tiny("epsilon"), image=picture(16, 16), mask=mask(16, 16), **settings)
    assert by_path.tobytes() == given.tobytes()
    with pytest.raises(DataError):
        generate(tiny("epsilon"), image=tmp_path / "none.png", **settings)


@pytest.mark.parametrize("bad", [{"count": 0}, {"prompt": []}, {"batch_size": 0}, {"seed": -1}], ids=str)
def test_nothing_to_draw_is_refused(tiny, bad):
    with pytest.raises(SettingsError):
        generate(tiny("epsilon"), **{"prompt": "a", **bad})
