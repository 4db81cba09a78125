"""Names of layers: kohya's own lists one for one at real size, every layer there and back, and fused weights split exactly."""

import functools
import json
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.errors import AdapterError
from adapt.formats import Dora, LoHa, LoKr, LoraWeights, Pair, read, write_kohya
from adapt.formats.dialects import WRITTEN, dialect_of, write
from adapt.formats.encoder_names import in_files, in_memory
from adapt.formats.kohya import placer
from adapt.formats.names.families import FAMILIES
from adapt.formats.names.words import dotted, flat

FACTS = Path(__file__).parents[1] / "facts"
CONFIGS = json.loads((FACTS / "model_configs.json").read_text("utf-8"))
REAL = {"sd1": "sd15", "sdxl": "sdxl", "sd3": "sd3-medium", "flux": "flux1-dev"}
LISTS = {"sd1": ("sd15", 192), "sdxl": ("sdxl", 722), "sd3": ("sd3", 237), "flux": ("flux", 304)}
LAYERS = torch.nn.Linear | torch.nn.Conv2d


@pytest.fixture(scope="session")
def real():
    """Denoisers of the real sizes, without memory: name → module → shape of its weight."""
    found = {}
    for family, name in REAL.items():
        config = CONFIGS[name]
        with torch.device("meta"):
            model = getattr(diffusers, config["class"])(**config["arguments"])
        found[family] = {n: tuple(m.weight.shape) for n, m in model.named_modules() if isinstance(m, LAYERS)}
    return found


def rows(family):
    """kohya-ss/sd-scripts' own list (48d368f): module → (shape of down, shape of up)."""
    name, count = LISTS[family]
    found = [line.split("\t") for line in (FACTS / f"kohya_keys_{name}.tsv").read_text("utf-8").splitlines()[1:]]
    assert len(found) == count
    return {module: (down, up) for module, down, up in found}


def targets(family, layers):
    """What kohya's scripts train by default, in diffusers' names."""
    if family in ("sd1", "sdxl"):
        return {name for name in layers if ".attentions." in name}
    return {name for name in layers if "transformer_blocks." in name}


@pytest.mark.parametrize("family", LISTS)
def test_kohyas_names_are_ours_one_for_one_with_their_shapes(real, family):
    layers, place, covered = real[family], placer(dict.fromkeys(rows(family))), set()
    for key, (down, up) in rows(family).items():
        native = place(key).native
        shapes = [layers[module] for module in native.modules]
        (inside,) = {shape[1] for shape in shapes}
        ones = "".join(f"x{k}" for k in shapes[0][2:])
        assert (down, up) == (f"rx{inside}{ones}", f"{sum(s[0] for s in shapes)}xr{ones}"), key
        unit = sum(s[0] for s in shapes) // sum(native.shares)
        assert [s[0] for s in shapes] == [share * unit for share in native.shares], key
        assert not covered & set(native.modules)
        covered |= set(native.modules)
    assert covered == targets(family, layers)


@pytest.mark.parametrize("family", LISTS)
def test_diffusers_names_are_kohyas_one_for_one(real, family):
    names = FAMILIES[family].names
    own = (
        {f"lora_unet_{flat(n)}" for n in targets(family, real[family])}
        if family == "sd1"
        else {f"lora_unet_{flat(names.of_module(n)[0].name)}" for n in targets(family, real[family])}
    )
    assert own == set(rows(family))


@pytest.mark.parametrize("family", LISTS)
def test_every_layer_of_the_denoiser_has_a_native_name_and_comes_back(real, family):
    """Layers outside the blocks too: time, text and picture embeddings, the last ones, convolutions."""
    names = FAMILIES[family].names
    for module in real[family]:
        native, place = names.of_module(module)
        assert native.modules[place] == module
        assert names.of_native(native.name) == native == names.of_native(flat(native.name), underscored=True)
        assert dotted(flat(module)) == module


def test_text_encoders_keep_their_names():
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    with torch.device("meta"):
        clip = CLIPTextConfig(num_hidden_layers=2)
        encoders = [CLIPTextModel(clip), CLIPTextModelWithProjection(clip),
                    T5EncoderModel(T5Config(num_layers=2, feed_forward_proj="gated-gelu"))]  # fmt: skip
    for encoder in encoders:
        names = [n for n, layer in encoder.named_modules() if isinstance(layer, LAYERS)]
        names = [in_memory("text_encoder", name) for name in names]
        files = [in_files("text_encoder", name) for name in names]
        assert len(names) > 10 and [dotted(flat(name)) for name in files] == files
    assert all(name.startswith("text_model.") for name in [in_files("text_encoder", "encoder.layers.0.mlp.fc1")])


# ----------------------------------------------------------------------------------------------------- with numbers, tiny
def tiny(family):
    """A denoiser of the family with few, narrow layers of every kind."""
    torch.manual_seed(0)
    if family == "flux":
        return diffusers.FluxTransformer2DModel(
            in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=12, pooled_projection_dim=6, guidance_embeds=True, axes_dims_rope=(2, 2, 4),
        )  # fmt: skip
    return diffusers.SD3Transformer2DModel(
        sample_size=8, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=12,
        caption_projection_dim=16, pooled_projection_dim=6, out_channels=4, pos_embed_max_size=8, dual_attention_layers=(0,),
    )  # fmt: skip


@pytest.fixture(scope="session")
def shapes():
    models = {family: tiny(family) for family in ("sd3", "flux")}
    return {
        f: {n: tuple(m.weight.shape) for n, m in model.named_modules() if isinstance(m, LAYERS)}
        for f, model in models.items()
    }


def random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(shape, seed, rank=2, alpha=3.0):
    ones = [1] * (len(shape) - 2)
    return Pair(random(rank, *shape[1:], seed=seed), random(shape[0], rank, *ones, seed=seed + 1000), alpha)


def weights_of(layers, make=pair, only=None):
    chosen = [(i, n, s) for i, (n, s) in enumerate(layers.items()) if only is None or n.endswith(only)]
    assert chosen
    return LoraWeights({"transformer": {name: make(shape, seed) for seed, name, shape in chosen}})


def same_effect(ours, theirs, tolerance=1e-5):
    """Layer by layer, whatever kind each side holds."""
    assert ours.modules.keys() == theirs.modules.keys()
    for component, layers in ours.modules.items():
        assert layers.keys() == theirs.modules[component].keys()
        for name, layer in layers.items():
            weight = random(*layer.size, seed=7)
            other = theirs.modules[component][name]
            for scale in (1.0, 0.5):
                difference = layer.merged(weight, scale) - other.merged(weight, scale).reshape(weight.shape)
                assert float(difference.abs().max()) <= tolerance * max(1.0, float(weight.abs().max())), name


@pytest.mark.parametrize("family", ["sd3", "flux"])
@pytest.mark.parametrize(
    "only", [None, ("to_q", "to_v"), ("to_k",), ("proj_mlp", "add_q_proj"), ("norm1_context.linear",)]
)
def test_lora_comes_back_from_kohyas_file_bit_for_bit(tmp_path, shapes, family, only):
    """q, k, v of their own ranks in one fused layer; some of them missing; shift and scale in the other order."""
    if only == ("proj_mlp", "add_q_proj") and family == "sd3":
        only = ("add_q_proj",)
    weights = weights_of(shapes[family], only=only)
    written = write_kohya(tmp_path / "a.safetensors", weights, family=FAMILIES[family])
    assert read(tmp_path / "a.safetensors").equals(weights) and written.equals(weights)


def test_ranks_may_differ_between_q_k_and_v(tmp_path, shapes):
    ranks = {"to_q": 1, "to_k": 3, "to_v": 4, "proj_mlp": 5}
    weights = LoraWeights(
        {
            "transformer": {
                n: pair(s, i, ranks[n.rpartition(".")[2]], 0.5 * ranks[n.rpartition(".")[2]])
                for i, (n, s) in enumerate(shapes["flux"].items())
                if n.startswith("single") and n.endswith(tuple(ranks))
            }
        }
    )
    write_kohya(tmp_path / "a.safetensors", weights)
    assert read(tmp_path / "a.safetensors").equals(weights)


def test_strengths_that_differ_between_q_k_and_v_are_equal_in_effect(tmp_path, shapes):
    make = lambda shape, seed: pair(shape, seed, alpha=1.0 + seed % 3)  # noqa: E731
    weights = weights_of(shapes["flux"], make, only=("to_q", "to_k", "to_v"))
    write_kohya(tmp_path / "a.safetensors", weights, family=FAMILIES["flux"])
    same_effect(weights, read(tmp_path / "a.safetensors"), 1e-6)


def test_a_file_of_kohyas_whose_q_k_v_share_a_comes_back_bit_for_bit(tmp_path, shapes):
    """kohya's own scripts train one A for the three."""
    tensors = {}
    for name, out in (("double_blocks_0_img_attn_qkv", 48), ("single_blocks_1_linear1", 16 * 7)):
        tensors |= {
            f"lora_unet_{name}.lora_down.weight": random(4, 16, seed=out),
            f"lora_unet_{name}.lora_up.weight": random(out, 4, seed=1),
            f"lora_unet_{name}.alpha": torch.tensor(2.0),
        }
    save_file(tensors, tmp_path / "theirs.safetensors")
    read_once = read(tmp_path / "theirs.safetensors")
    assert len(read_once) == 7
    fused = torch.cat([read_once.modules["transformer"][f"transformer_blocks.0.attn.to_{x}"].delta() for x in "qkv"])
    down, up = (tensors[f"lora_unet_double_blocks_0_img_attn_qkv.lora_{x}.weight"] for x in ("down", "up"))
    assert torch.allclose(fused, 0.5 * up @ down, atol=1e-6)
    write_kohya(tmp_path / "ours.safetensors", read_once)
    ours = load_file(tmp_path / "ours.safetensors")
    assert ours.keys() == tensors.keys() and all(ours[key].equal(tensors[key]) for key in tensors)


def test_shift_and_scale_change_places_only_where_diffusers_has_them_the_other_way(tmp_path, shapes):
    """The last block of Stable Diffusion 3 has AdaLN-continuous on the text side: (2 d, d) instead of (6 d, d)."""
    weights = weights_of(shapes["sd3"], only=("norm1_context.linear", "norm_out.linear"))
    write_kohya(tmp_path / "a.safetensors", weights, family=FAMILIES["sd3"])
    tensors = load_file(tmp_path / "a.safetensors")
    layers = weights.modules["transformer"]
    last = tensors["lora_unet_joint_blocks_1_context_block_adaLN_modulation_1.lora_up.weight"]
    assert last.equal(torch.cat(layers["transformer_blocks.1.norm1_context.linear"].up.chunk(2)[::-1]))
    first = tensors["lora_unet_joint_blocks_0_context_block_adaLN_modulation_1.lora_up.weight"]
    assert first.equal(layers["transformer_blocks.0.norm1_context.linear"].up)


def dora(shape, seed):
    plain = pair(shape, seed)
    return Dora(plain.down, plain.up, 3.0, random(shape[0], 1, seed=seed + 5).abs() + 1)


def loha(shape, seed):
    out, inside = shape
    return LoHa(*(random(*s, seed=seed + k) for k, s in enumerate(((out, 2), (2, inside), (out, 2), (2, inside)))), 3.0)


def lokr(shape, seed):
    """The right factor is the same for all, as it must be for a Kronecker product of the three together."""
    out, inside = shape
    return LoKr(3.0, w1=random(out // 8, inside // 4, seed=seed), w2_a=random(8, 2, seed=1), w2_b=random(2, 4, seed=2))


@pytest.mark.parametrize("make", [dora, loha, lokr])
def test_other_kinds_are_equal_in_effect_there_and_back(tmp_path, shapes, make):
    weights = weights_of(shapes["flux"], make, only=("to_q", "to_k", "to_v", "proj_mlp", "ff.net.2", "norm_out.linear"))
    write_kohya(tmp_path / "a.safetensors", weights)
    same_effect(weights, read(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("left", [(7, 4), (28, 16)])
def test_a_kronecker_product_over_q_k_v_and_mlp_is_read_right_where_its_blocks_do_not_end_with_them(tmp_path, left):
    """LyCORIS cuts 7 d rows as it likes; the parts are then rows of it, and it goes back as it was."""
    a, c = left
    tensors = {
        "lora_unet_single_blocks_0_linear1.lokr_w1": random(a, c, seed=0),
        "lora_unet_single_blocks_0_linear1.lokr_w2": random(112 // a, 16 // c, seed=1),
        "lora_unet_single_blocks_0_linear1.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors").modules["transformer"]
    names = [f"single_transformer_blocks.0.{n}" for n in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    whole = torch.kron(
        tensors["lora_unet_single_blocks_0_linear1.lokr_w1"], tensors["lora_unet_single_blocks_0_linear1.lokr_w2"]
    )
    assert torch.allclose(torch.cat([found[name].delta() for name in names]), whole, atol=1e-6)
    write_kohya(tmp_path / "b.safetensors", read(tmp_path / "a.safetensors"))
    again = load_file(tmp_path / "b.safetensors")
    assert again.keys() == tensors.keys() and all(again[key].equal(tensors[key]) for key in tensors)


def test_a_kronecker_product_cut_inside_a_block(tmp_path):
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {f"{name}.lokr_w1": random(4, 4, seed=0), f"{name}.lokr_w2": random(12, 4, seed=1)}
    save_file(tensors, tmp_path / "a.safetensors")
    weights = read(tmp_path / "a.safetensors")
    found = [weights.modules["transformer"][f"transformer_blocks.0.attn.to_{x}"] for x in "qkv"]
    whole = torch.kron(*tensors.values())
    assert torch.allclose(torch.cat([layer.delta() for layer in found]), whole, atol=1e-6)
    write_kohya(tmp_path / "b.safetensors", weights, family=FAMILIES["flux"])
    assert read(tmp_path / "b.safetensors").equals(weights)


@pytest.mark.parametrize("family", ["sdxl", "sd1"])
def test_text_encoders_have_kohyas_prefixes(tmp_path, family):
    component = "text_encoder_2" if family == "sdxl" else "text_encoder"
    block = "down_blocks.1.attentions.0.transformer_blocks.0"
    weights = LoraWeights(
        {
            "unet": {f"{block}.attn2.to_k": pair((32, FAMILY_WIDTH[family]), 0)},
            "text_encoder": {"encoder.layers.0.self_attn.q_proj": pair((8, 8), 1)},
            component: {"encoder.layers.0.mlp.fc1": pair((32, 8), 2)},
        }
    )
    write_kohya(tmp_path / "a.safetensors", weights)
    prefix = "lora_te2" if family == "sdxl" else "lora_te"
    names = {key.partition(".")[0] for key in load_file(tmp_path / "a.safetensors")}
    assert f"{prefix}_text_model_encoder_layers_0_mlp_fc1" in names
    if family == "sdxl":
        assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj" in names
        assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k" in names
    assert read(tmp_path / "a.safetensors").equals(weights)


FAMILY_WIDTH = {"sd1": 768, "sdxl": 2048}


# ------------------------------------------------------------------------------------------------------ the other dialects
EXPRESSED = {"xlabs": ("attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj", "attn.to_add_out")}
"""What a dialect has names for, where that is not everything."""


@pytest.mark.parametrize("family", ["sd3", "flux"])
@pytest.mark.parametrize("dialect", [*WRITTEN])
def test_lora_comes_back_from_every_dialect_bit_for_bit(tmp_path, shapes, family, dialect):
    if (dialect, family) in {("bfl", "sd3"), ("xlabs", "sd3")}:
        with pytest.raises(AdapterError, match="another family"):
            write(tmp_path / "a.safetensors", weights_of(shapes["sd3"]), WRITTEN[dialect], {}, FAMILIES["sd3"])
        return
    of_rank = functools.partial(pair, alpha=2.0)  # dialects without alpha hold a factor of 1 as it is
    weights = weights_of(shapes[family], of_rank, EXPRESSED.get(dialect))
    written = write(tmp_path / "a.safetensors", weights, WRITTEN[dialect], {}, FAMILIES[family])
    assert dialect_of(load_file(tmp_path / "a.safetensors"), tmp_path).name in (dialect, "diffusers")
    assert read(tmp_path / "a.safetensors").equals(weights) and written.equals(weights)


@pytest.mark.parametrize("dialect", [*WRITTEN])
@pytest.mark.parametrize("alpha", [1.0, 3.0, 0.7])
def test_strength_is_the_same_in_every_dialect(tmp_path, shapes, dialect, alpha):
    weights = weights_of(shapes["flux"], functools.partial(pair, alpha=alpha), ("attn.to_q", "attn.to_k", "attn.to_v"))
    write(tmp_path / "a.safetensors", weights, WRITTEN[dialect], {}, FAMILIES["flux"])
    same_effect(weights, read(tmp_path / "a.safetensors"), 1e-6)


@pytest.mark.parametrize("dialect", ["comfyui", "omi", "onetrainer", "simpletuner"])
@pytest.mark.parametrize("make", [dora, loha, lokr])
def test_other_kinds_in_other_dialects(tmp_path, shapes, dialect, make):
    weights = weights_of(shapes["flux"], make, only=("to_q", "to_k", "to_v", "proj_mlp", "ff.net.2"))
    write(tmp_path / "a.safetensors", weights, WRITTEN[dialect], {}, FAMILIES["flux"])
    same_effect(weights, read(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("dialect", ["comfyui", "omi"])
def test_unets_and_text_encoders_in_other_dialects(tmp_path, dialect):
    block = "down_blocks.1.attentions.0.transformer_blocks.0"
    weights = LoraWeights(
        {
            "unet": {
                f"{block}.attn2.to_k": pair((32, 2048), 0),
                "up_blocks.0.upsamplers.0.conv": pair((8, 8, 3, 3), 1),
                "conv_in": pair((8, 4, 3, 3), 2),
            },
            "text_encoder_2": {"encoder.layers.0.mlp.fc1": pair((32, 8), 3)},
        }
    )
    write(tmp_path / "a.safetensors", weights, WRITTEN[dialect], {})
    assert read(tmp_path / "a.safetensors").equals(weights)


@pytest.mark.parametrize(
    ("dialect", "change", "message"),
    [
        ("xlabs", {}, "no name for a layer"),
        ("bfl", {"text_encoder": {"encoder.layers.0.mlp.fc1": None}}, "component"),
        ("simpletuner", {"text_encoder": {"encoder.layers.0.mlp.fc1": None}}, "component"),
        ("ai-toolkit", {"text_encoder": {"encoder.layers.0.mlp.fc1": None}}, "component"),
    ],
)
def test_what_a_dialect_cannot_say_is_refused_and_nothing_written(tmp_path, shapes, dialect, change, message):
    encoders = {c: {n: pair((8, 8), 0) for n in layers} for c, layers in change.items()}
    weights = LoraWeights({**weights_of(shapes["flux"]).modules, **encoders})
    with pytest.raises(AdapterError, match=message):
        write(tmp_path / "a.safetensors", weights, WRITTEN[dialect], {}, FAMILIES["flux"])
    assert not list(tmp_path.iterdir())


def test_kinds_that_a_dialect_without_alpha_cannot_hold_are_refused_with_what_to_do(tmp_path, shapes):
    weights = weights_of(shapes["flux"], loha, only=("to_q",))
    for dialect in ("bfl", "xlabs", "ai-toolkit"):
        with pytest.raises(AdapterError, match="--nearest"):
            write(tmp_path / "a.safetensors", weights, WRITTEN[dialect], {}, FAMILIES["flux"])
