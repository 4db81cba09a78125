"""diffusers' LoRA file: round trips bit for bit, equal bytes for equal weights, and no damage passes unnoticed."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.errors import AdapterError
from adapt.formats import FILE_NAME, LoraWeights, Pair, read_lora, write_lora
from adapt.formats.diffusers_lora import HEADER
from adapt.formats.opening import check_file


def _weights(rank=2, alpha=3.0, seed=0):
    def random(*shape):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))

    linear = Pair(random(rank, 6), random(5, rank), alpha)
    conv = Pair(random(rank, 4, 3, 3), random(8, rank, 1, 1), alpha)
    return LoraWeights({"unet": {"mid_block.attn.to_q": linear, "conv_in": conv}})


CONFIGS = {"unet": {"r": 2, "lora_alpha": 3.0, "target_modules": {"to_q", "conv_in"}, "lora_dropout": 0.1, "bias": "none",
                    "base_model_name_or_path": "/home/somebody/secret", "rank_pattern": {}, "revision": None}}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    write_lora(tmp_path / FILE_NAME, _weights(), CONFIGS)
    return tmp_path / FILE_NAME


def _same(a, b):
    assert {c: set(p) for c, p in a.modules.items()} == {c: set(p) for c, p in b.modules.items()}
    for component, pairs in a.modules.items():
        for name, pair in pairs.items():
            other = b.modules[component][name]
            assert torch.equal(pair.down, other.down) and torch.equal(pair.up, other.up)
            assert pair.alpha == other.alpha, name


def test_what_was_written_is_read_bit_for_bit(file):
    _same(read_lora(file), _weights())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept(tmp_path, dtype):
    half = {n: Pair(p.down.to(dtype), p.up.to(dtype), 2.0) for n, p in _weights().modules["unet"].items()}
    write_lora(tmp_path / FILE_NAME, LoraWeights({"unet": half}), {})
    read = read_lora(tmp_path / FILE_NAME)
    _same(read, LoraWeights({"unet": half}))
    assert next(iter(read.modules["unet"].values())).down.dtype == dtype


def test_alpha_is_kept_with_no_configuration_or_a_wrong_one(tmp_path):
    """The pairs know their strength; a file that forgets it draws something else."""
    for configs in ({}, {"unet": {"r": 2, "lora_alpha": 2}}, {"unet": {"lora_alpha": 3, "use_rslora": True}}):
        write_lora(tmp_path / FILE_NAME, _weights(alpha=0.7), configs)
        _same(read_lora(tmp_path / FILE_NAME), _weights(alpha=0.7))


def test_ranks_and_alphas_may_differ_between_layers(tmp_path):
    pairs = {
        "up.0.conv": Pair(torch.ones(2, 4), torch.ones(4, 2), 2.0),
        "up.1.conv": Pair(torch.ones(2, 4), torch.ones(4, 2), 2.0),
        "conv": Pair(torch.ones(3, 4), torch.ones(4, 3), 1.5),
        "0.conv": Pair(torch.ones(1, 4), torch.ones(4, 1), 0.25),
    }
    write_lora(tmp_path / FILE_NAME, LoraWeights({"unet": pairs}), {})
    _same(read_lora(tmp_path / FILE_NAME), LoraWeights({"unet": pairs}))


def test_keys_and_header_are_those_of_diffusers(file):
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        assert sorted(opened.keys()) == [
            f"unet.{layer}.lora_{half}.weight" for layer in ("conv_in", "mid_block.attn.to_q") for half in "AB"
        ]
        metadata = opened.metadata()
    header = json.loads(metadata[HEADER])
    assert metadata["format"] == "pt"
    assert header == {
        "unet.r": 2, "unet.lora_alpha": 3.0, "unet.bias": "none", "unet.target_modules": ["conv_in", "to_q"],
    }  # fmt: skip
    assert b"somebody" not in file.read_bytes()


def test_alpha_without_a_header_is_the_rank(tmp_path):
    tensors = {"unet.a.lora_A.weight": torch.ones(2, 3), "unet.a.lora_B.weight": torch.ones(3, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert read_lora(tmp_path / "a.safetensors").modules["unet"]["a"].alpha == 2


@pytest.mark.parametrize("patterns", [{"rank_pattern": {"q": 4}, "alpha_pattern": {"q": 1.0}}, {"use_rslora": True}])
def test_alpha_is_read_as_peft_reads_it(tmp_path, patterns):
    """A file of somebody else, with patterns or rank-stabilised: the factor is the one that peft multiplies with."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
    from torch import nn

    model = nn.ModuleDict({"q": nn.Linear(4, 4), "attn": nn.ModuleDict({"q": nn.Linear(4, 4), "k": nn.Linear(4, 4)})})
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["q", "k"], **patterns)
    inject_adapter_in_model(config, model)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    tensors = {}
    for name, layer in layers.items():
        nn.init.ones_(layer.lora_B["default"].weight)
        tensors[f"unet.{name}.lora_A.weight"] = layer.lora_A["default"].weight.detach()
        tensors[f"unet.{name}.lora_B.weight"] = layer.lora_B["default"].weight.detach()
    header = {f"unet.{k}": v for k, v in {"r": 2, "lora_alpha": 3, **patterns}.items()}
    save_file(tensors, tmp_path / "a.safetensors", {HEADER: json.dumps(header)})
    for name, pair in read_lora(tmp_path / "a.safetensors").modules["unet"].items():
        assert torch.allclose(pair.delta(), layers[name].get_delta_weight("default"), atol=1e-6), name


def test_equal_weights_are_equal_bytes_in_any_order_and_process(tmp_path, file):
    weights, config = _weights().modules["unet"], CONFIGS["unet"]
    backwards = LoraWeights({"unet": dict(reversed(weights.items()))}, {"b": "1", "a": "2"})
    forwards = LoraWeights({"unet": weights}, {"a": "2", "b": "1"})
    write_lora(tmp_path / "1", backwards, {"unet": dict(reversed(config.items()))})
    write_lora(tmp_path / "2", forwards, CONFIGS)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    code = f"""
import torch
from pathlib import Path
from adapt.formats import LoraWeights, Pair, read_lora, write_lora
weights = read_lora(Path({str(file)!r}))
metadata = dict.fromkeys({{str(i) for i in range(30)}}, "x")
write_lora(Path("3"), LoraWeights(weights.modules, metadata), {CONFIGS!r})
"""
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    write_lora(tmp_path / "4", LoraWeights({"unet": weights}, dict.fromkeys(map(str, range(30)), "x")), CONFIGS)
    assert (tmp_path / "3").read_bytes() == (tmp_path / "4").read_bytes()


# --------------------------------------------------------------------------------------------------------------- damage
class Canary:
    """Unpickling it would be noticed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt", ".pth", ".pkl", ".safetensors"])
def test_pickles_are_refused_unread(tmp_path, suffix):
    path = tmp_path / f"adapter{suffix}"
    torch.save(Canary(tmp_path / "ran"), path)
    with pytest.raises(AdapterError, match="damaged" if suffix == ".safetensors" else "never read"):
        read_lora(path)
    assert not (tmp_path / "ran").exists()


def test_what_is_not_there_is_said_to_be_missing(tmp_path):
    for name in ("nothing.safetensors", "nothing", "no/such/folder"):
        with pytest.raises(AdapterError, match="no such adapter"):
            check_file(tmp_path / name)


TENSORS = {"unet.a.lora_A.weight": torch.ones(2, 3), "unet.a.lora_B.weight": torch.ones(4, 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unet.a.lora_B.weight": None}, "holds only lora_A of unet.a"),
        ({"unet.a.lora_A.weight": None}, "holds only lora_B of unet.a"),
        ({"unet.a.lora_B.weight": torch.ones(4, 3)}, "do not fit"),
        ({"unet.a.lora_B.weight": torch.ones(4)}, "do not fit"),
        ({"unet.a.lora_B.weight": torch.ones(4, 2, 1, 1)}, "do not fit"),
        ({"unet.a.lora_A.weight": torch.ones(0, 3), "unet.a.lora_B.weight": torch.ones(4, 0)}, "no LoRA"),
        ({"unet.a.lora_A.weight": torch.tensor([[1.0, torch.nan, 1], [1, 1, 1]])}, "not finite"),
        ({"unet.a.lora_B.weight": torch.full((4, 2), torch.inf).half()}, "not finite"),
        ({"unet.a.lora_A.weight": torch.full((2, 3), torch.nan).to(torch.float8_e4m3fn)}, "not finite"),
        ({"unet.b.weight": torch.ones(3)}, "unet.b.weight"),
        ({"lora_unet_a.lora_down.weight": torch.ones(2, 3)}, "no diffusers LoRA"),
        ({"unet.a.lora_magnitude_vector.weight": torch.ones(4)}, "no diffusers LoRA"),
        ({"vae.a.lora_A.weight": torch.ones(2, 3)}, "no diffusers LoRA"),
        ({"unet.a.lora_B.bias": torch.ones(4)}, "no diffusers LoRA"),
        (dict.fromkeys(TENSORS), "no LoRA"),
    ],
)
def test_what_is_no_lora_is_refused_by_name(tmp_path, change, message):
    tensors = {name: tensor for name, tensor in {**TENSORS, **change}.items() if tensor is not None}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=message):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "header",
    ["[]", "{", '"x"', '{"unet.lora_alpha": "big"}', '{"unet.lora_alpha": null}', '{"unet.lora_alpha": NaN}',
     '{"unet.lora_alpha": Infinity}', '{"unet.alpha_pattern": 3}', '{"unet.alpha_pattern": {"(": 1}}',
     '{"unet.use_dora": true}', '{"unet.lora_alpha": [1]}', "[" * 100_000],
)  # fmt: skip
def test_a_header_that_gives_no_alpha_is_refused(tmp_path, header):
    save_file(TENSORS, tmp_path / "a.safetensors", {HEADER: header})
    with pytest.raises(AdapterError):
        read_lora(tmp_path / "a.safetensors")


def test_a_file_cut_anywhere_is_refused(file):
    content = file.read_bytes()
    offsets = {*range(0, 40), *range(0, len(content), 37), len(content) - 1}
    for offset in offsets:
        file.write_bytes(content[:offset])
        with pytest.raises(AdapterError, match=r"damaged|cut off"):
            read_lora(file)
    file.write_bytes(content + b"\0")
    with pytest.raises(AdapterError, match="cut off"):
        read_lora(file)


def test_a_damaged_header_is_an_error_or_changes_nothing(file):
    """Every byte before the tensors, two ways: what can be read must be what was written, but for names and settings."""
    content, wanted = file.read_bytes(), load_file(file)
    end = 8 + int.from_bytes(content[:8], "little")
    refused = 0
    for offset in range(end):
        for bit in (1, 64):
            broken = bytearray(content)
            broken[offset] ^= bit
            file.write_bytes(broken)
            try:
                read = read_lora(file)
            except AdapterError:
                refused += 1
                continue
            found = [half for pairs in read.modules.values() for p in pairs.values() for half in (p.down, p.up)]
            assert len(found) == len(wanted)
            assert all(torch.isfinite(half.float()).all() for half in found)
    assert refused > end  # more than half of them


def _raw(entries, data=b"\0" * 64):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 64,
        (2**62).to_bytes(8, "little") + b"{}",
        _raw([]),
        _raw(b"[" * 100_000),
        _raw(b"\xff\xfe"),
        _raw({"a": 3}),
        _raw({"a": {**ENTRY, "data_offsets": []}}),
        _raw({"a": {**ENTRY, "data_offsets": ["0", "64"]}}),
        _raw({"a": {**ENTRY, "data_offsets": [0, "x"]}}),
        _raw({"a": {**ENTRY, "data_offsets": [0, 1e400]}}),
        _raw({"a": {**ENTRY, "data_offsets": [0, -8]}}),
        _raw({"a": {**ENTRY, "dtype": "F33"}, "b": {**ENTRY, "data_offsets": [32, 64]}}),
        _raw({"a": {**ENTRY, "shape": [2, -4]}, "b": {**ENTRY, "data_offsets": [32, 64]}}),
        _raw({"a": ENTRY, "b": ENTRY}, b"\0" * 32),
        _raw({"a": {**ENTRY, "data_offsets": [0, 2**70]}}),
        _raw({"__metadata__": {"x": 3}, "a": {**ENTRY, "data_offsets": [0, 64]}}),
        _raw({}, b""),
    ],
)
def test_headers_made_up_by_hand_are_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(AdapterError):
        read_lora(tmp_path / "a.safetensors")
