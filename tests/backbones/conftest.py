"""Tiny bases of the families, built once a session."""

from dataclasses import replace
from types import FunctionType

import av
import numpy as np
import pytest
from tiny_families import CASES, built, family_of, qwen_sizes

from adapt.backbones.registry import FAMILIES


@pytest.fixture(scope="package", autouse=True)
def _small():
    """Fewer text tokens and smaller pictures, where the table and pipelines say how many and how large."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    sizes = {module: module.calculate_dimensions for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus)}
    pipeline_qwenimage_edit.calculate_dimensions = lambda area, ratio: (*qwen_sizes(area, ratio), None)
    pipeline_qwenimage_edit_plus.calculate_dimensions = qwen_sizes
    kept = dict(FAMILIES)
    for name, case in CASES.items():
        row = kept[family_of(name)]
        FAMILIES[row.name] = replace(
            row,
            max_tokens=row.max_tokens and case.tokens,
            sample_size=row.sample_size and case.side // case.scale,
            frames=case.frames,
        )
    yield
    FAMILIES.update(kept)
    for module, own in sizes.items():
        module.calculate_dimensions = own


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Family → the folder of its tiny base."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"base-{name}")
            built(name).save_pretrained(made[name])
        return made[name]

    return folder


@pytest.fixture(scope="session")
def backbones(folders):
    """Family → its tiny base, loaded as a user loads it."""
    from adapt.backbones import Backbone

    made = {}

    def backbone(name):
        if name not in made:
            made[name] = Backbone.load(str(folders(name)))
        return made[name]

    return backbone


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Four short clips of noise with captions."""
    root, numbers = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for k in range(4):
        with av.open(str(root / f"{k}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=16)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 32, 32, "yuv420p", 10**6
            for _ in range(8):
                values = numbers.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
            container.mux(stream.encode())
        (root / f"{k}.txt").write_text(f"clip {k}")
    return root


@pytest.fixture(scope="module")
def narrow_flux():
    """diffusers' maps of Flux.1's and Chroma's names know the published width, 3072, alone: here it is the tiny one's."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES as KNOWN

    entries = [KNOWN[kind] for kind in ("FluxTransformer2DModel", "ChromaTransformer2DModel")]
    kept = [entry["checkpoint_mapping_fn"] for entry in entries]
    for entry, own in zip(entries, kept, strict=True):
        code = own.__code__
        assert 3072 in code.co_consts
        narrow = code.replace(co_consts=tuple(32 if value == 3072 else value for value in code.co_consts))
        entry["checkpoint_mapping_fn"] = FunctionType(narrow, own.__globals__, own.__name__, closure=own.__closure__)
    yield
    for entry, own in zip(entries, kept, strict=True):
        entry["checkpoint_mapping_fn"] = own
