"""What the cache gives is what the encoder gives for one picture, one caption alone."""

import pytest
import torch

from adapt.data import EncodedPictures, Picture, TensorCache, decode, fit, pixels
from adapt.errors import DataError

SIZE = (16, 24)


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
    encoded = EncodedPictures(pictures, LinearEncoder(), SIZE, TensorCache(tmp_path), flips=True)
    encoded.prepare()
    for encoded_now in (encoded, EncodedPictures(pictures, LinearEncoder(), SIZE, TensorCache(tmp_path))):
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
    encoded = EncodedPictures(pictures, encoder, SIZE, TensorCache(tmp_path), flips=True)
    encoded.prepare(lambda done, total: seen.append((done, total)))
    assert encoder.media == [(1, 3, 24, 16)] * 6 and sorted(encoder.captions) == ["", "a cat", "cat"]
    assert seen == [(i, 9) for i in range(1, 10)]
    again = LinearEncoder()
    EncodedPictures(pictures, again, SIZE, TensorCache(tmp_path), flips=True).prepare()
    assert again.media == [] and again.captions == []
    assert encoded.captions(0) == ("a cat", "cat") and encoded.captions(1) == ("",) and len(encoded) == 3


@pytest.mark.parametrize(
    "change", ["size", "background", "weights", "media_component", "picture", "text_component", "caption"]
)
def test_whatever_a_value_depends_on_is_in_its_key(tmp_path, pictures, png, change):
    cache = TensorCache(tmp_path)
    EncodedPictures(pictures, LinearEncoder(), SIZE, cache).prepare()
    encoder = LinearEncoder("two" if change == "weights" else "one")
    media = change in ("size", "background", "weights", "media_component", "picture")
    if change == "picture":
        pictures = (Picture("p0.png", None, png(9), ("cat",)), *pictures[1:])
    if change == "caption":
        pictures = (Picture("p0.png", None, pictures[0].content, ("Cat",)), *pictures[1:])
    options = {change: "other"} if change.endswith("component") else {}
    options |= {"background": "black"} if change == "background" else {}
    EncodedPictures(pictures, encoder, (24, 16) if change == "size" else SIZE, cache, **options).prepare()
    assert bool(encoder.media) == media
    assert bool(encoder.captions) == (change in ("weights", "text_component", "caption"))


def test_equal_pictures_are_encoded_once_whatever_their_names(tmp_path, png):
    encoder = LinearEncoder()
    same = [Picture(name, None, png(0), ()) for name in ("a", "b")]
    EncodedPictures(same, encoder, SIZE, TensorCache(tmp_path)).prepare()
    assert len(encoder.media) == 1


def test_a_damaged_entry_is_computed_again(tmp_path, pictures):
    encoder = LinearEncoder()
    EncodedPictures(pictures, encoder, SIZE, TensorCache(tmp_path)).prepare()
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 6
    for file in files:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    encoded = EncodedPictures(pictures, encoder, SIZE, TensorCache(tmp_path))
    assert equal(encoded.latents(1), by_hand(pictures[1])) and len(encoder.media) == 4
    encoded.prepare()
    assert len(encoder.media) == 6
    again = LinearEncoder()
    EncodedPictures(pictures, again, SIZE, TensorCache(tmp_path)).prepare()
    assert again.media == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_name_the_picture(tmp_path, pictures, value):
    class Broken(LinearEncoder):
        def encode_media(self, x):
            mean, std = super().encode_media(x)
            mean[0, 0, 0, 0] = value if len(self.media) == 2 else 0
            return mean, std

    with pytest.raises(DataError, match=r"The latents of p1\.png are not finite"):
        EncodedPictures(pictures, Broken(), SIZE, TensorCache(tmp_path)).prepare()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_text_states_that_are_not_finite_name_the_caption(tmp_path, pictures):
    class Broken(LinearEncoder):
        def encode_text(self, captions):
            return {"tokens": torch.full((1, 2), float("nan"))}

    with pytest.raises(DataError, match="The text states of 'a cat' are not finite"):
        EncodedPictures(pictures, Broken(), SIZE, TensorCache(tmp_path)).text("a cat")


def test_memory_is_bounded_and_values_stay_right(tmp_path, pictures):
    cache = TensorCache(tmp_path)
    EncodedPictures(pictures, LinearEncoder(), SIZE, cache).prepare()
    one = 2 * 4 * 6 * 4 * 4
    for memory in (0, one, 2 * one, 10**6):
        encoded = EncodedPictures(pictures, LinearEncoder(), SIZE, cache, memory=memory)
        for index in (0, 1, 2, 0, 2, 1, 0):
            assert equal(encoded.latents(index), by_hand(pictures[index]))
            assert encoded._recent._used <= memory
        held = [x for entry in encoded._recent._entries.values() for x in entry.values()]
        assert sum(x.nbytes for x in held) == encoded._recent._used == min(3, memory // one) * one


def test_values_in_memory_are_not_read_again(tmp_path, pictures, monkeypatch):
    encoded = EncodedPictures(pictures, LinearEncoder(), SIZE, TensorCache(tmp_path))
    encoded.prepare()
    monkeypatch.setattr(TensorCache, "get", lambda self, key: pytest.fail("read again"))
    assert equal(encoded.latents(0), by_hand(pictures[0]))


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path, png):
    bad = Picture("bad.png", None, png()[:200])
    with pytest.raises(DataError, match=r"A picture is cut off.*bad\.png"):
        EncodedPictures([bad], LinearEncoder(), SIZE, TensorCache(tmp_path)).prepare()


def test_a_picture_that_changes_meanwhile_is_not_stored_under_its_old_key(tmp_path, png):
    file = tmp_path / "a.png"
    file.write_bytes(png(0))
    encoded = EncodedPictures(
        [Picture("a.png", file, None)], LinearEncoder(), SIZE, TensorCache(tmp_path / "c"), memory=0
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

    mean, std = EncodedPictures(pictures, Trained(), SIZE, TensorCache(tmp_path)).latents(0)
    assert not mean.requires_grad and not std.requires_grad
