"""The card and the notebook: what they print runs against the pushed copy and draws our sample; what they say and do not say."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard
from local_hub import card_faults
from PIL import Image

import adapt
from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.card import for_repository, is_untouched, notebook, render
from adapt.config.network import NetworkSettings
from adapt.formats import LoHa, LoraWeights
from adapt.lora import install
from adapt.sampling.png import save_png

REPO = "alice/my-style"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawn(made, tiny_base, tmp_path_factory):
    """The adapter with samples that were really drawn with it, and the base's files."""
    folder = tmp_path_factory.mktemp("drawn") / "my-style" / "adapter"
    shutil.copytree(made, folder)
    return folder, draw(folder, tiny_base), {
        path.relative_to(tiny_base).as_posix(): path.read_bytes() for path in tiny_base.rglob("*") if path.is_file()
    }  # fmt: skip


def draw(folder, tiny_base):
    adapter = Adapter.load(folder)
    backbone = Backbone.load(str(tiny_base))
    for sample in adapter.facts.samples:
        (picture,) = adapt.generate(backbone, prompt=sample["prompt"], adapters=[adapter], seed=sample["seed"])
        save_png(folder / sample["file"], picture)
    return folder / "samples" / "01.png"


def snippet(text):
    return next(body for body in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))


def same(picture, path):
    with Image.open(path) as ours:
        difference = np.abs(np.asarray(picture, np.int16) - np.asarray(ours.convert("RGB"), np.int16))
    return difference.max() <= 1


def test_the_snippet_of_the_pushed_card_draws_our_sample(hub, drawn):
    folder, sample, base = drawn
    hub.put("alice/tiny", base)
    adapt.push(folder, REPO)
    names = {}
    exec(compile(snippet(hub[REPO].files["README.md"].decode()), "README.md", "exec"), names)
    assert same(names["picture"], sample)
    plain = names["pipeline"]
    plain.unload_lora_weights()
    assert not same(plain("zqx picture 1", num_inference_steps=2, guidance_scale=2.0).images[0], sample), (
        "the adapter does something"
    )


def test_the_snippet_that_the_hub_makes_itself_draws_our_sample_too(hub, drawn, tmp_path, monkeypatch):
    """huggingface.js: `load_lora_weights(repo)` without a file name, the prompt from the first widget. UIs have a file beside."""
    monkeypatch.setattr("diffusers.loaders.lora_base.HF_HUB_OFFLINE", False)
    folder = tmp_path / "my-style"
    shutil.copytree(drawn[0], folder)
    (folder / "kohya").mkdir()
    shutil.copy(folder / "pytorch_lora_weights.safetensors", folder / "kohya" / "a.safetensors")
    hub.put("alice/tiny", drawn[2])
    adapt.push(folder, REPO)
    widget = ModelCard(hub[REPO].files["README.md"].decode()).data.widget
    pipeline = DiffusionPipeline.from_pretrained("alice/tiny")
    pipeline.load_lora_weights(REPO)
    generator = torch.Generator("cpu").manual_seed(3)
    picture = pipeline(widget[0]["text"], num_inference_steps=2, guidance_scale=2.0, generator=generator).images[0]
    assert same(picture, drawn[1])


def test_samples_with_the_trigger_come_first():
    told = [
        {"file": f"samples/0{n}.png", "prompt": text, "seed": n}
        for n, text in enumerate(("a fox", "ZQX owl", None, "zqx"))
    ]
    text = render("x", Facts(trigger="zqx", samples=tuple(told)))
    assert [entry["text"] for entry in ModelCard(text).data.widget] == ["ZQX owl", "zqx", "a fox"]
    assert "manual_seed(1)" in snippet(text)


@pytest.mark.parametrize(
    ("pipeline", "task"),
    [("StableDiffusionXLPipeline", "text-to-image"), ("FluxKontextPipeline", "image-to-image"), ("WanPipeline", "text-to-video"),
     ("CogVideoXImageToVideoPipeline", "image-to-video"), ("StableAudioPipeline", "text-to-audio"),
     ("DiffusionPipeline", "text-to-image"), ("DiTPipeline", "unconditional-image-generation")],
)  # fmt: skip
def test_the_task_is_the_pipeline_s(pipeline, task):
    data = ModelCard(render("x", Facts(base={"pipeline": pipeline}))).data
    assert data.pipeline_tag == data.tags[0] == task


@pytest.mark.parametrize(
    ("pipeline", "given"),
    [("StableDiffusionXLInpaintPipeline", ["image", "mask_image"]), ("FluxFillPipeline", ["image", "mask_image"]),
     ("FluxKontextPipeline", ["image"]), ("StableDiffusionPipeline", [])],
)  # fmt: skip
def test_the_snippet_gives_a_pipeline_the_pictures_that_it_asks_for(pipeline, given, tmp_path, monkeypatch):
    import inspect

    import diffusers
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("picture", "mask"):
        Image.new("RGB", (8, 8)).save(f"{name}.png")
    text, told = render("x", Facts(base={"pipeline": pipeline})), {}
    names = {"pipeline": lambda prompt, **more: told.update(more) or type("Out", (), {"images": [prompt]})}
    code = snippet(text)
    imports = "\n".join(line for line in code.splitlines() if "import" in line)
    exec(f"{imports}\n{code[code.index('picture = ') :]}", names)
    assert [name for name in told if isinstance(told[name], Image.Image)] == given
    assert set(told) <= set(inspect.signature(getattr(diffusers, pipeline).__call__).parameters)
    (line,) = (line for line in text.splitlines() if line.startswith("adapt generate"))
    assert ("--image picture.png" in line, "--mask mask.png" in line) == ("image" in given, "mask_image" in given)


def test_the_notebook_of_the_pushed_page_runs(hub, drawn):
    folder, sample, base = drawn
    hub.put("alice/tiny", base)
    adapt.push(folder, REPO)
    book = json.loads(hub[REPO].files["notebook.ipynb"])
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 5 and cells[0].startswith("%pip") and (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    names = {}
    for cell in cells[1:]:
        exec(compile(re.sub(r"^(\s*)!.*$", r"\1pass", cell, flags=re.M), "notebook.ipynb", "exec"), names)
    assert same(names["pictures"][2], sample) and not same(names["pictures"][0], sample)
    assert all(set(cell) >= {"id", "metadata", "source"} for cell in book["cells"])


def test_the_card_of_an_adapter_of_icons_runs_where_adapt_is(drawn):
    """Its base comes with the package; nothing else is needed. Only compiled here: `icons` itself draws in tests/api."""
    facts = replace(
        Adapter.read_facts(drawn[0]),
        base={"reference": "icons", "family": "icons", "pipeline": "StableDiffusionPipeline"},
    )
    text = render("demo", facts)
    assert 'bundled()["icons"]' in snippet(text) and "base_model" not in ModelCard(text).data.to_dict()
    compile(snippet(text), "README.md", "exec")


def test_an_adapter_that_only_peft_takes_is_not_tagged_as_lora_and_its_snippet_runs(hub, drawn, tiny_base, tmp_path):
    backbone = Backbone.load(str(tiny_base))
    injection = install(backbone.denoiser, NetworkSettings(kind="loha", rank=2, alpha=2.0), ("to_q", "to_v"), 0)
    layers = injection.layers({name: 0.3 + p.detach() for name, p in injection.parameters.items()})
    injection.remove()
    assert all(isinstance(layer, LoHa) for layer in layers.values())
    facts = Adapter.read_facts(drawn[0])
    told = replace(
        facts,
        training={**facts.training, "kind": "loha"},
        proof={**facts.proof, "reader": "peft"},
        loads_in=("adapt", "peft"),
    )
    folder = tmp_path / "hada"
    Adapter(LoraWeights({"unet": layers}), told, "hada").save(folder)
    (folder / "samples").mkdir()
    sample = draw(folder, tiny_base)
    hub.put("alice/tiny", drawn[2])
    adapt.push(folder, "alice/hada")
    text = hub["alice/hada"].files["README.md"].decode()
    data = ModelCard(text).data
    assert data.library_name == "adapt" and not {"lora", "diffusers", "template:sd-lora"} & set(data.tags)
    names = {}
    exec(compile(snippet(text), "README.md", "exec"), names)
    assert same(names["picture"], sample)
    assert not any("safetensors" in name and "/" not in name for name in hub["alice/hada"].files)


# ------------------------------------------------------------------------------------------------ what it says
def test_it_is_rendered_from_little_and_from_nothing():
    bare = render("x", Facts())
    assert card_faults(bare) == [] and "not recorded" in bare and "folder-of-the-base" in bare and "Not stated" in bare
    compile(snippet(bare), "x", "exec")
    older = Facts(base={"reference": "icons", "family": "icons", "fingerprint": "0"},
                  training={"pictures": 3, "steps": 2, "kind": "lora"},
                  recommended={"scale": 1.0, "guidance_scale": 3.0, "steps": 20}, trigger="zqx")  # fmt: skip
    assert "| steps | 20 |" in render("x", older) and '"zqx",' in snippet(render("x", older))


@pytest.mark.parametrize(
    "word",
    [
        '"quoted" \\ back',
        "new\nline",
        "ünïcode 🎈",
        "{{ jinja }}",
        "--- # yaml: [",
        "`tick` | pipe",
        "$(touch x) $HOME \\",
    ],
)
def test_any_prompt_and_trigger_give_a_valid_card_and_valid_code(word):
    sample = {
        "file": "samples/01.png",
        "prompt": word,
        "seed": 0,
        "steps": 1,
        "guidance_scale": 1.0,
        "width": 8,
        "height": 8,
    }
    facts = Facts(trigger=word, samples=(sample,), recommended={"scale": 1.0, "guidance_scale": 1.0, "steps": 1})
    text = render("x", facts)
    assert card_faults(text) == [] and ModelCard(text).data.to_dict()["instance_prompt"] == word
    (line,) = (line for line in text.splitlines() if line.startswith("adapt generate"))
    command = line.replace("adapt generate", "printf '%s\\n'")
    words = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()
    assert words[:4] == ["--adapter", "x", "--prompt", " ".join(word.split())], "the shell runs nothing of it"
    (row,) = (line for line in text.splitlines() if line.startswith("| trigger words"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    names = {"pipeline": lambda prompt, **_: type("Out", (), {"images": [prompt]})}
    code = snippet(text)
    exec("import torch\n" + code[code.index("picture = ") :], names)
    assert names["picture"] == word
    cells = json.loads(notebook("x", facts, "me/x"))["cells"]
    assert all(
        compile(re.sub(r"^(\s*)[!%].*$", r"\1pass", "".join(c["source"]), flags=re.M), "x", "exec")
        for c in cells
        if c["cell_type"] == "code"
    )


def test_samples_of_captions_are_shown_without_their_words(drawn):
    facts = Adapter.read_facts(drawn[0])
    hidden = replace(facts, samples=tuple({**sample, "prompt": None} for sample in facts.samples))
    text = render("x", hidden)
    assert "picture 1" not in text and "widget" not in ModelCard(text).data.to_dict() and '"zqx"' in snippet(text)


def test_a_stamp_notices_a_change_and_only_that():
    text = render("x", Facts())
    assert is_untouched(text) and is_untouched(text.replace("\n", "\r\n")) and is_untouched(text + "\n\n")
    assert not is_untouched(text.replace("Use it", "Use  it")) and not is_untouched("# mine\n")
    moved = for_repository(text, "x", "me/x")
    assert is_untouched(moved) and "adapt generate --adapter me/x " in moved and "# x\n" in moved


def test_equal_facts_are_equal_bytes(drawn):
    facts = Adapter.read_facts(drawn[0])
    assert render("a", facts) == render("a", facts) and notebook("a", facts, "me/a") == notebook("a", facts, "me/a")


def test_the_card_of_the_demo_in_this_repository_is_what_is_rendered_today():
    """Its facts, of the run that it tells of, are in `tests/facts/`: where the template changes, it is rendered anew."""
    told = json.loads((ROOT / "tests" / "facts" / "openmoji_card.json").read_text("utf-8"))
    facts = Facts(**{name: value for name, value in told.items() if name != "schema"})
    card = (ROOT / "model_cards" / "openmoji.md").read_text("utf-8")
    assert is_untouched(card), "a person changed it: it is rendered, not written"
    assert card == render("demo", facts), "write what is rendered now into model_cards/openmoji.md"
