"""What the cache gives is what the encoder gives for one picture, one caption alone."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from adapt.data import EncodedPictures, Found, Picture, TensorCache, decode, fit, judge, pixels
from adapt.data.augment import Augmentation
from adapt.data.buckets import Buckets, crop_box
from adapt.data.media import reader_of
from adapt.data.recent import OVERHEAD
from adapt.data.view import Sizes
from adapt.errors import DataError
from adapt.medium import PICTURES

SIZE = (16, 24)
SHELF = (Buckets((SIZE,)),)


class LinearEncoder:
    """A fixed linear map of 4 x 4 patches, and characters as tokens; counts its calls."""

    def __init__(self, weights="one"):
        self.weights, self.media, self.captions = weights, [], []

    def encode_media(self, x):
        self.media.append(x.shape)
        matrix = torch.linspace(-1, 1, 4 * 48).reshape(4, 48)
        patches = torch.nn.functional.pixel_unshuffle(x, 4)  # (B, 48, h, w)
        mean = torch.einsum("ck,bkhw->bchw", matrix, patches)
        return mean.double(), mean.abs() + 0.5

    def encode_text(self, captions):
        self.captions += captions
        codes = [[ord(c) % 97 for c in caption[:8].ljust(8)] for caption in captions]
        tokens = torch.tensor(codes).float()[..., None].expand(-1, -1, 6).sin().half()
        return {"tokens": tokens, "mask": torch.tensor(codes) != 32}

    def content_key(self, component):
        return f"{component}-{self.weights}"


@pytest.fixture
def pictures(png):
    captions = (("a cat", "cat"), (), ("a cat",))
    return tuple(Picture(f"p{i}.png", None, png(i, 40, 30), c) for i, c in enumerate(captions))


def by_hand(picture, flip=False):
    x = pixels(fit(decode(picture.read()), *SIZE))
    mean, std = LinearEncoder().encode_media((x.flip(-1) if flip else x)[None])
    return mean[0].float(), std[0].float()


def equal(first, second):
    return all(a.dtype == b.dtype and a.equal(b) for a, b in zip(first, second, strict=True))


def test_values_are_those_of_the_encoder_alone(tmp_path, pictures):
    encoded = EncodedPictures(pictures, LinearEncoder(), SHELF, TensorCache(tmp_path), flips=True)
    encoded.prepare()
    for encoded_now in (encoded, EncodedPictures(pictures, LinearEncoder(), SHELF, TensorCache(tmp_path))):
        for index, picture in enumerate(pictures):
            for flip in (False, True):
                mean, std = encoded_now.latents(index, flip)
                assert equal((mean, std), by_hand(picture, flip))
                assert mean.shape == (4, 6, 4) and mean.dtype == std.dtype == torch.float32
        for caption in ("a cat", "cat", ""):
            expected = LinearEncoder().encode_text([caption])
            found = encoded_now.text(caption)
            assert found.keys() == expected.keys()
            assert equal([found[name] for name in expected], expected.values())
    assert not encoded.latents(0)[0].equal(encoded.latents(0, True)[0])


def test_everything_is_encoded_once_and_one_at_a_time(tmp_path, pictures):
    encoder, seen = LinearEncoder(), []
    encoded = EncodedPictures(pictures, encoder, SHELF, TensorCache(tmp_path), flips=True)
    encoded.prepare(lambda done, total: seen.append((done, total)))
    assert encoder.media == [(1, 3, 24, 16)] * 6 and sorted(encoder.captions) == ["", "a cat", "cat"]
    assert seen == [(i, 9) for i in range(1, 10)]
    again = LinearEncoder()
    EncodedPictures(pictures, again, SHELF, TensorCache(tmp_path), flips=True).prepare()
    assert again.media == [] and again.captions == []
    assert encoded.captions(0) == ("a cat", "cat") and encoded.captions(1) == ("",) and len(encoded) == 3


@pytest.mark.parametrize(
    "change", ["size", "background", "weights", "media_component", "picture", "text_component", "caption"]
)
def test_whatever_a_value_depends_on_is_in_its_key(tmp_path, pictures, png, change):
    cache = TensorCache(tmp_path)
    EncodedPictures(pictures, LinearEncoder(), SHELF, cache).prepare()
    encoder = LinearEncoder("two" if change == "weights" else "one")
    media = change in ("size", "background", "weights", "media_component", "picture")
    if change == "picture":
        pictures = (Picture("p0.png", None, png(9), ("cat",)), *pictures[1:])
    if change == "caption":
        pictures = (Picture("p0.png", None, pictures[0].content, ("Cat",)), *pictures[1:])
    options = {change: "other"} if change.endswith("component") else {}
    options |= {"reader": reader_of(PICTURES, "black")} if change == "background" else {}
    EncodedPictures(
        pictures, encoder, (Buckets(((24, 16),)),) if change == "size" else SHELF, cache, **options
    ).prepare()
    assert bool(encoder.media) == media
    assert bool(encoder.captions) == (change in ("weights", "text_component", "caption"))


def test_what_another_number_of_threads_has_encoded_is_not_taken(tmp_path, pictures, monkeypatch):
    """It may be rounded otherwise, and a run would depend on what ran before it."""
    EncodedPictures(pictures, LinearEncoder(), SHELF, TensorCache(tmp_path)).prepare()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 63)
    encoder = LinearEncoder()
    EncodedPictures(pictures, encoder, SHELF, TensorCache(tmp_path)).prepare()
    assert encoder.media and encoder.captions


def test_equal_pictures_are_encoded_once_whatever_their_names(tmp_path, png):
    encoder = LinearEncoder()
    same = [Picture(name, None, png(0), ()) for name in ("a", "b")]
    EncodedPictures(same, encoder, SHELF, TensorCache(tmp_path)).prepare()
    assert len(encoder.media) == 1


def test_a_damaged_entry_is_computed_again(tmp_path, pictures):
    encoder = LinearEncoder()
    EncodedPictures(pictures, encoder, SHELF, TensorCache(tmp_path)).prepare()
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 6
    for file in files:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    encoded = EncodedPictures(pictures, encoder, SHELF, TensorCache(tmp_path))
    assert equal(encoded.latents(1), by_hand(pictures[1])) and len(encoder.media) == 4
    encoded.prepare()
    assert len(encoder.media) == 6
    again = LinearEncoder()
    EncodedPictures(pictures, again, SHELF, TensorCache(tmp_path)).prepare()
    assert again.media == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_name_the_picture(tmp_path, pictures, value):
    class Broken(LinearEncoder):
        def encode_media(self, x):
            mean, std = super().encode_media(x)
            mean[0, 0, 0, 0] = value if len(self.media) == 2 else 0
            return mean, std

    with pytest.raises(DataError, match=r"The latents of p1\.png are not finite"):
        EncodedPictures(pictures, Broken(), SHELF, TensorCache(tmp_path)).prepare()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_text_states_that_are_not_finite_name_the_caption(tmp_path, pictures):
    class Broken(LinearEncoder):
        def encode_text(self, captions):
            return {"tokens": torch.full((1, 2), float("nan"))}

    with pytest.raises(DataError, match="The text states of 'a cat' are not finite"):
        EncodedPictures(pictures, Broken(), SHELF, TensorCache(tmp_path)).text("a cat")


def test_memory_is_bounded_and_values_stay_right(tmp_path, pictures):
    cache = TensorCache(tmp_path)
    EncodedPictures(pictures, LinearEncoder(), SHELF, cache).prepare()
    one = 2 * (4 * 6 * 4 * 4 + OVERHEAD)
    for memory in (0, one, 2 * one, 10**6):
        encoded = EncodedPictures(pictures, LinearEncoder(), SHELF, cache, memory=memory)
        for index in (0, 1, 2, 0, 2, 1, 0):
            assert equal(encoded.latents(index), by_hand(pictures[index]))
            assert encoded._recent._used <= memory
        held = [x for entry in encoded._recent._entries.values() for x in entry.values()]
        assert sum(x.nbytes + OVERHEAD for x in held) == encoded._recent._used == min(3, memory // one) * one


def test_values_in_memory_are_not_read_again(tmp_path, pictures, monkeypatch):
    encoded = EncodedPictures(pictures, LinearEncoder(), SHELF, TensorCache(tmp_path))
    encoded.prepare()
    monkeypatch.setattr(TensorCache, "get", lambda self, key: pytest.fail("read again"))
    assert equal(encoded.latents(0), by_hand(pictures[0]))


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path, png):
    bad = Picture("bad.png", None, png()[:200])
    with pytest.raises(DataError, match=r"A picture is cut off.*bad\.png"):
        EncodedPictures([bad], LinearEncoder(), SHELF, TensorCache(tmp_path)).prepare()


def test_a_picture_that_changes_meanwhile_is_not_stored_under_its_old_key(tmp_path, png):
    file = tmp_path / "a.png"
    file.write_bytes(png(0))
    encoded = EncodedPictures(
        [Picture("a.png", file, None)], LinearEncoder(), SHELF, TensorCache(tmp_path / "c"), memory=0
    )
    encoded.prepare()
    file.write_bytes(png(1))
    assert equal(encoded.latents(0), by_hand(Picture("", None, png(0))))
    next(
        p for p in (tmp_path / "c").rglob("*.safetensors") if encoded.cache.get(p.stem).keys() == {"mean", "std"}
    ).unlink()
    with pytest.raises(DataError, match=r"has changed since the start.*a\.png"):
        encoded.latents(0)


def test_no_gradients_are_kept(tmp_path, pictures):
    class Trained(LinearEncoder):
        def encode_media(self, x):
            scale = torch.ones(1, requires_grad=True)
            mean, std = super().encode_media(x)
            return mean * scale, std * scale

    mean, std = EncodedPictures(pictures, Trained(), SHELF, TensorCache(tmp_path)).latents(0)
    assert not mean.requires_grad and not std.requires_grad


# ---------------------------------------------------------------------------------------------------- buckets and variants
WIDE, TALL, SQUARE = (24, 16), (16, 24), (20, 20)
ASPECTS = Buckets((WIDE, TALL, SQUARE))
ALL = Augmentation(variants=4, random_crop=True, colour=0.5, seed=2)


@pytest.fixture
def shapes(png):
    """Pictures of 3 : 2, 2 : 3 and 1 : 1, the first one wide."""
    sizes = ((60, 40), (30, 50), (44, 44), (90, 30))
    return tuple(Picture(f"p{i}", None, png(i, *size), (f"picture {i}",)) for i, size in enumerate(sizes))


def test_each_picture_is_brought_to_its_bucket(tmp_path, shapes):
    encoded = EncodedPictures(shapes, LinearEncoder(), (ASPECTS,), TensorCache(tmp_path))
    assert [encoded.size(i) for i in range(4)] == [WIDE, TALL, SQUARE, WIDE]
    used, numbers = encoded.buckets()
    assert used == (TALL, WIDE, SQUARE) and numbers.tolist() == [1, 0, 2, 1]  # 384 px, 384 px, 400 px
    for index, (width, height) in enumerate((WIDE, TALL, SQUARE, WIDE)):
        mean, _ = encoded.latents(index)
        assert mean.shape == (4, height // 4, width // 4)
        x = pixels(fit(decode(shapes[index].read()), width, height))
        assert mean.equal(LinearEncoder().encode_media(x[None])[0][0].float())


def test_several_resolutions_are_further_examples_of_the_same_pictures(tmp_path, shapes):
    twice = Buckets(tuple((2 * w, 2 * h) for w, h in ASPECTS.sizes))
    encoder = LinearEncoder()
    encoded = EncodedPictures(shapes, encoder, (ASPECTS, twice), TensorCache(tmp_path))
    encoded.prepare()
    assert len(encoded) == 8 and encoded.count == 4 and len(encoder.media) == 8 and len(encoder.captions) == 5
    for index in range(4):
        assert encoded.pictures[index + 4] is encoded.pictures[index]
        assert encoded.captions(index + 4) == encoded.captions(index)
        assert encoded.size(index + 4) == tuple(2 * side for side in encoded.size(index))
        assert encoded.latents(index + 4)[0].shape[-1] == 2 * encoded.latents(index)[0].shape[-1]
    assert len(encoded.buckets()[0]) == 6
    alone = EncodedPictures(shapes, LinearEncoder(), (twice,), TensorCache(tmp_path / "other"))
    assert equal(alone.latents(1), encoded.latents(5))


def test_variants_are_encoded_beforehand_and_each_is_the_cut_that_it_says(tmp_path, shapes):
    encoder = LinearEncoder()
    encoded = EncodedPictures(shapes, encoder, (ASPECTS,), TensorCache(tmp_path), augmentation=ALL, flips=True)
    encoded.prepare()
    calls = len(encoder.media)
    assert calls == 4 * 4 * 2
    for index in range(4):
        width, height = encoded.size(index)
        for variant in range(4):
            version = ALL.variant(encoded._contents.digest(index), variant)
            for flip in (False, True):
                x = version.colour.applied(fit(decode(shapes[index].read()), width, height, version.at))
                x = pixels(x[:, ::-1] if flip else x)
                mean, _ = encoded.latents(index, flip, variant)
                assert mean.equal(LinearEncoder().encode_media(x[None])[0][0].float())
    assert len(encoder.media) == calls  # all of it was there
    again = EncodedPictures(shapes, LinearEncoder(), (ASPECTS,), TensorCache(tmp_path), augmentation=ALL)
    assert equal(again.latents(3, True, 2), encoded.latents(3, True, 2)) and again.encoder.media == []


def test_the_plain_variant_is_the_picture_as_it_always_was(tmp_path, pictures):
    """Entries that earlier versions cached are found again."""
    plain = EncodedPictures(pictures, LinearEncoder(), SHELF, TensorCache(tmp_path))
    plain.prepare()
    varied = EncodedPictures(pictures, LinearEncoder(), SHELF, TensorCache(tmp_path), augmentation=ALL)
    assert all(equal(varied.latents(i), by_hand(p)) for i, p in enumerate(pictures)) and varied.encoder.media == []


def test_variants_that_show_the_same_are_encoded_once(tmp_path, png):
    """There is nothing to cut off a picture that has its bucket's aspect."""
    picture, crops = Picture("p", None, png(0, 32, 48)), Augmentation(6, random_crop=True)
    encoded = EncodedPictures([picture], LinearEncoder(), SHELF, TensorCache(tmp_path), augmentation=crops)
    encoded.prepare()
    assert len(encoded.encoder.media) == 1


def test_pictures_whose_captions_tell_left_from_right_are_not_mirrored(tmp_path, png):
    pictures = [Picture("a", None, png(0), ("a cat looking left",)), Picture("b", None, png(1), ("a cat",))]
    encoded = EncodedPictures(pictures, LinearEncoder(), SHELF, TensorCache(tmp_path), flips=True)
    encoded.prepare()
    assert len(encoded.encoder.media) == 3
    assert equal(encoded.latents(0, True), encoded.latents(0)) and not equal(
        encoded.latents(1, True), encoded.latents(1)
    )
    assert encoded.sizes(0, True) == encoded.sizes(0)


def test_sizes_say_what_of_a_picture_is_seen(tmp_path, shapes):
    encoded = EncodedPictures(shapes, LinearEncoder(), (ASPECTS,), TensorCache(tmp_path), augmentation=ALL, flips=True)
    assert encoded.sizes(0) == Sizes((40, 60), (0, 0), (16, 24))
    assert encoded.sizes(3) == Sizes((30, 90), (0, 12), (16, 24))  # 90 x 30 becomes 48 x 16
    across = ALL.variant(encoded._contents.digest(3), 1).at[0]
    assert encoded.sizes(3, False, 1).crop == (0, round(24 * across))
    assert encoded.sizes(3, True, 1).crop == (0, round(24 * (1 - across)))


@pytest.fixture
def masked(encoded):
    """A picture whose mask is white on the left, one whose own alpha is the mask, one without."""
    half = np.zeros((40, 60), np.uint8)
    half[:, :30] = 255
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    clear = np.dstack([image, half[:, ::-1]])
    mask = Picture("m", None, encoded(Image.fromarray(half)))
    return (
        Picture("a", None, encoded(Image.fromarray(image)), ("a",), mask=mask),
        Picture("b", None, encoded(Image.fromarray(clear)), ("b",), mask="alpha"),
        Picture("c", None, encoded(Image.fromarray(image)), ("c",)),
    )


def test_masks_lie_on_what_they_belong_to(tmp_path, masked):
    """Half of each picture counts, cut and mirrored as the picture is."""
    encoded = EncodedPictures(masked, LinearEncoder(), (ASPECTS,), TensorCache(tmp_path), flips=True, outside=0.25)
    encoded.prepare()
    left = torch.tensor([1.0, 1, 1, 0.25, 0.25, 0.25]).expand(1, 4, 6)
    right = left.flip(-1)
    for index, flip, expected in ((0, False, left), (0, True, right), (1, False, right), (1, True, left)):
        weight = encoded.weight(index, flip)
        assert weight.shape == (1, 4, 6) and weight.dtype == torch.float32
        assert torch.allclose(weight, expected, atol=1e-6)
    assert encoded.weight(2) is None and encoded.weight(2, True) is None
    crops = Augmentation(3, random_crop=True)
    cut = EncodedPictures(masked, LinearEncoder(), SHELF, TensorCache(tmp_path), augmentation=crops, outside=0.0)
    for variant in range(3):
        left_edge, _, right_edge, _ = crop_box((60, 40), SIZE, crops.variant(cut._contents.digest(0), variant).at)
        seen = (30 - left_edge) / (right_edge - left_edge)
        assert float(cut.weight(0, False, variant).mean()) == pytest.approx(min(max(seen, 0), 1), abs=0.01)


def test_masks_are_cached_and_a_changed_mask_is_seen(tmp_path, masked, encoded, monkeypatch):
    cache = TensorCache(tmp_path)
    first = EncodedPictures(masked, LinearEncoder(), (ASPECTS,), cache)
    first.prepare()
    white = Picture("m", None, encoded(Image.new("L", (60, 40), 255)))
    changed = EncodedPictures([replace(masked[0], mask=white)], LinearEncoder(), (ASPECTS,), cache)
    assert bool((changed.weight(0) == 1).all())
    monkeypatch.setattr("adapt.data.seen.mask_of", lambda *_: pytest.fail("decoded again"))
    again = EncodedPictures(masked, LinearEncoder(), (ASPECTS,), cache)
    assert again.weight(0).equal(first.weight(0)) and again.encoder.media == []


def test_a_mask_that_cannot_be_read_names_its_picture(tmp_path, masked, png):
    bad = replace(masked[0], mask=Picture("m", None, png()[:100]))
    with pytest.raises(DataError, match=r"A picture has a mask that is cut off.*a: m"):
        EncodedPictures([bad], LinearEncoder(), (ASPECTS,), TensorCache(tmp_path)).prepare()


def test_what_was_found_out_when_judging_is_not_read_again(tmp_path, shapes, monkeypatch):
    judged = judge(Found(shapes, (), "sidecars"), 0).pictures
    encoded = EncodedPictures(judged, LinearEncoder(), (ASPECTS,), TensorCache(tmp_path))
    expected = EncodedPictures(shapes, LinearEncoder(), (ASPECTS,), TensorCache(tmp_path))
    expected.prepare()
    monkeypatch.setattr(Picture, "read", lambda self: pytest.fail("read again"))
    assert [encoded.size(i) for i in range(4)] == [expected.size(i) for i in range(4)]
    assert all(equal(encoded.latents(i), expected.latents(i)) for i in range(4)) and encoded.encoder.media == []


def test_a_picture_is_read_once_for_its_digest_and_once_for_its_pixels(tmp_path, shapes, monkeypatch):
    reads, read = [], Picture.read
    monkeypatch.setattr(Picture, "read", lambda self: (reads.append(self.name), read(self))[1])
    encoded = EncodedPictures(shapes, LinearEncoder(), (ASPECTS,), TensorCache(tmp_path), memory=0)
    encoded.prepare()
    for index in (0, 1, 2, 3, 0, 3):
        encoded.latents(index)
    assert sorted(reads) == [name for name in ("p0", "p1", "p2", "p3") for _ in range(2)]


def test_a_picture_costs_a_few_bytes(tmp_path, png):
    """Whatever is asked of 20 000 pictures, what stays is small; nothing of their contents is held."""
    data = png(0, 60, 40)
    pictures = [Picture(f"{i}", None, data, digest=f"{i:064x}", size=(60, 40)) for i in range(20_000)]
    tracemalloc.start()
    encoded = EncodedPictures(pictures, LinearEncoder(), (ASPECTS,), TensorCache(tmp_path), memory=0)
    encoded.buckets()
    sizes = {encoded.sizes(i) for i in range(0, len(encoded), 7)}
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(sizes) == 1 and held / len(pictures) < 100
