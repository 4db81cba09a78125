"""Text encoders and new words of the families that have several: a whole run, proved by diffusers' own loaders."""

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from tiny_families import built

import adapt

SHORT = {"steps": 2, "batch_size": 2, "rank": 2, "warmup": 0, "learning_rate": 1e-2, "validation": 0.25, "ema": 0.0,
         "validate_every": 1, "validation_times": 2, "previews": ("a",), "sampling_steps": 1, "guidance_scale": 1.0,
         "targets": ("to_q",), "train_text_encoder": True}  # fmt: skip
WORD = {"new_tokens": {"<me>": "a"}, "trigger": "<me>", "new_token_vectors": 2}
KEYS = {"stable-diffusion-xl": {"clip_l", "clip_g"}, "flux": {"<me>"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("family", "encoders"),
    [
        ("stable-diffusion-xl", ("text_encoder", "text_encoder_2")),
        pytest.param("stable-diffusion-3", ("text_encoder", "text_encoder_2"), marks=pytest.mark.slow),
        pytest.param("flux", ("text_encoder",), marks=pytest.mark.slow),
    ],
)
def test_a_run_that_trains_encoders_is_proved(family, encoders, data, tmp_path):
    built(family).save_pretrained(tmp_path / "base")
    words = WORD if family in KEYS else {}
    settings = adapt.TrainSettings(**SHORT, **words, resolution=32)
    result = adapt.train(data, output=tmp_path / "run", base=str(tmp_path / "base"), settings=settings)
    assert result.proof.difference <= 1e-5 < result.proof.effect and result.adapter.loader == "diffusers"
    assert tuple(name for name in result.adapter.weights.modules if name.startswith("text_encoder")) == encoders
    if words:
        file = tmp_path / "run" / "adapter" / "embeddings" / "me.safetensors"
        assert set(load_file(file)) == KEYS[family] and {len(t) for t in load_file(file).values()} == {2}
