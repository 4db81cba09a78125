"""Flux.2 draws from words alone, and edits the picture that it is given: one checkpoint, one pipeline."""

import json

import pytest
import torch
from PIL import Image
from tiny_families import CASES, sources

from adapt.api.pairs import needs_sources
from adapt.cli.main import main
from adapt.config import TrainSettings
from adapt.errors import SettingsError
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle

SIDE = 64
"""Its pipeline takes no smaller pictures."""


def theirs(backbone, case, picture, guided):
    """Latents of its pipeline, as tokens of the network."""
    pipeline, kept = backbone.pipeline, backbone.pipeline.scheduler
    pipeline.scheduler = type(kept).from_config(kept.config)
    try:
        found = pipeline(
            image=[picture], prompt=["a"], num_inference_steps=2, generator=generator_of(7), output_type="latent",
            height=SIDE, width=SIDE, **case.call, **(case.on if guided else case.off)[0],
        ).images  # fmt: skip
    finally:
        pipeline.scheduler = kept
    if found.ndim == 3:
        return found.mT.unflatten(2, (SIDE // 4, SIDE // 4))
    norm = pipeline.vae.bn
    std = torch.sqrt(norm.running_var.view(1, -1, 1, 1) + pipeline.vae.config.batch_norm_eps)
    return (pipeline._patchify_latents(found) - norm.running_mean.view(1, -1, 1, 1)) / std


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("name", ["flux2", "flux2-klein"])
def test_a_picture_is_edited_as_in_the_pipeline(backbones, name, guided):
    backbone, case = backbones(name), CASES[name]
    picture = sources(SIDE)[0]
    asked = (case.on if guided else case.off)[1]
    told = {"prompt": "a", "steps": 2, "height": SIDE, "width": SIDE, **asked}
    drawing = settle(Request(**told, image=picture), backbone)
    assert drawing.image is None and drawing.source is not None
    found = draw_latents(backbone, [drawing], [generator_of(7)])
    assert (found - theirs(backbone, case, picture, guided)).abs().max() <= 1e-4
    without = draw_latents(backbone, [settle(Request(**told), backbone)], [generator_of(7)])
    assert (found - without).abs().max() > 1e-3


def test_strength_or_a_mask_say_that_it_is_drawn_over(backbones):
    backbone, picture = backbones("flux2-klein"), sources(32)[0]
    for more in ({"strength": 0.5}, {"mask": Image.new("L", (32, 32), 255)}):
        drawing = settle(Request(prompt="a", image=picture, **more), backbone)
        assert drawing.image is not None and drawing.source is None
    assert not backbone.edits


def test_pairs_are_asked_for_where_edits_are_taught(folders, pairs, tmp_path, monkeypatch, capsys):
    base = str(folders("flux2-klein"))
    assert needs_sources(base, TrainSettings()) is None
    assert needs_sources(base, TrainSettings(preset="edit")) == needs_sources(
        base, TrainSettings(source_folder="before")
    )
    with pytest.raises(SettingsError, match="source_dropout is for bases that edit"):
        needs_sources(base, TrainSettings(source_dropout=0.1))
    assert main(["check", str(pairs), "--base", base, "--exit-zero"]) == 0
    monkeypatch.chdir(tmp_path)
    words = ["steps=2", "batch_size=2", "rank=2", "sampling_steps=2", "validation=0.25", "validation_times=1",
             "buckets=false", "previews=[a]"]  # fmt: skip
    capsys.readouterr()
    assert main(["train", str(pairs), "--base", base, "--output", "runs/a", *words, "preset=edit"]) == 0
    facts = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())
    assert facts["base"]["family"] == "flux2-klein" and facts["training"]["edits"]
    card = (tmp_path / "runs/a/adapter/README.md").read_text()
    assert "pipeline_tag: image-to-image" in card and 'image=load_image("picture.png")' in card
    before = str(pairs / "before" / "0.png")
    told = ["generate", "--base", base, "--adapter", "runs/a", "--prompt", "a", "--steps", "2", "--device", "cpu"]
    assert main([*told, "--image", before, "--size", "32", "--output", "edited.png"]) == 0
    assert main([*told, "--size", "32", "--output", "drawn.png"]) == 0
    with Image.open("edited.png") as edited, Image.open("drawn.png") as drawn:
        assert edited.tobytes() != drawn.tobytes()
