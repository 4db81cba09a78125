"""Damaged and hostile adapter files: each is refused in one line or applied as it stands; the base is what it was either way."""

import json
import random
import time

import pytest
import torch

from adapt import files
from adapt.errors import AdapterError
from adapt.formats import Dora, LoHa, LoKr, LoraWeights, Pair, write_kohya, write_lora
from adapt.formats.diag_oft import DiagBoft, DiagOft
from adapt.formats.dialects import WRITTEN, read, write
from adapt.formats.glora import GLora
from adapt.formats.ia3 import Ia3
from adapt.lora import Applied
from adapt.lora.stack import STACK

LIMIT = 10.0
"""Seconds a file may take."""
BLOCK = "mid_block.attentions.0.transformer_blocks.0"


@pytest.fixture(scope="module")
def unet(make_tiny):
    return make_tiny(text_width=768).unet.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def originals(tmp_path_factory, unet):
    """Files of several dialects and kinds that fit the base."""
    folder, dice = tmp_path_factory.mktemp("originals"), torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=dice) * 0.1

    def linear(name):
        out, inside = unet.get_submodule(name).weight.shape
        return out, inside

    q, k = f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_k"
    (out, inside), (wide_out, wide) = linear(q), linear(k)
    conv = Pair(randn(2, 4, 3, 3), randn(16, 2, 1, 1), 2.0)
    lora = {
        q: Pair(randn(2, inside), randn(out, 2), 3.0),
        k: Pair(randn(3, wide), randn(wide_out, 3), 3.0),
        "conv_in": conv,
    }
    kinds = {
        "lora": lora,
        "dora": {q: Dora(randn(2, inside), randn(out, 2), 3.0, randn(out, 1).abs() + 1)},
        "loha": {q: LoHa(randn(out, 2), randn(2, inside), randn(out, 2), randn(2, inside), 2.0)},
        "lokr": {q: LoKr(2.0, w1=randn(4, 4), w2_a=randn(out // 4, 2), w2_b=randn(2, inside // 4))},
    }
    only_kohyas = {
        "oft": {q: DiagOft(randn(out // 4, 4, 4), 9.0, randn(out, 1) + 1)},
        "boft": {q: DiagBoft(randn(2, out // 4, 4, 4), 9.0)},
        "ia3": {q: Ia3(randn(out), torch.tensor(0)), k: Ia3(randn(wide), torch.tensor(1))},
        "glora": {q: GLora(randn(inside, 2), randn(2, inside), randn(out, 2), randn(2, inside), 2.0)},
    }
    for kind, layers in kinds.items():
        write_lora(folder / f"{kind}.safetensors", LoraWeights({"unet": layers}), {})
    for kind, layers in {**kinds, **only_kohyas}.items():
        write_kohya(folder / f"kohya-{kind}.safetensors", LoraWeights({"unet": layers}), width=768)
    for dialect in ("comfyui", "simpletuner"):
        write(folder / f"{dialect}.safetensors", LoraWeights({"unet": lora}), WRITTEN[dialect], {"note": "x"})
    return [path.read_bytes() for path in sorted(folder.iterdir())]


# -------------------------------------------------------------------------------------------------------------- mutations
def flip(content, dice):
    """Some bits, anywhere or in the header only."""
    content = bytearray(content)
    end = 8 + int.from_bytes(content[:8], "little") if dice.random() < 0.7 else len(content)
    for _ in range(dice.choice((1, 1, 2, 8))):
        content[dice.randrange(end)] ^= 1 << dice.randrange(8)
    return bytes(content)


def cut(content, dice):
    return content[: dice.randrange(len(content))]


def grow(content, dice):
    place = dice.randrange(len(content))
    return content[:place] + dice.randbytes(dice.choice((1, 8, 64))) + content[place:]


def drop(content, dice):
    place = dice.randrange(len(content))
    return content[:place] + content[place + dice.choice((1, 8, 64)) :]


def length(content, dice):
    """Another length of the header: none, huge, a little off."""
    own = int.from_bytes(content[:8], "little")
    chosen = dice.choice((0, 1, max(0, own - 1), own + 1, own * 2, 2**31, 2**63, 2**64 - 1))
    return chosen.to_bytes(8, "little") + content[8:]


WEIRD = (
    None,
    -1,
    0,
    1,
    2**31,
    2**63,
    1e308,
    "x",
    "",
    [],
    {},
    True,
    [1] * 50,
    [2**40, 2**40],
    [[]],
    {"a": 1},
    "F64",
    "U8",
    "F8_E4M3",
)


def header(content, dice):
    """One thing in the header is another: a field, a name, the metadata."""
    end = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:end])
    name = dice.choice(list(entries))
    what = dice.randrange(5)
    if what == 0:
        entries[name] = dice.choice(WEIRD)
    elif what == 1 and name != "__metadata__":
        field = dice.choice(("dtype", "shape", "data_offsets"))
        entries[name] = {**entries[name], field: dice.choice(WEIRD)}
    elif what == 2 and name != "__metadata__":
        numbers = [*entries[name]["shape"]] or [1]
        numbers[dice.randrange(len(numbers))] = dice.choice((0, 1, 3, 2**20))
        entries[name] = {**entries[name], "shape": numbers}
    elif what == 3:
        other = dice.choice(
            ("", "x" * 2000, "../../a", "unet." + name, name + ".weight", name.upper(), "\0", "lora_unet_conv_in.alpha")
        )
        entries[other] = entries.pop(name)
    else:
        entries["__metadata__"] = {"lora_adapter_metadata": dice.choice(
            ("{}", "[]", '{"unet.lora_alpha": 1e999}', '{"unet.r": -1}', '{"unet.alpha_pattern": {"(a+)+$": 1}}', "[" * 5000)
        )}  # fmt: skip
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + content[end:]


def values(content, dice):
    """Numbers that are none, or huge, among the weights."""
    content = bytearray(content)
    start = 8 + int.from_bytes(content[:8], "little")
    for _ in range(dice.choice((1, 3))):
        place = start + 4 * dice.randrange(max(1, (len(content) - start) // 4))
        content[place : place + 4] = dice.choice(
            (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\xff\xff\x7f\x7f", b"\0\0\0\0")
        )
    return bytes(content)


MUTATIONS = (flip, flip, cut, grow, drop, length, header, header, header, values)


def judge(path, unet, before):
    """Reads and applies it; returns whether it was taken."""
    started = time.process_time()
    try:
        weights = read(path)
        layers = {f"{c}.{n}": layer for c, inside in weights.modules.items() for n, layer in inside.items()}
        assert all(t.float().isfinite().all() for layer in layers.values() for t in layer.tensors().values())
        with Applied({"unet": unet}, layers, 1.0):
            pass
        taken = True
    except AdapterError as error:
        assert str(error) and "\n" not in str(error)
        taken = False
    assert time.process_time() - started < LIMIT
    now = unet.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
    assert not any(hasattr(weight, STACK) for weight in unet.parameters())
    return taken


def fuzz(tmp_path, unet, originals, count, seed):
    dice, before = random.Random(seed), {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    path, taken = tmp_path / "a.safetensors", 0
    for content in originals:
        path.write_bytes(content)
        assert judge(path, unet, before), "the originals are sound"
    for _ in range(count):
        content = dice.choice(originals)
        for _ in range(dice.choice((1, 1, 1, 2))):
            if len(content) > 16 and int.from_bytes(content[:8], "little") < len(content) - 16:
                try:
                    content = dice.choice(MUTATIONS)(content, dice)
                except (ValueError, TypeError, LookupError):  # the header is none any more
                    content = flip(content, dice)
        path.write_bytes(content)
        taken += judge(path, unet, before)
    assert taken < count / 2
    return taken


def test_a_thousand_files(tmp_path, unet, originals):
    fuzz(tmp_path, unet, originals, 1000, seed=1)


@pytest.mark.slow
def test_twenty_thousand_files(tmp_path, unet, originals):
    fuzz(tmp_path, unet, originals, 20_000, seed=2)


def test_a_pattern_that_takes_for_ever_is_not_tried(tmp_path):
    """The header's patterns are regular expressions of somebody else's."""
    name = "a" * 60 + "!"
    tensors = {f"unet.{name}.lora_A.weight": torch.ones(2, 3), f"unet.{name}.lora_B.weight": torch.ones(3, 2)}
    told = {"lora_adapter_metadata": json.dumps({"unet.alpha_pattern": {"(a+)+$": 1.0}})}
    (tmp_path / "a.safetensors").write_bytes(files.safetensors_bytes(tensors, told))
    started = time.process_time()
    with pytest.raises(AdapterError, match="pattern"):
        read(tmp_path / "a.safetensors")
    assert time.process_time() - started < 5
