"""A picture is the same alone and among others, and guidance costs what it must."""

import numpy as np
import pytest
import torch

from adapt.backbones import Backbone
from adapt.sampling.draw import batches, draw, draw_batches, draw_each, draw_latents
from adapt.sampling.noise import Noise, generator_of
from adapt.sampling.request import Request, settle

PROMPTS = ["a cat", "a red apple", "a house with a chimney", "tree"]


def drawings(backbone, **settings):
    return [settle(Request(prompt=p, seed=s, **settings), backbone) for p, s in zip(PROMPTS, (7, 8, 1, 7), strict=True)]


def test_noise_is_bit_equal_alone_and_in_a_batch():
    seeds, shape = [3, 7, 11, 7], (8, 8, 8)
    together = Noise([generator_of(s) for s in seeds], torch.device("cpu"), torch.float32)
    alone = [Noise([generator_of(s)], torch.device("cpu"), torch.float32) for s in seeds]
    for _ in range(3):
        batch = together(shape)
        assert torch.equal(batch, torch.cat([noise(shape) for noise in alone]))
        assert torch.equal(batch[1], batch[3])


@pytest.mark.parametrize("settings", [{}, {"scheduler": "euler_a"}, {"scheduler": "dpm++2m_sde"}, {"image": True}])
def test_batch_1_and_batch_4_draw_the_same_latents(icons, picture, settings):
    settings = {**settings, "image": picture(64, 64)} if "image" in settings else settings
    rows = drawings(icons, steps=3, **settings)
    generators = [generator_of(d.seed) for d in rows]
    together = draw_latents(icons, rows, generators)
    alone = torch.cat([draw_latents(icons, [d], [generator_of(d.seed)]) for d in rows])
    assert (together - alone).abs().max() <= 1e-4


def test_batch_1_and_batch_4_draw_the_same_8_bit_pictures(icons):
    rows = drawings(icons, steps=3)
    for a, b in zip(draw(icons, rows, batch_size=1), draw(icons, rows, batch_size=4), strict=True):
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1


def test_drawings_of_different_kinds_come_back_in_order(tiny):
    backbone = tiny("epsilon")
    asked = [
        settle(Request(prompt="a", steps=2, width=w, height=16, negative_prompt=n), backbone)
        for w, n in ((16, ""), (32, ""), (16, "bad"), (24, ""))
    ]
    assert [p.size for p in draw(backbone, asked, batch_size=2)] == [(16, 16), (32, 16), (16, 16), (24, 16)]


def test_the_same_drawing_twice_gives_the_same_bytes(icons):
    (row, *_) = drawings(icons, steps=2)
    first, second = draw(icons, [row]), draw(icons, [row])
    assert first[0].tobytes() == second[0].tobytes()


def test_negative_prompts_belong_to_their_row(tiny):
    backbone = tiny("epsilon")
    rows = [
        settle(Request(prompt="a", steps=2, negative_prompt=n, guidance_scale=20), backbone) for n in ("", "very ugly")
    ]
    together = draw_latents(backbone, rows, [generator_of(0), generator_of(0)])
    alone = torch.cat([draw_latents(backbone, [row], [generator_of(0)]) for row in rows])
    assert (together - alone).abs().max() <= 1e-4
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_texts_that_are_encoded_beforehand_draw_the_same_bytes_without_an_encoder(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    more = {"compose": (("snow", 0.5), ("rain", -0.5)), "guidance_scale": 4.0}
    own = [{}, {"negative_prompt": "ugly"}, {}, more, {"width": 32}]
    asked = [settle(Request(prompt=f"a {n}", steps=2, seed=n, **told), backbone) for n, told in enumerate(own)]
    expected = [picture.tobytes() for picture in draw(backbone, asked, batch_size=2)]
    known = batches(backbone, asked, 2, speak=True)
    backbone.modules["text_encoder"].to("meta")
    drawn = dict(draw_batches(backbone, known))
    assert [drawn[place].tobytes() for place in range(5)] == expected and len(known) == 4


@pytest.mark.parametrize(("guidance_scale", "rows_a_step"), [(1.0, 1), (2.0, 2)])
def test_guidance_1_runs_one_forward_a_step(tiny, monkeypatch, guidance_scale, rows_a_step):
    backbone, seen = tiny("epsilon"), []
    predict = backbone.predict
    monkeypatch.setattr(
        backbone, "predict", lambda x_t, t, c: (seen.append((len(x_t), tuple(t.shape))), predict(x_t, t, c))[1]
    )
    draw(backbone, [settle(Request(prompt="a", steps=3, guidance_scale=guidance_scale), backbone)])
    assert seen == [(rows_a_step, (rows_a_step,))] * 3


def test_progress_rises_to_the_total_and_pictures_come_as_they_are_done(tiny):
    backbone, calls = tiny("epsilon"), []
    asked = [settle(Request(prompt="a", steps=3, seed=s), backbone) for s in range(3)]
    stream = draw_each(backbone, asked, batch_size=2, progress=lambda done, total: calls.append((done, total)))
    assert next(stream)[0] == 0
    assert calls == [(2, 9), (4, 9), (6, 9)]
    assert [place for place, _ in stream] == [1, 2]
    assert calls[3:] == [(7, 9), (8, 9), (9, 9)]


def test_outside_the_mask_the_original_latents_are_kept_exactly(tiny, picture, mask):
    backbone = tiny("epsilon")
    settings = {"prompt": "a", "image": picture(16, 16), "mask": mask(16, 16), "steps": 4, "strength": 1.0}
    latents = draw_latents(backbone, [settle(Request(**settings), backbone)], [generator_of(3)])
    noise = Noise([generator_of(3)], torch.device("cpu"), torch.float32)
    from adapt.sampling.pixels import to_pixels

    mean, std = backbone.encode_media(to_pixels(settings["image"], 16, 16))
    original = mean + std * noise(mean.shape[1:])
    assert torch.equal(latents[..., :4], original[..., :4])
    assert not torch.allclose(latents[..., 4:], original[..., 4:], atol=1e-2)
