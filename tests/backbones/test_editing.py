"""What else editing bases keep: nulls, pictures of other sizes, words beside pictures, a base that also draws without."""

import pytest
import torch
from tiny_families import CASES, sources

from adapt.data.plan import normal
from adapt.errors import SettingsError
from adapt.sampling import parts
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.pixels import to_pixels
from adapt.sampling.request import Request, settle

EDITING = [name for name, case in CASES.items() if case.edits]
READING = [name for name in EDITING if name.startswith("qwen")]


def test_the_collector_finds_them():
    assert len(EDITING) == 5 and len(READING) == 2


@pytest.fixture
def backbone(backbones, name):
    return backbones(name)


def told(backbone, name):
    """x_t, t, condition of one row."""
    x = normal(0, "x", 0, 0, (1, *backbone.own_latents))
    return x, backbone.objective().times(torch.tensor([0.5])), backbone.condition(CASES[name].prompts[:1])


@pytest.mark.parametrize("name", EDITING)
@torch.no_grad()
def test_the_null_of_a_source_is_none_at_all_where_rows_can_go_without(backbone, name):
    x, t, condition = told(backbone, name)
    blank = backbone.predict(x, t, condition.replaced({"source": backbone.blank_source(1, *x.shape[2:])}))
    same = torch.equal(blank, backbone.predict(x, t, condition))
    assert same == backbone.drops_source == (backbone.image_guidance_scale is not None)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in EDITING if not name.startswith("instruct")])
def test_a_source_of_tokens_may_have_another_size(backbone, name):
    x, t, condition = told(backbone, name)
    source = normal(0, "source", 0, 0, (1, x.shape[1], 2 * x.shape[2], x.shape[3]))
    assert backbone.predict(x, t, condition.replaced({"source": {"latents": source}})).shape == x.shape


def test_kontext_draws_from_words_alone_as_its_pipeline(backbones):
    backbone, case = backbones("flux-kontext"), CASES["flux-kontext"]
    pipeline, kept = backbone.pipeline, backbone.pipeline.scheduler
    pipeline.scheduler = type(kept).from_config(kept.config)
    side = {"height": case.side, "width": case.side}
    try:
        packed = pipeline(prompt="a", num_inference_steps=2, guidance_scale=3.5, generator=generator_of(7), max_area=case.side**2,
                          output_type="latent", max_sequence_length=24, **side).images  # fmt: skip
    finally:
        pipeline.scheduler = kept
    drawing = settle(Request(prompt="a", steps=2, **side), backbone)
    found = draw_latents(backbone, [drawing], [generator_of(7)])
    expected = pipeline._unpack_latents(packed, case.side, case.side, pipeline.vae_scale_factor)
    assert (found - expected).abs().max() <= 1e-4


# ---------------------------------------------------------------------------------------------- words beside pictures
@pytest.mark.parametrize("name", READING)
def test_a_caption_is_read_beside_its_own_picture(backbone, name):
    first, second = (to_pixels(picture, 32, 32) for picture in sources())
    both = backbone.encode_words(["a", "b"], torch.cat([first, second]))
    for row, pixels in enumerate((first, second)):
        alone = backbone.encode_words([("a", "b")[row]], pixels)
        torch.testing.assert_close(both["tokens"][row, both["mask"][row].bool()], alone["tokens"][0])
    other = backbone.encode_words(["a"], second)
    assert (other["tokens"][0] - both["tokens"][0, : other["tokens"].shape[1]]).abs().max() > 1e-5


@pytest.mark.parametrize("name", READING)
def test_the_same_words_beside_the_same_picture_are_read_once(backbone, name, monkeypatch):
    asked, read = [], backbone.encode_words
    monkeypatch.setattr(backbone, "encode_words", lambda texts, pixels: asked.append(texts) or read(texts, pixels))
    first, second = sources()
    requests = [
        Request(prompt=p, image=image) for p, image in (("a", first), ("a", first), ("a", second), ("b", first))
    ]
    drawings = [settle(request, backbone) for request in requests]
    found = parts.spoken(backbone, drawings, [d.prompt for d in drawings])
    assert asked == [["a"], ["a"], ["b"]] and len(found) == 4
    assert torch.equal(found.parts["text"]["tokens"][0], found.parts["text"]["tokens"][1])


@pytest.mark.parametrize("name", READING)
def test_captions_are_cached_with_the_view_of_their_source(backbone, name, pairs, tmp_path):
    from adapt.api.assemble import before_of
    from adapt.data import EncodedPictures, TensorCache, find, judge
    from adapt.data.buckets import Buckets

    pictures = judge(find(pairs), 32).require()[:2]
    examples = EncodedPictures(
        pictures, backbone, [Buckets(((32, 32),))], TensorCache(tmp_path), flips=True, before=before_of(backbone)
    )
    jobs = sum(1 for _ in examples._jobs())
    assert jobs == 2 * 2 * 4  # two pictures, mirrored and not: latents, source, caption, nothing
    found = [examples.words("", *view)["tokens"] for view in ((0, False), (0, True), (1, False))]
    assert not any(torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_captions_beside_pictures_are_of_their_pipeline_alone(backbones, pairs, tmp_path):
    """Edit and Edit Plus have one text encoder, and show it a picture in other words."""
    from adapt.api.assemble import before_of
    from adapt.data import EncodedPictures, TensorCache, find, judge
    from adapt.data.buckets import Buckets

    pictures, shelf = judge(find(pairs), 32).require()[:1], [Buckets(((32, 32),))]
    first, second = (backbones(name) for name in READING)
    assert first.content_key("text_encoder") == second.content_key("text_encoder")
    cache, own = TensorCache(tmp_path), TensorCache(tmp_path / "own")

    def words(backbone, cache):
        return EncodedPictures(pictures, backbone, shelf, cache, before=before_of(backbone)).words("a", 0)["tokens"]

    words(first, cache)
    assert torch.equal(words(second, cache), words(second, own))


def test_sources_of_cosxl_edit_are_cached_by_themselves(backbones, pairs, tmp_path, monkeypatch):
    """It is given latents with the autoencoder's scale, by a pipeline of the same name."""
    from adapt.api.assemble import before_of
    from adapt.data import EncodedPictures, TensorCache, find, judge
    from adapt.data.buckets import Buckets

    backbone = backbones("instruct-pix2pix")
    pictures, cache = judge(find(pairs), 32).require()[:1], TensorCache(tmp_path)

    def source():
        return EncodedPictures(pictures, backbone, [Buckets(((32, 32),))], cache, before=before_of(backbone)).source(0)

    plain = source()["latents"]
    monkeypatch.setattr(backbone.pipeline, "is_cosxl_edit", True, raising=False)
    torch.testing.assert_close(source()["latents"], plain * backbone.pipeline.vae.config.scaling_factor)


def test_a_text_encoder_that_sees_pictures_is_not_trained(backbones):
    from adapt.api.pairs import settled_sources
    from adapt.config import TrainSettings

    backbone = backbones("qwen-image-edit")
    with pytest.raises(SettingsError, match="sees pictures too"):
        settled_sources(TrainSettings(train_text_encoder=True), backbone)
    with pytest.raises(SettingsError, match="no edit without a picture"):
        settled_sources(TrainSettings(source_dropout=0.1), backbone)
    assert settled_sources(TrainSettings(), backbone) == {}


# ---------------------------------------------------------------------------------------------- shapes
@pytest.mark.parametrize("name", EDITING)
def test_a_source_keeps_its_shape_where_it_may(backbone, name):
    side, wide = CASES[name].side, sources()[0].resize((128, 32))
    common = {"prompt": "a", "steps": 1}
    own, square = (
        settle(Request(image=wide, **common, **more), backbone) for more in ({}, {"height": side, "width": side})
    )
    assert (
        parts.sources(backbone, [own])["source"]["latents"].shape[-2:]
        == backbone.latent_shape(own.height, own.width)[1:]
    )
    high, across = parts.sources(backbone, [square])["source"]["latents"].shape[-2:]
    assert across == (4 * high if backbone.source_of_any_size else high)
    assert square.kind != settle(Request(image=sources()[0], height=side, width=side, **common), backbone).kind
    latents = draw_latents(backbone, [square], [generator_of(1)])
    assert latents.shape[-2:] == backbone.latent_shape(side, side)[1:] and bool(latents.isfinite().all())
