"""Every dialect from the door: what is written is read back, does the same, and a lie of a writer is set aside."""

import pytest
import torch

from adapt.adapter import Adapter, Facts
from adapt.cli.export import FORMATS as WORDS
from adapt.cli.main import main
from adapt.errors import AdapterError, SettingsError
from adapt.formats import LoraWeights, Pair, read
from adapt.formats.agree import differences
from adapt.formats.export import FORMATS


def pair(out, inside, seed, alpha=3.0):
    dice = torch.Generator().manual_seed(seed)
    return Pair(torch.randn(2, inside, generator=dice), torch.randn(out, 2, generator=dice), alpha)


def flux(alpha=3.0):
    block = "transformer_blocks.0.attn"
    layers = {f"{block}.to_{x}": pair(16, 16, i, alpha) for i, x in enumerate("qkv")}
    return Adapter(LoraWeights({"transformer": layers}), Facts(trigger="zxc"), "style")


def test_the_command_knows_the_formats():
    assert set(WORDS) == set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_writes_every_format(tmp_path, format, capsys):
    flux().save(tmp_path / "style")
    path = tmp_path / f"{format}.safetensors"
    assert main(["export", str(tmp_path / "style"), "--format", format, "--output", str(path)]) == 0
    assert differences(flux().weights, read(path), 1e-6) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_writer_that_changes_a_number_is_found_and_its_file_is_set_aside(tmp_path, format, monkeypatch):
    """Nothing is deleted, nothing that a program would read is left, and what differs is said."""
    from adapt.formats import export

    adapter = flux()
    monkeypatch.setattr(export, "read", lambda path: LoraWeights(flux(3.001).weights.modules))
    for name in ("a.safetensors.refused", "a.safetensors.refused-2"):
        with pytest.raises(
            AdapterError, match=r"(reads differently|something else).*in 3 layers.*attn\.to_k.*by 0\.0"
        ) as told:
            adapter.export(tmp_path / "a.safetensors", format)
        assert name in str(told.value)
    kept = sorted(tmp_path.iterdir())
    assert [path.name for path in kept] == ["a.safetensors.refused", "a.safetensors.refused-2"]
    monkeypatch.undo()
    adapter.export(tmp_path / "a.safetensors", format)
    assert kept[0].read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="comfyui"):
        flux().export(tmp_path / "a.safetensors", "onnx")
