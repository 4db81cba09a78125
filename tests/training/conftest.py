"""What tiny runs are trained on, `train`, which runs one in this process, and a finished run to spoil."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import die_at, in_child, tiny

import adapt
from adapt.api.assemble import assemble
from adapt.api.gather import gather
from adapt.api.machine import make_accelerator
from adapt.api.settle import settle
from adapt.backbones import Backbone
from adapt.backbones.stable_diffusion import StableDiffusion


@pytest.fixture(scope="session")
def captioned(tmp_path_factory):
    """Eight pictures with two or three captions each."""
    folder = tmp_path_factory.mktemp("captioned")
    random = np.random.default_rng(1)
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number:02d}.png")
        captions = [f"{word} {number}" for word in ("picture", "image", "drawing")[: 2 + number % 2]]
        (folder / f"{number:02d}.txt").write_text("\n".join(captions), encoding="utf-8")
    return folder


@pytest.fixture
def train(captioned, tiny_base):
    """`train(folder, steps=…, existing=…)`: a tiny run in this process."""

    def run(output, *, data=captioned, base=tiny_base, existing="refuse", allow=(), settings=None, **changes):
        if settings is None and (changes or existing != "resume"):
            settings = tiny(**changes)
        return adapt.train(data, output=output, base=str(base), settings=settings, existing=existing, allow=allow)

    return run


@pytest.fixture
def start(captioned, tiny_base, tmp_path):
    """`start(folder)` runs the tiny job there in a child, going on with what is there, and returns its process id; what it says
    is in `tmp_path / "log"`. The base is loaded once.

    Args:
        die: it kills itself at so many syncs, renames or removals.
    """
    base = Backbone.load(str(tiny_base))

    def run(folder, die=0, **changes):
        def work():
            Backbone.load = staticmethod(lambda *_, **__: base)
            if die:
                die_at(die)
            adapt.train(captioned, output=folder, base=str(tiny_base), settings=tiny(**changes), existing="auto")

        return in_child(work, tmp_path / "log")

    return run


@pytest.fixture(scope="session")
def whole(captioned, tiny_base, tmp_path_factory):
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return adapt.train(captioned, output=folder, base=str(tiny_base), settings=tiny())


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole.folder, tmp_path / "finished" / "run")


@pytest.fixture
def cut(finished):
    """The finished run as it was after step 4: its two checkpoints are 2 and 4."""
    return cut_at(finished, 4)


def cut_at(run, step):
    """Everything that came after a step is taken away again."""
    shutil.rmtree(run / "adapter")
    shutil.rmtree(run / "checkpoints" / "step-000006")
    for path in (run / "snapshots").iterdir():
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    return run


PLAIN_RUN = {"dropout": 0.0, "validation": None, "batch_size": 4, "accumulation": 1}


@pytest.fixture
def course(captioned, make_tiny):
    """`course(prior=(…), **settings)`: a run about to begin, the adapter still doing nothing unless `moved`."""

    def make(prior=(), moved=True, prediction="v_prediction", **changes):
        backbone = StableDiffusion(make_tiny(prediction), "tiny")
        settings = settle(tiny(**{**PLAIN_RUN, **changes}), backbone)
        said = {"trigger": changes.get("trigger")}
        pictures = gather(captioned, tiny(**PLAIN_RUN, **said)).train
        pictures = [replace(p, prior=i in prior) for i, p in enumerate(pictures)]
        found = assemble(Path("nowhere"), backbone, pictures, (), settings, make_accelerator(settings)).course
        if moved:
            for number, parameter in enumerate(found.injection.parameters.values()):
                random = torch.Generator().manual_seed(number)
                parameter.data = parameter.data + 0.3 * torch.randn(parameter.shape, generator=random)
        return found

    return make
