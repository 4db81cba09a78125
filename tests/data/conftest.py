"""Small pictures, made on the spot."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _encoded(image, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _noise(seed: int = 0, width: int = 24, height: int = 20) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _write(root: Path, **files: bytes | str) -> Path:
    """Files below `root`; `__` in a name stands for `/`, the last `_` for the dot."""
    for name, content in files.items():
        folder, _, last = name.rpartition("__")
        path = root / folder.replace("__", "/") / ".".join(last.rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def _state(root: Path) -> dict[str, tuple[str, int]]:
    """Everything below `root`: digest and time of change."""
    return {
        str(p.relative_to(root)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in root.rglob("*")
        if p.is_file()
    }


@pytest.fixture
def encoded():
    """image, format, options → bytes."""
    return _encoded


@pytest.fixture
def noise():
    """seed, width, height → RGB picture."""
    return _noise


@pytest.fixture
def png():
    """seed, width, height → bytes of a PNG."""
    return lambda seed=0, width=24, height=20: _encoded(_noise(seed, width, height))


@pytest.fixture
def write():
    """folder, files by name → the folder."""
    return _write


@pytest.fixture
def state():
    """folder → digests and times of its files."""
    return _state
