"""What every family shares: the table, the fusing of parts, facts, slots, loading without a part."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adapt.backbones import Backbone
from adapt.backbones.registry import FAMILIES, family_of, known_pipelines
from adapt.errors import BackboneError
from adapt.types import Sizes
from conditioning import Condition


@pytest.fixture(scope="module")
def backbone(make_tiny):
    from adapt.backbones.stable_diffusion import StableDiffusion

    return StableDiffusion(make_tiny(), "tiny")


def test_every_row_of_the_table_names_its_class():
    assert FAMILIES
    for name, row in FAMILIES.items():
        assert row.load().family == name
        assert row.title and row.licence and row.pipelines


def test_the_table_needs_no_torch():
    code = "import adapt.backbones.registry, adapt.loading, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


FAMILY_WORDS = ("encoder_hidden_states", "added_cond_kwargs", "pooled_projections", "encoder_attention_mask")


def test_only_backbones_know_families_and_their_arguments():
    """A new family touches its file and the table: nothing else asks which family it is."""
    root = Path(__file__).parents[2]
    outside = [f for top in ("adapt", "conditioning") for f in (root / top).rglob("*.py") if "backbones" not in f.parts]
    assert len(outside) > 100
    for file in outside:
        text = file.read_text("utf-8")
        assert not re.search(r"backbone\.family (==|!=|in )|isinstance\(backbone, [A-Z]", text), file
        if "formats" not in file.parts:  # names of other programs' files
            assert not any(word in text for word in FAMILY_WORDS), file


def test_the_family_is_found_from_the_index():
    index = {"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}
    assert family_of(index).name == "stable-diffusion"
    assert family_of({**index, "text_encoder": ["transformers", "BertModel"]}).name == "icons"
    assert family_of({"_class_name": "SomethingElse"}) is None
    assert "StableDiffusionPipeline" in known_pipelines()


def test_tokens_of_other_parts_are_appended_to_the_text(backbone):
    condition = backbone.condition(["a cat", "rain"])
    text, width = condition.parts["text"]["tokens"], backbone.slots["text"]["tokens"][-1]
    extra = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
    both = Condition({"class": {"tokens": extra}, **condition.parts}, condition.facts)
    tokens, mask = backbone.tokens_of(both)
    assert mask is None
    assert torch.equal(tokens, torch.cat([text, extra], 1))
    masked = Condition({**condition.parts, "class": {"tokens": extra, "mask": torch.tensor([[1, 1, 0], [0, 0, 0]])}})
    tokens, mask = backbone.tokens_of(masked)
    assert mask.tolist() == [[1] * text.shape[1] + [1, 1, 0], [1] * text.shape[1] + [0, 0, 0]]


def test_a_masked_token_changes_nothing_and_an_unmasked_one_does(backbone):
    condition = backbone.condition(["a cat"])
    x = torch.randn(1, *backbone.own_latents, generator=torch.Generator().manual_seed(0))
    extra = torch.randn(1, 2, backbone.slots["text"]["tokens"][-1], generator=torch.Generator().manual_seed(1))

    def predicted(**more):
        parts = {**condition.parts, "class": {"tokens": extra, **more}} if more or more == {} else condition.parts
        with torch.no_grad():
            return backbone.predict(x, torch.tensor([500]), Condition(parts))

    with torch.no_grad():
        plain = backbone.predict(x, torch.tensor([500]), condition)
    torch.testing.assert_close(predicted(mask=torch.tensor([[0, 0]])), plain, atol=1e-5, rtol=0)
    assert (predicted() - plain).abs().max() > 1e-3


def test_slots_say_the_shapes(backbone):
    assert backbone.slots == {"text": {"tokens": (24, 16)}}


def test_null_of_another_kind(backbone):
    assert not backbone.null(2, "zeros").parts["text"]["tokens"].any()
    assert torch.equal(backbone.null(2).parts["text"]["tokens"], backbone.condition(["", ""]).parts["text"]["tokens"])


def test_sizes_of_a_whole_picture():
    assert Sizes.whole(512, 768) == Sizes((512, 768), (0, 0), (512, 768))


def test_encoders_without_a_denoiser(tiny_base):
    from adapt.backbones import Backbone

    whole, part = Backbone.load(str(tiny_base)), Backbone.load(str(tiny_base), without=["unet"])
    assert "unet" not in part.modules
    assert torch.equal(*(b.condition(["a cat"]).parts["text"]["tokens"] for b in (whole, part)))
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole.encode_media(pixels)[0], part.encode_media(pixels)[0])


@pytest.mark.parametrize("component", ["unet", "text_encoder", "vae"])
def test_a_base_that_is_not_whole_is_named(tiny_base, tmp_path, component):
    import shutil

    from adapt.backbones import Backbone

    copy = tmp_path / "base"
    shutil.copytree(tiny_base, copy)
    weights = next((copy / component).glob("*.safetensors"))
    weights.unlink()
    with pytest.raises(BackboneError, match=f"{component} has no safetensors"):
        Backbone.load(str(copy))
    weights.with_suffix(".bin").write_bytes(b"x")
    with pytest.raises(BackboneError, match="safetensors") as error:
        Backbone.load(str(copy))
    assert "never read" in str(error.value.given)
    shutil.rmtree(copy / component)
    with pytest.raises(BackboneError, match=f"{component} is missing"):
        Backbone.load(str(copy))


def test_digests_are_of_what_a_base_holds_and_not_of_where_it_lies(tiny_base, tmp_path):
    """Caches and runs that go on outlive a move."""
    moved = shutil.copytree(tiny_base, tmp_path / "moved")
    one, other = Backbone.load(str(tiny_base)), Backbone.load(str(moved))
    assert {c: one.content_key(c) for c in one.modules} == {c: other.content_key(c) for c in other.modules}
    with torch.no_grad():
        next(other.modules["vae"].parameters()).add_(1)
    assert one.content_key("vae") != other.content_key("vae")
    assert one.fingerprint() == other.fingerprint()
