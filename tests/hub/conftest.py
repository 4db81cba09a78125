"""A local Hub for each test, an adapter of a tiny base, and a person who is logged in."""

import json
import shutil
import time
from types import SimpleNamespace

import pytest
import torch
from local_hub import Hub, serve

from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.formats import LoraWeights
from adapt.lora import inject
from adapt.sampling.png import save_png

TOKEN = "hf_goodgoodgoodgoodgood"


@pytest.fixture(scope="session")
def _server():
    server = serve(Hub())
    yield server
    server.shutdown()


@pytest.fixture
def hub(_server, monkeypatch, tmp_path):
    """The Hub, empty; huggingface_hub talks to it, is logged in as alice, waits for nothing, and has an empty cache."""
    from huggingface_hub import constants, file_download, hf_api
    from huggingface_hub.utils import _http, disable_progress_bars

    state = _server.hub
    state.reset()
    endpoint = f"http://127.0.0.1:{_server.server_port}"
    state.endpoint = endpoint
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    for name, value in {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HUB_CACHE": str(tmp_path / "hf-cache"),
                        "HF_TOKEN_PATH": str(tmp_path / "no-token")}.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)  # what diffusers and peft ask
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None}))
    disable_progress_bars()
    yield state
    _http.close_session()


@pytest.fixture(scope="session")
def made(tmp_path_factory, tiny_base):
    """The folder of an adapter as a run would leave it, of a base that the Hub knows as `alice/tiny`."""
    import numpy as np
    from PIL import Image

    backbone = Backbone.load(str(tiny_base))
    folder = tmp_path_factory.mktemp("made") / "my-style" / "adapter"
    injection = inject(backbone.denoiser, rank=2, alpha=2.0, dropout=0.0, targets=("to_q", "to_v"), seed=0)
    generator = torch.Generator().manual_seed(0)
    values = {name: 0.2 * torch.randn(p.shape, generator=generator) for name, p in injection.parameters.items()}
    layers = injection.layers(values)
    injection.remove()
    adapter = Adapter(LoraWeights({"unet": layers}), facts_of(backbone), "my-style")
    adapter.save(folder)
    noise = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    (folder / "samples").mkdir()
    for number, pixels in enumerate(noise, 1):
        save_png(folder / "samples" / f"{number:02d}.png", Image.fromarray(pixels))
    return folder


def facts_of(backbone):
    sample = {
        "seed": 3,
        "steps": 2,
        "guidance_scale": 2.0,
        "width": 16,
        "height": 16,
        "scheduler": None,
        "negative_prompt": "",
    }
    return Facts(
        base={"reference": "alice/tiny", "family": backbone.family, "fingerprint": backbone.fingerprint(),
              "pipeline": backbone.pipeline_class, "license": "openrail++"},
        objective="epsilon", null="empty", trigger="zqx",
        recommended={"scale": 1.0, "guidance_scale": 2.0, "steps": 2},
        data={"pictures": 12, "classes": 3},
        training={"pictures": 12, "steps": 4, "kind": "lora", "rank": 2, "alpha": 2.0, "resolution": 16, "seed": 0,
                  "held_out": {"ratio": 0.8, "standard_error": 0.02, "pictures": 4, "gap": 0.1, "gap_error": 0.01}},
        samples=tuple({"file": f"samples/{n:02d}.png", "prompt": f"zqx picture {n}", **sample} for n in (1, 2)),
        proof={"layers": 6, "difference": 1e-6, "effect": 0.3, "reader": "diffusers"},
        versions={"adapt": "0.2.0"}, loads_in=("adapt", "diffusers"),
    )  # fmt: skip


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the adapter to be changed."""
    copy = tmp_path / "work" / "my-style" / "adapter"
    shutil.copytree(made, copy)
    return copy


@pytest.fixture
def base(hub):
    """The base's page on the Hub."""
    card = b"---\nlicense: openrail++\n---\n# tiny\n"
    return hub.put("alice/tiny", {"model_index.json": json.dumps({"_class_name": "X"}).encode(), "README.md": card})
