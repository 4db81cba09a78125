"""Sounds and clips: found, judged, cut, cached by the same code as pictures."""

import io

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from adapt.data import EncodedPictures, TensorCache, find, judge
from adapt.data.augment import Augmentation
from adapt.data.buckets import Buckets, square
from adapt.data.folders import Reading
from adapt.data.judge import verdicts_of
from adapt.data.media import reader_of
from adapt.data.media.frames import at_rate, contact_sheet
from adapt.data.media.frames import read as read_clip
from adapt.data.media.waves import resampled, spectrogram, with_channels
from adapt.errors import DataError
from adapt.medium import Medium

RATE = 8000
SOUND = Medium("sound", channels=2, side=4000, scale=8, rate=RATE)
VIDEO = Medium("video", side=16, scale=8, frames=5, frame_scale=4, fps=8)


def tone(seconds=0.5, rate=RATE, channels=2, hertz=440.0, level=0.5):
    t = np.arange(round(seconds * rate)) / rate
    return np.repeat(level * np.sin(2 * np.pi * hertz * t)[None], channels, 0).astype(np.float32)


def sound_file(wave, rate=RATE, kind="WAV"):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.T, rate, format=kind)
    return buffer.getvalue()


def clip_file(count=8, fps=8, width=32, height=24, kind="mp4", codec="mpeg4"):
    """Frames whose grey says their number."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 10**7
        for number in range(count):
            grey = np.full((height, width, 3), 20 * number + 20, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")):
                container.mux(packet)
        container.mux(stream.encode())
    return buffer.getvalue()


def judged(root, medium, **options):
    reader = reader_of(medium)
    found = find(root, Reading(noun=reader.noun, extensions=reader.extensions))
    return judge(found, medium.side, reader=reader, **options)


def kinds(judgement):
    return {f.name: f.kind for f in (*judgement.faults, *judgement.warnings) if f.name and f.kind != "no caption"}


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG"])
def test_sounds_of_every_kind_are_found_with_their_captions(tmp_path, kind):
    (tmp_path / f"a.{kind.lower()}").write_bytes(sound_file(tone(), kind=kind))
    (tmp_path / "a.txt").write_text("a tone")
    judgement = judged(tmp_path, SOUND)
    (item,) = judgement.require()
    assert item.captions == ("a tone",) and abs(item.size[0] - 4000) <= 1200 and item.size[1] == 1  # MP3 adds padding
    assert not judgement.faults


def test_every_fault_and_warning_of_a_sound(tmp_path):
    files = {
        "good": sound_file(tone()),
        "silent": sound_file(tone(level=0)),
        "rate": sound_file(tone(rate=4000), 4000),
        "mono": sound_file(tone(channels=1)),
        "many": sound_file(tone(channels=6)),
        "tiny": sound_file(tone(0.01)),
        "short": sound_file(tone(0.3, hertz=900)),
        "long": sound_file(tone(1.5, hertz=700)),
        "loud": sound_file(tone(level=3, hertz=300)),
        "noise": b"RIFF nothing",
        "empty": b"",
    }
    for name, data in files.items():
        (tmp_path / f"{name}.wav").write_bytes(data)
    judgement = judged(tmp_path, SOUND)
    assert {f.name.removesuffix(".wav"): f.kind for f in judgement.faults} == {
        "silent": "unreadable", "many": "unreadable", "tiny": "small", "noise": "unreadable", "empty": "unreadable",
    }  # fmt: skip
    told = kinds(judgement)
    wanted = {"rate": "rate", "short": "short", "long": "long", "loud": "clipped"}
    assert {name: told[f"{name}.wav"] for name in wanted} == wanted
    assert "channels" in [f.kind for f in judgement.warnings if f.name == "mono.wav"]
    assert "good.wav" not in told
    with pytest.raises(DataError, match="5 of 11 sounds cannot be used"):
        judgement.require()


def test_a_second_look_at_sounds_reads_verdicts_and_says_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.wav").write_bytes(sound_file(tone(0.3, 4000), 4000))
    verdicts = []
    for _ in range(2):
        with verdicts_of(data, reader=reader_of(SOUND)) as known:
            verdicts.append(judged(data, SOUND, verdicts=known))
        monkeypatch.setattr("adapt.data.media.sounds.Sounds.look", None)
    assert verdicts[0] == verdicts[1] and kinds(verdicts[0])


def test_resampling_keeps_what_both_rates_can_hold():
    for before, after in ((8000, 11025), (44100, 16000), (8000, 16000)):
        wave = resampled(tone(0.5, before, 1, 440), before, after)
        assert wave.shape == (1, round(0.5 * after))
        middle = slice(after // 20, -after // 20)  # the ends ring: a tone does not go on behind its mirror
        assert np.abs(wave - tone(0.5, after, 1, 440))[:, middle].max() < 0.02
    high = resampled(tone(0.5, 44100, 1, 9000), 44100, 8000)
    assert np.abs(high[:, 400:-400]).max() < 0.01, "9 kHz cannot be held at 8000 samples a second"


def test_channels_are_mixed_or_repeated():
    left = np.stack([np.ones(4), np.zeros(4)]).astype(np.float32)
    assert with_channels(left, 1).tolist() == [[0.5] * 4]
    assert with_channels(left[:1], 2).tolist() == [[1.0] * 4] * 2


class Identity:
    """An encoder that gives back what it is given."""

    def encode_media(self, x):
        self.seen = x
        return x, torch.zeros_like(x)

    def encode_text(self, captions):
        return {"tokens": torch.zeros(len(captions), 1, 2)}

    def content_key(self, component):
        return "0" * 16


def encoded(root, medium, cache, shelf, **options):
    pictures = judged(root, medium).require()
    return EncodedPictures(pictures, Identity(), [shelf], TensorCache(cache), reader=reader_of(medium), **options)


def test_a_sound_is_cut_from_its_middle_or_filled_with_silence_and_cached(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    ramp = np.repeat(np.linspace(-0.9, 0.9, 6000, dtype=np.float32)[None], 2, 0)
    (data / "a.wav").write_bytes(sound_file(ramp, kind="WAV"))
    (data / "b.wav").write_bytes(sound_file(ramp[:, :1000]))
    examples = encoded(data, SOUND, tmp_path / "cache", Buckets(((4000, 1),)))
    long, short = examples.latents(0)[0], examples.latents(1)[0]
    assert long.shape == short.shape == (2, 4000)
    assert np.abs(long.numpy() - ramp[:, 1000:5000]).max() < 1e-4
    assert np.abs(short.numpy()[:, :1000] - ramp[:, :1000]).max() < 1e-4 and not short[:, 1000:].any()
    assert examples.buckets()[0] == ((4000, 1),)
    told = examples.sizes(0)
    assert (told.original, told.crop, told.target) == ((1, 6000), (0, 1000), (1, 4000))
    again = encoded(data, SOUND, tmp_path / "cache", Buckets(((4000, 1),)))
    assert torch.equal(again.latents(0)[0], long) and not hasattr(again.encoder, "seen")
    varied = encoded(data, SOUND, tmp_path / "cache", Buckets(((4000, 1),)), augmentation=Augmentation(4, True))
    starts = {float(varied.latents(0, variant=k)[0][0, 0]) for k in range(4)}
    assert len(starts) == 4


@pytest.mark.parametrize(("kind", "codec", "ending"), [("mp4", "mpeg4", "mp4"), ("webm", "libvpx-vp9", "webm")])
def test_clips_are_read_at_the_rate_that_is_asked_for(kind, codec, ending):
    frames, times = read_clip(clip_file(kind=kind, codec=codec), "white")
    assert len(frames) == 8 and abs(times[-1] - 1.0) < 0.02
    assert at_rate(times, 8) == list(range(8)) and at_rate(times, 4) == [0, 2, 4, 6]
    assert at_rate(times, 16) == [k // 2 for k in range(16)]
    greys = [np.asarray(frame).mean() for frame in frames]
    assert np.abs(np.array(greys) - (20 * np.arange(8) + 20)).max() < 12


def test_every_fault_of_a_clip_is_told_before_anything_is_trained(tmp_path):
    whole = clip_file()
    files = {"good.mp4": whole, "short.mp4": clip_file(3), "cut.mp4": whole[: len(whole) // 3], "text.mkv": b"no clip",
             "sound.mp4": sound_file(tone())}  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    judgement = judged(tmp_path, VIDEO)
    faults = {f.name: f.message for f in judgement.faults}
    assert set(faults) == set(files) - {"good.mp4"}
    assert "too short: 3 frames" in faults["short.mp4"] and "only sound" in faults["sound.mp4"]
    assert "\n" not in "".join(faults.values())


def test_a_clip_becomes_a_row_of_frames(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.mp4").write_bytes(clip_file(9))
    frames = [Image.new("RGB", (20, 20), (40 * k, 0, 0)) for k in range(6)]
    frames[0].save(data / "b.gif", save_all=True, append_images=frames[1:], duration=125)
    examples = encoded(data, VIDEO, tmp_path / "cache", square(16), flips=True)
    x = examples.latents(0)[0]
    assert x.shape == (3, 5, 16, 16) and float(x.min()) >= -1 and float(x.max()) <= 1
    grey = (x.mean((0, 2, 3)) + 1) * 127.5  # of each frame
    assert np.abs(grey.numpy() - (20 * np.arange(2, 7) + 20)).max() < 12, "the middle of the clip"
    assert examples.latents(1)[0][0].mean((1, 2)).diff().min() > 0, "frames of a GIF come in order"
    varied = encoded(data, VIDEO, tmp_path / "cache", square(16), augmentation=Augmentation(8, True))
    assert len({round(float(varied.latents(0, variant=k)[0].mean()), 3) for k in range(8)}) > 1


def test_a_base_that_makes_one_frame_takes_pictures(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png())
    (item,) = judged(tmp_path, Medium("video", side=16, frames=1)).require()
    row = reader_of(Medium("video", side=16, frames=1)).row(item.read(), _plain_view(item.size))
    assert row.shape == (3, 1, 16, 16)


def _plain_view(size):
    from adapt.data.augment import Variant
    from adapt.data.view import View

    return View(size, (16, 16), Variant(), False)


def test_a_folder_of_the_wrong_medium_is_refused_by_name(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(DataError, match=r"holds no sounds.*\.wav"):
        judged(tmp_path, SOUND)


def test_a_spectrogram_shows_a_tone_where_it_is_and_a_sheet_shows_frames():
    low, high = (np.asarray(spectrogram(tone(1, 44100, 1, hertz))).argmax(0).mean() for hertz in (300, 5000))
    assert low > high + 30, "low tones are at the bottom"
    assert not np.asarray(spectrogram(np.zeros((1, 44100), np.float32))).any()
    frames = np.stack([np.full((4, 6, 3), 10 * k, np.uint8) for k in range(16)])
    sheet = np.asarray(contact_sheet(frames))
    assert sheet.shape == (8, 24, 3) and sheet[0, ::6, 0].tolist() == [0, 20, 40, 60]
