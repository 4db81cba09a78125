"""What the documentation says is true: its commands run, its settings exist, its links lead somewhere."""

import ast
import json
import re
import runpy
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import typer
import yaml

import adapt
from adapt.adapter import Adapter, Facts
from adapt.cli.main import app, main
from adapt.config import TrainSettings, require_known
from adapt.config.table import markdown, ordered
from adapt.sampling import schedulers
from adapt.sampling.prompts import OPTIONS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
         *(ROOT / folder / "README.md" for folder in ("training_scripts", "benchmarks", "model_cards"))]  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
PROGRAMS = ("adapt", "make", "accelerate", "torchrun", "python")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, *languages):
    """Fenced blocks of these languages; "" is none."""
    return [body for language, body in FENCE.findall(page.read_text("utf-8")) if language in languages]


def commands(*programs):
    """(page, words) of every fenced command; comments are cut off."""
    found = []
    for page in PAGES:
        for body in blocks(page, "", "bash", "sh", "console"):
            for line in body.replace("\\\n", " ").splitlines():
                words = line.removeprefix("$ ").split(maxsplit=1)
                if words and words[0] in programs:
                    found.append((name_of(page), tuple(shlex.split(line.removeprefix("$ "), comments=True))))
    return list(dict.fromkeys(found))


def of(found, command):
    """The commands whose second word is this one."""
    return [(page, words) for page, words in found if words[1] == command]


def shown(value):
    return " ".join(value) if isinstance(value, tuple) else value


ADAPT = commands("adapt")
EDITING = "docs/edit.md"
"""Its commands need a base that edits."""
FILLING = "docs/inpainting.md"
"""Its commands need one that fills holes."""
TOOLS = ("inspect", "verify", "diff", "merge", "resize", "extract", "convert-embedding")
"""The commands on adapter files, which docs/adapter-tools.md shows."""
ELSEWHERE = "docs/sharing.md"
"""Its commands need a Hub: tests/hub/test_sharing_page.py runs them all."""


def test_the_collectors_find_something():
    pages = {page for page, _ in commands(*PROGRAMS)}
    assert {"README.md", "docs/data.md", "docs/training.md", "docs/generating.md"} <= pages
    known = {"ask", "report", "check", "train", "generate", "sweep", "explain", "export", "demo"}
    known |= {"classes", "bases", "card", "push", "pull", "caption", "mask", *TOOLS}
    assert {words[1] for _, words in ADAPT} == known
    assert len(of(ADAPT, "train")) >= 8 and len(of(ADAPT, "generate")) >= 10
    assert {words[0] for _, words in commands(*PROGRAMS)} == set(PROGRAMS)


# ------------------------------------------------------------------------------------------------ commands
@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_base, pictures, control_net, ip_adapter):
    """A folder that holds what the commands name: pictures, an adapter, pictures to draw over, prompt files."""
    from PIL import Image

    here = tmp_path_factory.mktemp("workplace")
    shutil.copytree(pictures, here / "my-pictures")
    for name in ("examples", "training_scripts"):
        (here / name).symlink_to(ROOT / name, target_is_directory=True)
    (here / "control_v11p_sd15_canny").symlink_to(control_net, target_is_directory=True)
    (here / "IP-Adapter").symlink_to(ip_adapter.parent, target_is_directory=True)
    for name in ("sketch.png", "photo.png", "edges.png"):
        shutil.copy(pictures / "00.png", here / name)
    (here / "wildcards").mkdir()
    (here / "wildcards" / "animal.txt").write_text("fox\nowl\n", "utf-8")
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (4, 4, 12, 12))
    mask.save(here / "mask.png")
    (here / "my.yaml").write_text(next(iter(blocks(ROOT / "docs" / "training.md", "yaml"))), "utf-8")
    prompts = [body for body in blocks(ROOT / "docs" / "generating.md", "") if body.startswith(("penguin --n", "{"))]
    for name, body in zip(("prompts.txt", "prompts.jsonl"), prompts, strict=True):
        (here / name).write_text(re.sub("--([wh]) 64", r"--\1 16", body), "utf-8")
    for name in ("held-out", "my-dog", "other-dogs"):
        shutil.copytree(pictures, here / name)
    for name, start in (("my-sources.yaml", "sources:"), ("dataset.toml", "[general]")):
        lists = blocks(ROOT / "docs" / "data.md", "", "toml")
        (here / name).write_text(
            next(body for body in lists if body.startswith(start)).replace("= 512", "= 16"), "utf-8"
        )
    run = here / "runs" / "my-style"
    words = ["steps=1", "batch_size=4", "rank=2", "sampling_steps=1", "previews=[one]"]
    assert main(["train", str(pictures), "--base", str(tiny_base), "--output", str(run), *words]) == 0
    for name, labels in (("my-classes", ("goldfinch", "canary")), ("more-classes", ("owl",))):
        for number, label in enumerate(labels):
            (here / name / label).mkdir(parents=True)
            for place in range(3):
                shutil.copy(pictures / f"{3 * number + place:02d}.png", here / name / label)
    taught = [*words, "classes=true", "validation=0"]
    told = ["--base", str(tiny_base), "--output", str(here / "runs" / "birds")]
    assert main(["train", str(here / "my-classes"), *told, *taught]) == 0
    for name, taught in (("like", "image_prompts=true"), ("along", "control=edges")):
        told = ["--base", str(tiny_base), "--output", str(here / "runs" / name)]
        assert main(["train", str(pictures), *told, *words, taught]) == 0
    shutil.copy(run / "adapter" / "pytorch_lora_weights.safetensors", here / "other.safetensors")
    return here


@pytest.fixture
def at_work(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


@pytest.mark.parametrize(
    ("page", "words"), [c for c in of(ADAPT, "train") if c[0] not in (EDITING, FILLING)], ids=shown
)
def test_train_commands_run_dry(page, words, at_work, tiny_base, capsys):
    before = sorted(at_work.rglob("*"))
    assert main([*words[1:], "--dry-run", "--base", str(tiny_base)]) == 0, capsys.readouterr().err
    assert sorted(at_work.rglob("*")) == before, "a dry run writes nothing"
    told = capsys.readouterr().out
    assert "learning_rate" in told
    assert "--settings" in words or "nothing was trained" in told


@pytest.mark.parametrize(
    ("page", "words"), [c for c in of(ADAPT, "generate") if c[0] not in (ELSEWHERE, EDITING, FILLING)], ids=shown
)
def test_generate_commands_draw(page, words, at_work, tiny_base, tmp_path, capsys):
    small = ["--base", str(tiny_base), "--steps", "2", "--device", "cpu", "--output", str(tmp_path)]
    if "--size" in words:
        small += ["--size", "16"]
    assert main([*words[1:], *small]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    made = [picture["path"] for picture in json.loads(told)["pictures"]] if "--json" in words else told.split("\n")[:-1]
    assert made and all(Path(path).is_file() for path in made)


@pytest.mark.parametrize(("page", "words"), [c for c in ADAPT if c[1][1] not in ("train", "generate")], ids=shown)
def test_other_commands_are_known_to_the_parser(page, words):
    command = typer.main.get_command(app).commands[words[1]]
    command.make_context(words[1], list(words[2:]))


def save_other_kinds(adapter, folder):
    """A DoRA and a LoHa of the same layers."""
    import torch

    from adapt.formats import Dora, LoHa, LoraWeights

    pairs = {name: pair for name, pair in adapter.weights.modules["unet"].items() if pair.down.ndim == 2}
    doras = {n: Dora(pair.down, pair.up, 1.0, torch.ones(len(pair.up), 1)) for n, pair in pairs.items()}
    lohas = {n: LoHa(pair.up, pair.down, 1 + pair.up, 1 + pair.down, 1.0) for n, pair in pairs.items()}
    for name, layers in (("my-dora", doras), ("my-loha", lohas)):
        Adapter(LoraWeights({"unet": layers})).save(folder / name)


def test_commands_on_adapter_files_run_in_their_order(workplace, tiny_base, tmp_path, monkeypatch, capsys):
    """All of the page's, one after the other: later ones use what earlier ones wrote."""
    import torch
    from safetensors.torch import save_file

    shutil.copytree(workplace / "runs", tmp_path / "runs")
    shutil.copy(workplace / "other.safetensors", tmp_path)
    shutil.copy(workplace / "other.safetensors", tmp_path / "my-style.safetensors")
    save_file({"emb_params": torch.ones(2, 16)}, tmp_path / "zxc.safetensors")
    save_other_kinds(Adapter.load(workplace / "other.safetensors"), tmp_path)
    monkeypatch.chdir(tmp_path)
    base = str(tiny_base)
    assert main(["merge", "other.safetensors:40", "--into-base", "--base", base, "--output", "tuned-model"]) == 0
    found = [words for page, words in ADAPT if page == "docs/adapter-tools.md"]
    assert {words[1] for words in found} == set(TOOLS)
    for words in found:
        for path in (Path(words[words.index("--output") + 1]),) if "--output" in words else ():
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        code = main([base if word == "icons" else word for word in words[1:]])
        assert code == 0 or (words[1] == "diff" and code == 1), (words, capsys.readouterr().err)


def test_the_page_of_classes_runs_in_its_order(workplace, tiny_base, tmp_path, monkeypatch, capsys):
    for name in ("runs", "my-classes", "more-classes", "my-pictures"):
        shutil.copytree(workplace / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for run in ("birds", "like", "along"):
        shutil.rmtree(f"runs/{run}")
    small = ["--base", str(tiny_base), "batch_size=4", "rank=2", "sampling_steps=1", "validation=0"]
    found = [words for page, words in ADAPT if page == "docs/conditioning.md" and words[1] != "generate"]
    assert {words[1] for words in found} == {"train", "classes"}
    for words in found:
        short = [re.sub("^steps=.*", "steps=1", word) for word in words[1:]]
        assert main([*short, *(small if words[1] == "train" else [])]) == 0, (words, capsys.readouterr().err)


def test_the_page_of_edits_runs_in_its_order(tiny_editor, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pairs, "my-edits")
    for name in ("before", "after"):
        shutil.copytree(pairs / name, name)
    shutil.copy(pairs / "before" / "0.png", "before.png")
    small = {
        "train": ["steps=1", "batch_size=4", "rank=2", "sampling_steps=1", "validation=0", "--fresh"],
        "generate": ["--base", str(tiny_editor), "--steps", "2", "--device", "cpu", "--output", "drawn"],
        "check": ["--exit-zero"],
    }
    found = [words for page, words in ADAPT if page == EDITING]
    assert {words[1] for words in found} == set(small)
    for words in found:
        here = [str(tiny_editor) if word == "timbrooks/instruct-pix2pix" else word for word in words[1:]]
        assert main([*here, *small[words[1]]]) == 0, (words, capsys.readouterr().err)


def test_the_page_of_inpainting_runs_in_its_order(tiny_filler, workplace, pictures, tmp_path, monkeypatch, capsys):
    """The style of a plain base too, in a hole."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "mask.png", "runs/my-style"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(workplace / name)
    for name in ("my-pictures", "my-masked-pictures"):
        shutil.copytree(pictures, name)
    for number in range(12):
        shutil.copy(workplace / "mask.png", f"my-masked-pictures/{number:02d}-masklabel.png")
    small = {
        "train": ["steps=1", "batch_size=4", "rank=2", "sampling_steps=1", "validation=0", "--fresh"],
        "generate": ["--base", str(tiny_filler), "--steps", "2", "--device", "cpu", "--output", "drawn"],
    }
    found = [words for page, words in ADAPT if page == FILLING]
    assert {words[1] for words in found} == set(small)
    for words in found:
        published = "stable-diffusion-v1-5/stable-diffusion-inpainting"
        here = [str(tiny_filler) if word == published else word for word in words[1:]]
        assert main([*here, *small[words[1]]]) == 0, (words, capsys.readouterr().err)


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    found = commands("make")
    assert {"demo", "test"} <= {words[1] for page, words in found if page == "README.md"}
    assert {target for _, words in found for target in words[1:]} <= targets


def parser_of(script):
    return runpy.run_path(str(ROOT / script), run_name="parsed")["parser"]()


def judge_script(script, words, at_work):
    """The script's own parser takes the words, and the settings among them are known."""
    parsed = parser_of(script).parse_intermixed_args(list(words))
    require_known([word.partition("=")[0] for word in parsed.settings])
    assert parsed.data.is_dir() and (parsed.config is None or parsed.config.is_file())


@pytest.mark.parametrize(("page", "words"), commands("accelerate", "torchrun"), ids=shown)
def test_launched_commands_are_known_to_their_parsers(page, words, at_work):
    if words[0] == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        assert words[1] == "launch"
        launched = launch_command_parser().parse_args(list(words[2:]))
    else:
        from torch.distributed.run import parse_args

        launched = parse_args(list(words[1:]))
    judge_script(launched.training_script, launched.training_script_args, at_work)


@pytest.mark.parametrize(("page", "words"), commands("python"), ids=shown)
def test_python_commands_name_scripts_that_take_these_words(page, words):
    source = (ROOT / words[1]).read_text("utf-8")
    options = [word for word in words[2:] if word.startswith("--")]
    assert options and all(f'"{option}"' in source for option in options)


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("[0-9]*.py")), ids=name_of)
def test_the_commands_in_the_examples_can_be_parsed(script):
    lines = [line.strip() for line in ast.get_docstring(ast.parse(script.read_text("utf-8"))).splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("python ")]
    assert found and all(words[1] == f"examples/{script.name}" for words in found)
    for words in found:
        parser_of(words[1]).parse_args(words[2:])


# ------------------------------------------------------------------------------------------------ settings and options
def test_the_page_of_settings_is_the_code_s():
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == markdown(), "run `make docs`"
    assert sorted(ordered()) == sorted(TrainSettings.model_fields)


def test_every_setting_that_is_named_exists():
    """`name=value` in code, and the keys of YAML blocks."""
    named = set()
    for page in PAGES:
        text = page.read_text("utf-8")
        named |= set(re.findall(r"`(\w+)=[^`(]*`", text))
        for body in blocks(page, "yaml"):
            named |= set(yaml.safe_load(body))
    for _, words in commands("adapt", "accelerate", "torchrun"):
        if words[1] != "classes":  # --rename OLD=NEW
            named |= {word.partition("=")[0] for word in words if re.match(r"\w+=", word)}
    named.discard("key")  # `key=value` stands for any
    assert len(named) >= 12
    require_known(sorted(named), "the documentation")


@pytest.mark.parametrize(
    ("command", "pages"),
    [
        ("generate", ["docs/generating.md"]),
        ("explain", ["docs/explain.md"]),
        ("train", ["docs/training.md", "docs/data.md", "README.md"]),
        ("demo", ["README.md", "docs/training.md"]),
        ("check", ["docs/data.md"]),
        ("export", ["docs/adapter-format.md"]),
        ("report", ["docs/watching.md"]),
        ("caption", ["docs/data.md"]),
        ("mask", ["docs/data.md"]),
        ("push", ["docs/sharing.md"]),
        ("pull", ["docs/sharing.md"]),
        ("card", ["docs/sharing.md"]),
        ("classes", ["docs/conditioning.md"]),
        ("sweep", ["docs/sweep.md"]),
        *((tool, ["docs/adapter-tools.md"]) for tool in TOOLS),
    ],
)
def test_every_option_is_documented(command, pages):
    text = "\n".join((ROOT / page).read_text("utf-8") for page in pages)
    parameters = typer.main.get_command(app).commands[command].params
    options = [option for p in parameters for option in p.opts if option.startswith("--") and option != "--help"]
    assert len(options) >= 2
    assert [option for option in options if not re.search(rf"{option}\b", text)] == []


def test_options_in_the_text_exist():
    parameters = [p for c in typer.main.get_command(app).commands.values() for p in c.params]
    known = {option for p in parameters for option in (*p.opts, *p.secondary_opts)}
    known |= {"--version", "--help", *(f"--{name}" for name in OPTIONS)}
    launchers = {"--signal", "--multi_gpu", "--num_processes", "--nproc_per_node", "--cpu"}
    named = {option for page in PAGES for option in re.findall(r"`(--[\w-]+)", page.read_text("utf-8"))}
    assert len(named) >= 20
    assert named - known - launchers == set()


def test_schedulers_prompt_options_and_facts_are_documented():
    generating = (ROOT / "docs" / "generating.md").read_text("utf-8")
    assert [name for name in schedulers.SHORT if f"`{name}`" not in generating] == []
    assert [name for name in OPTIONS if f"`--{name}`" not in generating] == []
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "adapter-format.md").read_text("utf-8"), re.M)
    assert rows == ["schema", *(field.name for field in fields(Facts))]
    count = re.search(r"(\d+) schedulers", (ROOT / "README.md").read_text("utf-8"))
    assert int(count[1]) == len(schedulers.SHORT)


# ------------------------------------------------------------------------------------------------ Python
SNIPPETS = [(name_of(page), body) for page in PAGES for body in blocks(page, "python", "py")]


def test_there_are_snippets():
    assert {page for page, _ in SNIPPETS} >= {"README.md", "docs/generating.md", "docs/adapter-format.md"}


@pytest.mark.parametrize(("page", "body"), SNIPPETS, ids=[f"{page}-{i}" for i, (page, _) in enumerate(SNIPPETS)])
def test_snippets_compile_and_their_names_exist(page, body):
    tree = ast.parse(body)
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for node in attributes:
        if isinstance(node.value, ast.Name) and node.value.id == "adapt":
            assert node.attr in adapt.__all__ and getattr(adapt, node.attr)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "TrainSettings":
            require_known([word.arg for word in node.keywords])


def test_the_main_snippet_of_the_readme_runs(monkeypatch, tmp_path, tiny_base):
    """With another base and fewer steps, nothing else changed."""
    train, generate, load = adapt.train, adapt.generate, adapt.Backbone.load
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    monkeypatch.chdir(tmp_path)

    def small_train(data, *, settings, **rest):
        assert settings.steps == 160
        few = {"steps": 1, "rank": 2, "validation_times": 1, "sampling_steps": 1, "previews": ("one",)}
        return train(data, base=str(tiny_base), settings=settings.model_copy(update=few), **rest)

    monkeypatch.setattr(adapt, "train", small_train, raising=False)
    monkeypatch.setattr(adapt, "generate", lambda *a, **k: generate(*a, **{**k, "steps": 1}), raising=False)
    monkeypatch.setattr(adapt.Backbone, "load", staticmethod(lambda *_, **options: load(str(tiny_base), **options)))
    names = {}
    exec(compile(blocks(ROOT / "README.md", "python")[0], "README.md", "exec"), names)
    assert len(names["pictures"]) == 4 and Path("penguin.png").is_file()
    assert names["result"].held_out.pictures == 16
    assert type(names["pipeline"]).__name__ == "StableDiffusionPipeline"


# ------------------------------------------------------------------------------------------------ links and limits
def headings(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_and_pictures_lead_somewhere(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    targets = [t for t in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", text) if "://" not in t]
    for target in targets:
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        assert not anchor or anchor in headings(file), target


def test_links_are_found():
    text = (ROOT / "README.md").read_text("utf-8")
    assert "](docs/pictures/comparison.png)" in text and text.count("](docs/") >= 6


def test_the_changelog_knows_this_version():
    assert f"## [{adapt.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_readme_is_short_and_uses_the_designs_nouns():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 130
    nouns = "Backbone Condition Conditioner Guidance Objective Adapter Formats Data Sampling Evaluation Training Hub API CLI"
    first = text.split("\n\n")[1]
    assert [noun for noun in nouns.split() if f"**{noun}**" not in first] == []
