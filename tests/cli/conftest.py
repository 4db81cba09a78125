"""A base as wide as Stable Diffusion 1.x, for commands on files of other programs."""

import pytest

from adapt.backbones import Backbone


@pytest.fixture(scope="module")
def wide(tmp_path_factory, make_tiny):
    """A tiny base that takes text of width 768, as Stable Diffusion 1.x does."""
    folder = tmp_path_factory.mktemp("wide")
    make_tiny(text_width=768).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(wide):
    return Backbone.load(str(wide))
