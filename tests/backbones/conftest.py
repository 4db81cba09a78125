"""Tiny bases of the families, built once a session."""

from dataclasses import replace

import pytest
from tiny_families import CASES, built, family_of

from adapt.backbones.registry import FAMILIES


@pytest.fixture(scope="package", autouse=True)
def _small():
    """Fewer text tokens and smaller pictures, where the table says how many and how large."""
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
