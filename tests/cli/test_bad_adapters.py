"""Adapter files that are none, from the door: one line, exit code 2, and nothing written."""

import json
import os
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from adapt.cli.main import main
from adapt.errors import AdapterError

GOOD = {"unet.conv_in.lora_A.weight": torch.ones(2, 4, 3, 3), "unet.conv_in.lora_B.weight": torch.ones(16, 2, 1, 1)}


def padded(size):
    """A whole file but for the size of its header."""
    text = json.dumps({"a": ENTRY}).encode()
    return size.to_bytes(8, "little") + text + b" " * (size - len(text)) + bytes(32)


ENTRY = {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}


def raw(entries, data=b"\0" * 32, length=None):
    text = json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def saved(change):
    def write(path):
        save_file({name: t for name, t in {**GOOD, **change}.items() if t is not None}, path)

    return write


def zipped(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", b"cos\nsystem\n(S'touch opened'\ntR.")


def truncated(path):
    saved({})(path)
    path.write_bytes(path.read_bytes()[:-9])


FILES = {
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch opened'\ntR."), "damaged"),
    "a zip": (zipped, "damaged"),
    "cut off": (truncated, "cut off"),
    "a header above 16 MiB that is really there": (lambda path: path.write_bytes(padded(2**24 + 8)), "header is larger"),
    "a huge header": (lambda path: path.write_bytes(raw({"a": ENTRY}, length=2**40)), "damaged"),
    "a negative offset": (lambda path: path.write_bytes(raw({"a": {**ENTRY, "data_offsets": [-8, 24]}})), "damaged"),
    "overlapping tensors": (lambda path: path.write_bytes(raw({"a": ENTRY, "b": ENTRY})), "damaged"),
    "a gap": (lambda path: path.write_bytes(raw({"a": {**ENTRY, "data_offsets": [8, 40]}}, b"\0" * 40)), "damaged"),
    "a name twice": (lambda path: path.write_bytes(twice()), "damaged"),
    "mixed dialects": (saved({"lora_unet_conv_out.alpha": torch.tensor(1.0)}), "mixes dialects"),
    "float64": (saved({name: tensor.double() for name, tensor in GOOD.items()}), "type that no adapter has"),
    "whole numbers": (saved({name: tensor.int() for name, tensor in GOOD.items()}), "type that no adapter has"),
    "no number": (saved({"unet.conv_in.lora_A.weight": torch.full((2, 4, 3, 3), torch.nan)}), "not finite"),
    "empty": (saved(dict.fromkeys(GOOD)), "holds no LoRA"),
    "no bytes": (lambda path: path.write_bytes(b""), "damaged"),
    "half a pair": (saved({"unet.conv_in.lora_B.weight": None}), "holds only lora_A"),
    "a checkpoint": (saved({"model.diffusion_model.out.2.weight": torch.ones(2)}), "no adapter's"),
    "a textual inversion": (saved({**dict.fromkeys(GOOD), "emb_params": torch.ones(2, 8)}), "convert-embedding"),
    "wrong base": (saved({f"unet.nowhere.lora_{x}.weight": torch.ones(2, 2) for x in "AB"}), "another base"),
    "wrong shape": (saved({"unet.conv_in.lora_A.weight": torch.ones(2, 5, 3, 3)}), "another base"),
}  # fmt: skip


def twice():
    text = b'{"a": %s, "a": %s}' % ((json.dumps(ENTRY).encode(),) * 2)
    return len(text).to_bytes(8, "little") + text + b"\0" * 32


@pytest.mark.parametrize("name", FILES)
def test_one_line_and_nothing_written(tmp_path, tiny_base, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    make, expected = FILES[name]
    make(tmp_path / "a.safetensors")
    words = [
        "generate",
        "--prompt",
        "a fox",
        "--base",
        str(tiny_base),
        "--output",
        "drawn",
        "--adapter",
        "a.safetensors",
    ]
    assert main([*words, "--steps", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: ") and expected in err, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]


def test_layers_that_are_missing_can_be_named(tmp_path, tiny_base, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    FILES["wrong base"][0](tmp_path / "a.safetensors")
    words = [
        "generate",
        "--prompt",
        "a fox",
        "--base",
        str(tiny_base),
        "--output",
        "drawn",
        "--adapter",
        "a.safetensors",
    ]
    words += ["--steps", "1", "--size", "16"]
    assert main([*words, "--allow-missing", "unet.conv_out"]) == 2
    assert "the adapter has no such layer" in capsys.readouterr().err
    assert main([*words, "--allow-missing", "unet.nowhere"]) == 0
    assert list((tmp_path / "drawn").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a right there")
def test_a_link_out_of_an_adapters_folder_is_refused(tmp_path, capsys):
    """A folder from elsewhere must not be able to name any file of this machine; the Hub's cache links its own blobs."""
    (tmp_path / "style").mkdir()
    saved({})(tmp_path / "secret.safetensors")
    (tmp_path / "style" / "pytorch_lora_weights.safetensors").symlink_to(tmp_path / "secret.safetensors")
    assert main(["inspect", str(tmp_path / "style")]) == 2
    err = capsys.readouterr().err
    assert "out of its folder" in err and err.count("\n") == 1
    cache = tmp_path / "models--me--style"
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    saved({})(cache / "blobs" / "abc.safetensors")
    (snapshot / "pytorch_lora_weights.safetensors").symlink_to("../../blobs/abc.safetensors")
    assert main(["inspect", str(snapshot)]) == 0


@pytest.mark.parametrize(
    "name", ["adapter.json", "conditioning/class/model.safetensors", "embeddings/me.safetensors", "conditioning"]
)
def test_links_out_of_an_adapters_folder_are_refused_wherever_it_is_read(tmp_path, name):
    """Facts, conditioners and new words, whether the folder, the run's or the file itself is named."""
    from adapt.adapter import Adapter

    folder, outside = tmp_path / "run" / "adapter", tmp_path / "outside"
    folder.mkdir(parents=True)
    (folder / "pytorch_lora_weights.safetensors").write_bytes(raw({"a": ENTRY}))
    (outside / "class").mkdir(parents=True)
    (outside / "file.json").write_text("{}")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(outside if name == "conditioning" else outside / "file.json")
    for path in (folder, folder.parent, folder / "pytorch_lora_weights.safetensors"):
        with pytest.raises(AdapterError, match="a link leads out of the adapter's folder"):
            Adapter.locate(path)
    (folder / name).unlink()
    assert Adapter.locate(folder)
    (folder / "really.json").write_text("{}")
    (folder / name).symlink_to(folder / "really.json")
    assert Adapter.locate(folder), "within the folder links are fine"
