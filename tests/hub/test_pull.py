"""What comes from the Hub: one commit, verified, cached; drawing with an adapter by its name there; and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from local_hub import Blob

import adapt
from adapt import files
from adapt.adapter import Adapter
from adapt.cli.main import main
from adapt.errors import AdapterError, AdaptError, BackboneError, HubError, RunError, TransferError
from adapt.fetch import Reference, reference
from adapt.formats import FILE_NAME
from adapt.licences import of_base
from adapt.source import find

REPO = "alice/my-style"


KEPT = {}


@pytest.fixture
def pushed(hub, made, tmp_path_factory):
    """The adapter on the Hub, as two commits of which the first is called v1. It is pushed once and put there again."""
    if not KEPT:
        hub.put("alice/tiny", {"README.md": b"---\nlicense: openrail++\n---\n"})
        copy = tmp_path_factory.mktemp("pushed") / "my-style" / "adapter"
        shutil.copytree(made, copy)
        adapt.push(copy, REPO, tag="v1")
        facts = json.loads((copy / "adapter.json").read_text())
        facts["trigger"] = "new-word"
        (copy / "adapter.json").write_text(json.dumps(facts))
        adapt.push(copy, REPO)
        KEPT.update(folder=copy, repository=deepcopy(hub[REPO]))
    hub.repositories["models", REPO] = deepcopy(KEPT["repository"])
    hub.log.clear()
    return KEPT["folder"]


def test_a_pulled_folder_is_what_was_pushed(hub, pushed, tmp_path):
    got = adapt.pull(REPO)
    names = {p.relative_to(got).as_posix() for p in got.rglob("*") if p.is_file()}
    assert names == set(hub[REPO].files) - {".gitattributes"}
    assert all((got / name).read_bytes() == hub[REPO].files[name] for name in names)
    assert Adapter.load(got).weights.equals(Adapter.load(pushed).weights)
    copy = adapt.pull(REPO, output=tmp_path / "copy")
    assert not any(path.is_symlink() for path in copy.rglob("*")) and Adapter.load(copy).name == "copy"


def test_what_is_cached_is_not_fetched_again_and_is_there_without_network(hub, pushed, monkeypatch):
    first = adapt.pull(REPO)
    hub.log.clear()
    assert adapt.pull(REPO) == first
    assert hub.log == [f"GET /api/models/{REPO}/revision/main"] or hub.log == [f"GET /api/models/{REPO}"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert adapt.pull(REPO) == first and Adapter.load(REPO).trigger == "new-word"


def test_revisions(hub, pushed):
    assert Adapter.load(REPO).trigger == "new-word"
    assert Adapter.load(f"{REPO}@v1").trigger == "zqx"
    assert Adapter.load(f"{REPO}@{hub[REPO].tags['v1']}").trigger == "zqx"
    with pytest.raises(TransferError, match=r"no such revision.*given: alice/my-style@v9; allowed: main, v1"):
        Adapter.load(f"{REPO}@v9")


def test_an_adapter_of_the_hub_is_called_after_its_repository(hub, pushed):
    loaded = Adapter.load(REPO)
    assert loaded.name == "my-style" and loaded.digest == files.digest(pushed / FILE_NAME)[:10]


def test_only_what_drawing_needs_is_fetched(hub, pushed):
    Adapter.load(REPO)
    fetched = {line.rpartition("/")[2] for line in hub.log if line.startswith("GET") and "/resolve/" in line}
    assert fetched == {FILE_NAME, "adapter.json"}


@pytest.mark.parametrize("suffix", ["", ":0.5", "@v1", "@v1:0.5"])
def test_generate_takes_an_adapter_of_the_hub(hub, pushed, tiny_base, tmp_path, suffix, capsys):
    words = ["--prompt", "zqx new-word", "--base", str(tiny_base), "--steps", "1", "--json", "--device", "cpu"]
    assert main(["generate", "--adapter", REPO + suffix, *words, "--output", str(tmp_path / "out")]) == 0
    (used,) = json.loads(capsys.readouterr().out)["adapters"]
    assert used["name"] == "my-style" and used["scale"] == (0.5 if ":" in suffix else 1.0)


def test_training_goes_on_from_an_adapter_of_the_hub(hub, pushed, tiny_base, pictures, tmp_path, capsys):
    words = [
        "steps=1",
        "batch_size=1",
        "rank=2",
        "alpha=2",
        "targets=[to_q,to_v]",
        "sampling_steps=1",
        "learning_rate=1e-9",
    ]
    run = tmp_path / "run"
    assert (
        main(["train", str(pictures), "--base", str(tiny_base), "--output", str(run), *words, f"init_from={REPO}@v1"])
        == 0
    )
    err = capsys.readouterr().err
    assert f"starts from {REPO}@v1" in err and "Fetching" not in err, "no bars where there is no terminal"
    ours, theirs = Adapter.load(run).weights.modules["unet"], Adapter.load(REPO).weights.modules["unet"]
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(layer.delta(), theirs[name].delta(), atol=1e-5) for name, layer in ours.items())


def test_the_command_says_where_it_is(hub, pushed, capsys):
    assert main(["pull", REPO, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["base"] == "alice/tiny" and told["trigger"] == "new-word" and Path(told["path"]).is_dir()
    assert main(["pull", f"https://huggingface.co/{REPO}"]) == 0
    assert capsys.readouterr().out.strip() == told["path"]


def test_another_program_s_single_file(hub, pushed):
    hub.put("bob/one", {"my lora.safetensors": (pushed / FILE_NAME).read_bytes(), "README.md": b"# x"})
    assert Adapter.load("bob/one").name == "my lora"
    two = {f"{name}.safetensors": (pushed / FILE_NAME).read_bytes() for name in ("a", "b")}
    hub.put("bob/two", two)
    with pytest.raises(
        AdapterError, match=r"several weights files.*a.safetensors, b.safetensors.*bob/two/a.safetensors"
    ):
        Adapter.load("bob/two")
    assert Adapter.load("bob/two/b.safetensors").name == "b"


def test_a_path_that_is_here_is_no_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert reference("runs/mine") is None and reference("x.safetensors") is None and reference("./a/b") is None
    assert reference("alice/a") == Reference("alice/a") and str(reference("alice/a@v1")) == "alice/a@v1"
    assert reference("alice/a/b/c.safetensors@v1") == Reference("alice/a", "v1", "b/c.safetensors")
    assert [reference(text) for text in ("a", "a/b/c", "/a/b", "../b", "a//b", "a/b@", "a b/c", "C:/x")] == [None] * 8


def test_of_a_base_only_what_is_loaded_is_fetched(hub, tiny_base):
    files_of = {p.relative_to(tiny_base).as_posix(): p.read_bytes() for p in tiny_base.rglob("*") if p.is_file()}
    twice = {"v1-5-pruned.safetensors": b"x", "unet/diffusion_pytorch_model.fp16.safetensors": b"x", "unet/weights.bin": b"x",
             "safety_checker/model.safetensors": b"x", "README.md": b"---\nlicense: mit\n---\n"}  # fmt: skip
    hub.put("alice/base", files_of | twice)
    folder = find("alice/base")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {*files_of, "README.md"}
    assert str(of_base("alice/base", folder)) == "mit"


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("bob/missing", BackboneError, "no such model"),
        ("bob/pictures", BackboneError, "a data set"),
        ("bob/gated", HubError, "terms"),
    ],
)
def test_a_base_that_cannot_be_had_is_said(hub, name, kind, said, monkeypatch):
    put_hostile(hub)
    if kind is HubError:
        monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(kind, match=said):
        find(name)


# ------------------------------------------------------------------------------------------------ refused
def put_hostile(hub):
    good = b"x"
    hub.put("bob/nothing", {"README.md": b"# hi"})
    hub.put("bob/pickle", {"pytorch_lora_weights.bin": good})
    hub.put("bob/model", {"model_index.json": b"{}", "x.safetensors": good})
    hub.put("bob/nested", {"deep/in/it.safetensors": good})
    hub.put("bob/private", {FILE_NAME: good}, private=True)
    hub.put("bob/gated", {FILE_NAME: good}, gated=True)
    hub.put("bob/pictures", {"README.md": b"# data"}, kind="datasets")
    hub.put("bob/space", {"app.py": b"1"}, kind="spaces")
    hub.put("bob/broken", {FILE_NAME: b"no safetensors at all"})
    for number, name in enumerate(
        ("../../evil.safetensors", "/etc/evil.json", "samples/../../../evil.png", "a\\..\\b.json")
    ):
        hub.put(f"bob/path{number}", {FILE_NAME: good, name: b"evil"})


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("bob/missing", 2, "no such model, or not for you"),
        ("bob/nothing", 2, "holds no adapter that can be read"),
        ("bob/pickle", 2, "could run code when opened"),
        ("bob/model", 2, "a whole model, not an adapter"),
        ("bob/nested", 2, "name one of: deep/in/it.safetensors"),
        ("bob/private", 2, "no such model, or not for you"),
        ("bob/pictures", 2, "this is a data set, not a model"),
        ("bob/space", 2, "this is a space, not a model"),
        ("bob/broken", 2, "damaged, or no safetensors"),
        ("bob/path0", 2, "leads out of its folder"),
        ("bob/path1", 2, "leads out of its folder"),
        ("bob/path2", 2, "leads out of its folder"),
        ("bob/path3", 2, "leads out of its folder"),
        ("bob/missing/x.safetensors", 2, "no such model"),
        ("not a name", 2, "no name of a repository"),
        ("a/b/c", 2, "no name of a repository"),
    ],
)
def test_what_cannot_be_pulled_is_one_line(hub, tmp_path, name, code, said, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_hostile(hub)
    assert main(["pull", name]) == code
    err = capsys.readouterr().err.strip()
    assert said in err and len(err.splitlines()) == 1 and "Traceback" not in err
    assert list(tmp_path.rglob("evil*")) == []


@pytest.mark.parametrize("name", ["bob/missing", "bob/private", "bob/gated"])
def test_without_login_the_error_says_how_to_log_in(hub, name, capsys, monkeypatch):
    put_hostile(hub)
    monkeypatch.delenv("HF_TOKEN")
    assert main(["pull", name]) == 4
    assert "hf auth login" in capsys.readouterr().err


def test_gated_names_the_page(hub, monkeypatch):
    put_hostile(hub)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=rf"accept terms first.*{hub.endpoint}/bob/gated"):
        adapt.pull("bob/gated")


@pytest.mark.parametrize("words", [["pull", "bob/gated"], ["generate", "--adapter", "bob/gated", "--prompt", "x"],
                                   ["generate", "--base", "bob/base", "--prompt", "x"]], ids=str)  # fmt: skip
def test_who_is_logged_in_and_has_not_accepted_the_terms_is_told_where(hub, words, tiny_base, capsys):
    """403: the token is good, so that another login would not help."""
    put_hostile(hub)
    files = {p.relative_to(tiny_base).as_posix(): p.read_bytes() for p in tiny_base.rglob("*") if p.is_file()}
    hub.put("bob/base", files, gated=True)
    assert main(words) == 4
    err = capsys.readouterr().err.strip()
    (page,) = (word for word in words if word.startswith("bob/"))
    assert f"accept them on {hub.endpoint}/{page} with the account of your token" in err.splitlines()[-1]
    assert "hf auth login" not in err and not err.count("Traceback")


def test_who_has_accepted_the_terms_gets_the_files(hub, folder):
    held = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    hub.put("bob/gated", held, gated=True, accepted=frozenset({"alice"}))
    assert adapt.Adapter.load("bob/gated").weights.equals(adapt.Adapter.load(folder).weights)


def test_a_gated_base_does_not_keep_an_adapter_from_being_pushed(hub, folder):
    hub.put("alice/tiny", {"README.md": b"---\nlicense: openrail++\n---\n"}, gated=True)
    done = adapt.push(folder, REPO)
    assert done.commit and json.loads(hub[REPO].files["adapter.json"])["base"]["reference"] == "alice/tiny"


def test_a_folder_that_is_there_is_not_touched(hub, pushed, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunError, match="there already"):
        adapt.pull(REPO, output=tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_repository_that_is_too_large_is_not_fetched(hub, pushed, monkeypatch):
    monkeypatch.setattr("adapt.fetch.bring.LARGEST", 1000)
    with pytest.raises(AdapterError, match="too large for an adapter"):
        adapt.pull(REPO)
    assert not any("/resolve/" in line for line in hub.log)


# ------------------------------------------------------------------------------------------------ faults
def faults_of(phase):
    """Every way in which a request of this phase can go wrong."""
    errors = [{"status": status} for status in (401, 403, 404, 429, 500, 502, 503)]
    broken = [{"drop": True, "times": 99}, {"delay": 0.3}, {"status": 502, "html": True, "times": 99}]
    body = (
        [{"cut": 3, "times": 99}, {"corrupt": True, "times": 99}, {"short": True, "times": 99}]
        if "resolve" in phase
        else []
    )
    return [(phase, {"times": 99, **what} if "delay" not in what else what) for what in (*errors, *broken, *body)]


PHASES = [
    rf"GET /api/models/{REPO}(/revision/.*)?$",
    r"GET .*/tree/",
    r"HEAD .*/resolve/.*safetensors",
    r"GET .*/resolve/.*safetensors",
]
FAULTS = [fault for phase in PHASES for fault in faults_of(phase)]


def test_there_are_enough_faults():
    assert len(FAULTS) >= 43


@pytest.mark.parametrize(("phase", "what"), FAULTS, ids=lambda value: str(value)[:44])
def test_a_fault_leaves_the_old_or_brings_the_new(hub, pushed, tmp_path, phase, what):
    """The old version is in the cache; fetching the new one goes wrong. Whatever is given back is one version, whole."""
    old = Adapter.load(REPO)
    files_of = dict(hub[REPO].commits[hub[REPO].refs["main"]])
    changed = bytearray(files_of[FILE_NAME].content)
    changed[-1] ^= 1
    facts = files_of["adapter.json"].content.replace(b"new-word", b"newer-word")
    hub[REPO].commit({**files_of, FILE_NAME: Blob(bytes(changed), True), "adapter.json": Blob(facts, False)}, "third")
    hub.fault(phase, **what)
    try:
        got = Adapter.load(REPO)
    except AdaptError as error:
        assert len(str(error).splitlines()) == 1 and error.exit_code in (2, 4)
    else:
        assert (got.trigger, got.weights.equals(old.weights)) in {("newer-word", False), ("new-word", True)}
    hub.faults.clear()
    again = Adapter.load(REPO)
    assert again.trigger == "newer-word" and not again.weights.equals(old.weights), "the cache holds nothing damaged"


def test_a_damaged_cache_is_noticed_and_mended(hub, pushed):
    got = adapt.pull(REPO)
    blob = (got / FILE_NAME).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(bytes(content))
    assert Adapter.load(REPO).weights.equals(Adapter.load(pushed).weights)
    assert (got / FILE_NAME).read_bytes() == hub[REPO].files[FILE_NAME]


def test_the_environment_s_settings_hold(hub, pushed, tmp_path):
    """A process of its own, told by the environment where the Hub is (a mirror), and then that there is no network."""
    told = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("HF_")}, **told}
    command = [sys.executable, "-m", "adapt", "pull", REPO]
    first = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert first.returncode == 0 and first.stdout.startswith(str(tmp_path / "home")), first.stderr
    hub.log.clear()
    second = subprocess.run(
        command, env={**environment, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=120
    )
    assert second.stdout == first.stdout and hub.log == []
    nowhere = {
        **environment,
        "HF_ENDPOINT": "http://127.0.0.1:1",
        "HF_HOME": str(tmp_path / "other"),
        "HF_HUB_OFFLINE": "1",
    }
    third = subprocess.run(command, env=nowhere, capture_output=True, text=True, timeout=120)
    assert third.returncode == 2 and re.fullmatch(
        r"error: HF_HUB_OFFLINE forbids.*nor in the Hub's cache.*\n", third.stderr
    ), third.stderr
