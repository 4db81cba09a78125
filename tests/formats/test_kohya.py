"""kohya's dialect: its names one for one, exact numbers both ways, and diffusers' own converter as the judge."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.errors import AdapterError
from adapt.formats import LoraWeights, Pair, read, read_kohya, write_kohya
from adapt.formats.described import Description
from adapt.formats.kohya import kohya_name, module_name

FACTS = Path(__file__).parents[1] / "facts" / "kohya_keys_sd15.tsv"
"""Every module that kohya-ss/sd-scripts (48d368f) gives a LoRA in SD 1.5, with its shapes."""


@pytest.fixture(scope="module")
def sd15():
    """SD 1.5's UNet in its real size, without memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def is_target(name, layer):
    """kohya's default: linear layers and 1 × 1 convolutions inside `Transformer2DModel`."""
    return ".attentions." in name and isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)


def test_names_and_shapes_are_kohyas_one_for_one(sd15):
    rows = [line.split("\t") for line in FACTS.read_text("utf-8").splitlines()[1:]]
    layers = {kohya_name(n): layer.weight.shape for n, layer in sd15.named_modules() if is_target(n, layer)}
    assert len(rows) == 192 and {row[0] for row in rows} == set(layers)
    for name, down, up in rows:
        out, inside, *kernel = layers[name]
        ones = "".join(f"x{k}" for k in kernel)
        assert (down, up) == (f"rx{inside}{ones}", f"{out}xr{ones}")


def test_every_layer_of_the_unet_keeps_its_name_there_and_back(sd15):
    names = [n for n, layer in sd15.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(names) > 250 and [module_name(kohya_name(n)) for n in names] == names


def weights(width=768, rank=4, alpha=2.5):
    def pair(seed, inside, out):
        dice = torch.Generator().manual_seed(seed)
        return Pair(torch.randn(rank, inside, generator=dice), torch.randn(out, rank, generator=dice), alpha)

    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    return LoraWeights({"unet": {f"{block}.attn1.to_q": pair(0, 32, 32), f"{block}.attn2.to_k": pair(1, width, 32)}})


@pytest.mark.parametrize(("width", "version"), [(768, "sd_v1"), (1024, "sd_v2")])
def test_numbers_and_strength_survive_and_the_base_is_told(tmp_path, width, version):
    path = tmp_path / "a.safetensors"
    write_kohya(path, weights(width), told=Description("style", triggers=("zxc",)))
    again = read(path)
    assert again.equals(weights(width)) and not again.equals(weights(width, alpha=4))
    assert again.metadata["ss_base_model_version"] == version
    assert again.metadata["ss_network_dim"] == "4" and again.metadata["ss_network_alpha"] == "2.5"
    assert again.metadata["modelspec.trigger_phrase"] == "zxc"
    assert load_file(path)["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha"].ndim == 0


def test_equal_weights_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_kohya(tmp_path / name, weights())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_missing_alpha_is_the_rank(tmp_path):
    path = tmp_path / "a.safetensors"
    write_kohya(path, weights(alpha=2.5))
    save_file({k: v for k, v in load_file(path).items() if not k.endswith("alpha")}, path)
    assert {pair.alpha for pair in read_kohya(path).modules["unet"].values()} == {4.0}


@pytest.mark.parametrize("width", [384, 1280])
def test_a_base_that_no_such_program_has_is_refused_and_nothing_written(tmp_path, width):
    with pytest.raises(AdapterError, match="768"):
        write_kohya(tmp_path / "a.safetensors", weights(width))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "holds only lora_down"),
        ("lora_unet_mid_block_attentions_0_proj_in.oft_diag", "an older OFT"),
        ("lora_unet_mid_block_attentions_0_proj_in.diff", "whole difference"),
        ("lora_unet_mid_block_attentions_0_norm.w_norm", "weight of a norm"),
        ("lora_unet_conv_in.diff_b", "a bias"),
        ("lora_unet_mid_block_attentions_0_proj_in.bm.weight", "GLoRA with a core"),
        ("lora_unet_mid_block_attentions_0_proj_in.something", "no part of an adapter's layer"),
    ],
)
def test_what_is_not_read_is_refused_by_name_and_reason(tmp_path, key, reason):
    path = tmp_path / "a.safetensors"
    write_kohya(path, weights())
    save_file({**load_file(path), key: torch.ones(2, 2)}, path)
    with pytest.raises(AdapterError, match=reason) as refused:
        read(path)
    assert key.split(".")[0] in str(refused.value)


def test_changes_of_nothing_are_no_reason_to_refuse(tmp_path):
    """Trainers write zeros for biases that they did not train."""
    path = tmp_path / "a.safetensors"
    write_kohya(path, weights())
    save_file({**load_file(path), "lora_unet_conv_in.diff_b": torch.zeros(4)}, path)
    assert read(path).equals(weights())


def test_half_a_pair_and_numbers_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_kohya(path, weights())
    tensors = load_file(path)
    first = next(name for name in tensors if name.endswith("lora_up.weight"))
    save_file({k: v for k, v in tensors.items() if k != first}, path)
    with pytest.raises(AdapterError, match="holds only"):
        read(path)
    save_file({**tensors, first: tensors[first] * float("nan")}, path)
    with pytest.raises(AdapterError, match="not finite"):
        read(path)


@pytest.fixture(scope="module")
def wide(tmp_path_factory, make_tiny):
    """A tiny base that takes text of width 768, as SD 1.x does."""
    folder = tmp_path_factory.mktemp("wide")
    make_tiny(text_width=768).save_pretrained(folder)
    return folder


def random_adapter(backbone, targets):
    pairs = {}
    for number, (name, layer) in enumerate(backbone.denoiser.named_modules()):
        if name.endswith(targets) and hasattr(layer, "weight"):
            dice = torch.Generator().manual_seed(number)
            out, *inside = layer.weight.shape
            ones = [1] * (len(inside) - 1)
            up, down = torch.randn(out, 2, *ones, generator=dice), torch.randn(2, *inside, generator=dice)
            pairs[name] = Pair(down * 0.1, up * 0.1, 3.0)
    assert pairs
    return Adapter(LoraWeights({"unet": pairs}), Facts(), "style")


def test_diffusers_reads_the_file_and_predicts_the_same(wide, tmp_path):
    backbone = Backbone.load(str(wide))
    adapter = random_adapter(backbone, ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"))
    path = tmp_path / "style.safetensors"
    adapter.export(path, "kohya")
    pipeline = StableDiffusionPipeline.from_pretrained(wide)
    pipeline.load_lora_weights(tmp_path, weight_name=path.name)
    taken = sum(".lora_A." in name for name, _ in pipeline.unet.named_parameters())
    assert taken == len(adapter.weights)
    theirs = type(backbone)(pipeline, "theirs")
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([10, 700])
    condition = backbone.condition(["a", "b"])
    with torch.no_grad():
        plain = backbone.predict(x, t, condition)
        with Adapter.load(path).apply(backbone):
            ours = backbone.predict(x, t, condition)
        assert (ours - theirs.predict(x, t, condition)).abs().max() < 1e-5 < (ours - plain).abs().max()


def test_the_command_exports_once_and_never_overwrites(wide, tmp_path, capsys):
    adapter = random_adapter(Backbone.load(str(wide)), ("to_q", "to_k"))
    adapter.save(tmp_path / "style")
    path = tmp_path / "out" / "style.safetensors"
    words = ["export", str(tmp_path / "style"), "--output", str(path)]
    assert main(words) == 0 and capsys.readouterr().out.strip() == str(path)
    assert Adapter.load(path).weights.equals(adapter.weights)
    assert main(words) == 2 and "there already" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "style"), "--format", "onnx"]) == 2


def test_a_run_on_such_a_base_leaves_the_file_beside(wide, pictures, tmp_path):
    import adapt

    settings = adapt.TrainSettings(steps=1, batch_size=1, rank=2, sampling_steps=1, trigger="zxc")
    result = adapt.train(pictures, base=str(wide), output=tmp_path / "style", settings=settings)
    file = tmp_path / "style" / "adapter" / "kohya" / "style.safetensors"
    assert read(file).equals(result.adapter.weights)
    assert "ComfyUI" in result.adapter.facts.loads_in
