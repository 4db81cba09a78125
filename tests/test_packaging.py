"""The wheel holds the two packages and what they need at run time, and nothing else."""

import re
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import adapt

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Names in a freshly built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith(f"adapt_diffusion-{adapt.__version__}-py3-none-any")
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_two_packages_and_nothing_else(names):
    info = f"adapt_diffusion-{adapt.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"adapt", "conditioning", info}
    assert {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"} == {
        name.removeprefix(info + "/") for name in names if name.startswith(info)
    }
    assert not [name for name in names if "test" in name or name.endswith((".pyc", ".bin", ".pt", ".ckpt"))]


def test_what_is_needed_at_run_time_is_inside(names):
    committed = subprocess.run(["git", "ls-files", "adapt", "conditioning"], capture_output=True, text=True, cwd=ROOT)
    if committed.returncode == 0:
        assert set(committed.stdout.split()) <= names
    assert {"adapt/py.typed", "conditioning/py.typed", "adapt/card/template.md"} <= names
    icons = {name.removeprefix("adapt/bundled/icons/") for name in names if name.startswith("adapt/bundled/icons/")}
    components = {name.split("/")[0] for name in icons if "/" in name}
    assert "model_index.json" in icons and {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= components
    for component in ("unet", "vae", "text_encoder"):
        assert f"{component}/config.json" in icons
        assert any(name.startswith(component) and name.endswith(".safetensors") for name in icons)


def test_public_names():
    for module in (adapt, import_module("conditioning")):
        assert list(module.__all__) == sorted(module.__all__)
        assert all(getattr(module, name) is not None for name in module.__all__)
    assert set(import_module("conditioning").__all__) - {"__version__"} <= set(adapt.__all__)
    assert set(adapt._HOMES) | {"__version__"} == set(adapt.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = adapt.no_such_name


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## \[?v?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == adapt.__version__
