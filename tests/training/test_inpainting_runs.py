"""Inpainting bases: a run that learns to fill holes, what its steps are told, and how its adapter draws."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import RESULTS, content, tiny

import adapt
from adapt.backbones import Backbone
from adapt.data.holes import Holes
from adapt.errors import SettingsError

SHORT = {
    **{"steps": 4, "batch_size": 4, "validate_every": 2, "save_every": 2, "ema": 0.0, "flip": 0.5, "inpaint_masks": 4},
    **{"crop": "random", "variants": 2},
}


@pytest.fixture(scope="module")
def result(pictures, tiny_filler, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    return adapt.train(pictures, output=run, base=str(tiny_filler), settings=tiny(**SHORT))


# ---------------------------------------------------------------------------------------------- a whole run
def test_a_run_learns_to_fill_and_its_adapter_fills(result, pictures, tiny_filler):
    base, mask = Backbone.load(str(tiny_filler)), Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 14))
    assert result.adapter.facts.base["pipeline"] == "StableDiffusionInpaintPipeline"
    assert len(result.adapter.facts.samples) == len(list((result.folder / "adapter" / "samples").iterdir())) > 0

    def drawn(**changes):
        asked = {"prompt": "a picture", "image": pictures / "00.png", "mask": mask, "steps": 2, **changes}
        return np.asarray(adapt.generate(base, **asked)[0])

    found = [drawn(), drawn(adapters=[result.adapter]), drawn(image=None, mask=None), drawn(image=pictures / "01.png")]
    assert not any(np.array_equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_a_resumed_run_gives_the_same_bytes(result, pictures, tiny_filler, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(result.folder, run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    adapt.train(pictures, output=run, base=str(tiny_filler), settings=tiny(**SHORT), existing="resume")
    assert content(run, *RESULTS) == content(result.folder, *RESULTS)


# ---------------------------------------------------------------------------------------------- what a step is told
@pytest.fixture
def course(pictures, tiny_filler, tmp_path):
    from accelerate import Accelerator

    from adapt.api.assemble import assemble
    from adapt.api.gather import gather
    from adapt.api.settle import settle

    def made(data=pictures, **changes):
        backbone = Backbone.load(str(tiny_filler))
        settings = settle(tiny(**{**SHORT, **changes}), backbone)
        found = gather(data, settings, str(tiny_filler))
        return assemble(tmp_path, backbone, found.train, found.held_out, settings, Accelerator(cpu=True)).course

    return made


def told(course, rows):
    from adapt.training.step import conditions, with_source

    return with_source(course, rows, conditions(course, rows)).parts["source"]


def pixels_of(examples, view):
    """(1, 3, H, W) of an example as it is seen."""
    return examples.reader.row(examples._contents.read(view[0]), examples._view(*view))[None]


def test_each_row_is_told_what_is_left_around_a_hole_that_the_plan_chose(course):
    from adapt.training.step import views

    found, seen = course(), set()
    examples, holes = found.examples, Holes(4, seed=3)
    assert examples.holes == 2, "four of each picture, in two variants"
    for step in range(8):
        rows = found.plan.rows(step, range(4))
        part = told(found, rows)
        for row, (view, number) in enumerate(zip(views(found, rows), rows.holes(2), strict=True)):
            number += 2 * view[2]
            hole = torch.from_numpy(holes.hole(examples._contents.digest(view[0]), number, 16, 16))
            left = torch.where(hole, 0.0, pixels_of(examples, view))
            expected = found.backbone.encode_media(left)[0][0]
            torch.testing.assert_close(part["latents"][row], expected, atol=1e-5, rtol=0)
            assert torch.equal(part["hole"][row, 0], hole[::2, ::2].byte())
            seen.add(number)
        alone = told(found, found.plan.rows(step, [2]))
        assert all(torch.equal(x[0], part[name][2]) for name, x in alone.items()), "whoever takes the row"
    assert len(seen) == 4


def test_a_picture_s_own_mask_is_its_only_hole_and_weighs_the_loss(course, pictures, tmp_path):
    from adapt.training.step import areas, views

    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    for picture in sorted(data.glob("*.png"))[:11]:  # one is left without
        mask = Image.new("L", (16, 16))
        mask.paste(255, (0, 0, 6, 16))
        mask.save(picture.with_name(f"{picture.stem}-masklabel.png"))
    found = course(data, masks="files", crop="centre", variants=8, validation=None)
    rows = found.plan.rows(0, range(4))
    part, weights = told(found, rows), areas(found, rows, torch.zeros(4, 4, 8, 8))
    masked = 0
    for row, (index, flip, _) in enumerate(views(found, rows)):
        if found.examples.pictures[index].mask is None:
            continue
        hole = torch.zeros(8, 8, dtype=torch.uint8)
        hole[:, 5:] = 1 if flip else 0
        hole[:, :3] = 0 if flip else 1
        assert torch.equal(part["hole"][row, 0], hole)
        assert torch.equal(weights[row, 0] == 1, hole > 0)
        masked += 1
    assert masked >= 3
    keys = {hole: found.examples.source(0, hole=hole)["hole"] for hole in range(4)}
    assert all(torch.equal(x, keys[0]) for x in keys.values())


def test_held_out_pictures_have_one_hole_whatever_the_seed(course):
    """Measurements of different runs can be compared."""
    from accelerate import Accelerator

    from adapt.api.assemble import encode_held_out

    runs = [course(seed=seed) for seed in (3, 4)]
    pictures = runs[0].examples.pictures
    held = [encode_held_out(r.backbone, pictures, r.settings, Accelerator(cpu=True)) for r in runs]
    assert [one.holes for one in held] == [1, 1]
    count = held[0].count
    assert all(torch.equal(held[0].source(i)["hole"], held[1].source(i)["hole"]) for i in range(count))
    assert any(not torch.equal(held[0].source(0)["hole"], held[0].source(i)["hole"]) for i in range(1, count))


# ---------------------------------------------------------------------------------------------- what is refused
def test_what_makes_no_sense_is_refused_before_anything_is_written(pictures, tiny_base, tiny_filler, tmp_path):
    def refused(base, match, **changes):
        with pytest.raises(SettingsError, match=match):
            adapt.train(pictures, output=tmp_path / "run", base=str(base), settings=tiny(**changes))
        assert not (tmp_path / "run").exists()

    refused(tiny_base, "inpaint_masks is for bases that fill holes", inpaint_masks=4)
    refused(tiny_filler, "prior_prompt asks the base by words alone, and this one fills holes", prior_prompt="a dog")
    refused(tiny_filler, "source_dropout is for bases that edit", source_dropout=0.1)
    refused(tiny_filler, "or fills holes is not distilled", distill="guidance", caption_dropout=0.0)
