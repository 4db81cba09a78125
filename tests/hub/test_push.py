"""What a push shows, sends and leaves alone: against a real client and a local Hub."""

import io
import json
import os
import re
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from local_hub import Blob
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file

import adapt
from adapt.adapter import FACTS_NAME, Adapter
from adapt.card import is_untouched
from adapt.cli.main import main
from adapt.errors import AdapterError, HubError, SettingsError
from adapt.formats import FILE_NAME

REPO = "alice/my-style"
PAGE = {".gitattributes", "README.md", "adapter.json", "notebook.ipynb", FILE_NAME, "samples/01.png", "samples/02.png"}


def requests(hub, method="POST|PUT|DELETE"):
    return [line for line in hub.log if re.match(method, line)]


def test_one_commit_holds_the_whole_page(hub, base, folder):
    done = adapt.push(folder, REPO, tag="v1")
    assert set(hub[REPO].files) == PAGE
    assert hub[REPO].titles == ["initial commit", "my-style, pushed with adapt"]
    assert done.commit == hub[REPO].refs["main"] == hub[REPO].tags["v1"]
    assert done.url == f"{hub.endpoint}/{REPO}"
    assert [name for name in hub[REPO].files if name.endswith(".safetensors") and "/" not in name] == [FILE_NAME]
    assert hub[REPO].files[FILE_NAME] == (folder / FILE_NAME).read_bytes()


def test_the_page_has_the_fields_that_the_hub_reads(hub, base, folder):
    adapt.push(folder, REPO, data_license="cc-by-4.0", data_source="my own drawings")
    text = hub[REPO].files["README.md"].decode()
    card = ModelCard(text)
    card.validate()
    told = card.data.to_dict()
    assert told["library_name"] == "diffusers" and told["pipeline_tag"] == "text-to-image"
    assert told["tags"] == [
        "text-to-image",
        "diffusers",
        "diffusers-training",
        "lora",
        "template:sd-lora",
        "stable-diffusion",
        "adapt",
    ]
    assert (told["base_model"], told["base_model_relation"]) == ("alice/tiny", "adapter")
    assert told["instance_prompt"] == "zqx" and told["license"] == "openrail++"
    assert told["widget"][0] == {"text": "zqx picture 1", "output": {"url": "samples/01.png"}}
    assert "model-index" not in told
    order = [text.index(part) for part in ("# my-style", "<Gallery />", "## Use it", "## Recommended settings")]
    assert order == sorted(order)
    for row in (
        "| trigger words | zqx |",
        "| steps | 2 |",
        "| guidance | 2.0 |",
        "| LoRA scale | 1.0 |",
        f"| file | `{FILE_NAME}` |",
    ):
        assert row in text
    assert "12, of 3 classes. Source: my own drawings. Their licence: cc-by-4.0." in text
    assert "**0.800**" in text and "standard error 0.020" in text
    assert f'load_lora_weights("{REPO}"' in text and f"--adapter {REPO} " in text
    assert is_untouched(text)


def test_a_second_push_sends_only_what_changed_and_an_equal_one_nothing(hub, base, folder):
    first = adapt.push(folder, REPO)
    hub.log.clear()
    again = adapt.push(folder, REPO)
    assert again.commit == first.commit and again.sent == () and requests(hub) == []
    facts = json.loads((folder / FACTS_NAME).read_text())
    facts["recommended"]["steps"] = 4
    (folder / FACTS_NAME).write_text(json.dumps(facts))
    third = adapt.push(folder, REPO)
    assert set(third.sent) == {"adapter.json", "README.md"} and len(hub[REPO].titles) == 3


def test_files_of_an_older_version_go_and_foreign_ones_stay(hub, base, folder):
    adapt.push(folder, REPO)
    files = {name: Blob(content, name.endswith("safetensors")) for name, content in hub[REPO].files.items()}
    hub[REPO].commit({**files, "mine.md": Blob(b"hello", False), "samples/03.png": Blob(b"old", False)}, "by hand")
    (folder / "samples" / "02.png").unlink()
    done = adapt.push(folder, REPO)
    assert set(hub[REPO].files) == PAGE - {"samples/02.png"} | {"mine.md"}
    assert done.plan.removed == ["samples/02.png", "samples/03.png"]


def test_a_dry_run_sends_nothing_and_says_everything(hub, base, folder, capsys):
    (folder / "notes.txt").write_text("x")
    assert main(["push", str(folder), REPO, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "push to alice/my-style (public, new): 6 files" in told
    assert re.search(rf"{FILE_NAME} +\d+\.\d kB  sent", told) and "left out   notes.txt" in told
    assert requests(hub) == [] and REPO not in hub
    assert main(["push", str(folder), REPO, "--dry-run", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["commit"] is None and values["new"] is True and values["left_out"] == ["notes.txt"]
    assert sum(file["bytes"] for file in values["files"]) == values["bytes"]


def test_a_dry_run_needs_neither_network_nor_login(hub, base, folder, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(folder), REPO, "--dry-run"]) == 0
    assert "the Hub was not asked: nobody is logged in" in capsys.readouterr().out
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", "hf_goodgoodgoodgoodgood")
    assert main(["push", str(folder), REPO, "--dry-run"]) == 0
    assert "HF_HUB_OFFLINE" in capsys.readouterr().out
    assert hub.log == []


def test_nothing_is_asked_without_a_terminal(hub, base, folder, capsys):
    assert main(["push", str(folder), REPO]) == 0
    out, err = capsys.readouterr()
    assert out == f"{hub.endpoint}/{REPO}\n" and "6 files" in err and "[" not in out


def test_on_a_terminal_it_asks_and_no_means_no(hub, base, folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("cc0-1.0\nn\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(["push", str(folder), REPO]) == 0
    err = capsys.readouterr().err
    assert "Licence of the training pictures" in err and "nothing was sent" in err and REPO not in hub
    assert "the licence of the training pictures is not stated" not in err
    assert main(["push", str(folder), REPO, "--yes"]) == 0 and REPO in hub


def test_private_and_pull_requests(hub, base, folder):
    adapt.push(folder, "alice/secret", private=True)
    assert hub["alice/secret"].private
    hub.put("bob/theirs", {"README.md": b"# theirs\n"})
    done = adapt.push(folder, "bob/theirs", pr=True)
    assert set(hub["bob/theirs"].files) == {"README.md"}, "the main branch is their owner's"
    (request,) = [ref for ref in hub["bob/theirs"].refs if ref != "main"]
    assert FILE_NAME in hub["bob/theirs"].commits[hub["bob/theirs"].refs[request]] and "/discussions/" in done.url


def test_a_bare_name_is_the_user_s_own(hub, base, folder):
    assert adapt.push(folder, "mine").repository == "alice/mine" and "alice/mine" in hub


# ------------------------------------------------------------------------------------------------ cards of people
def test_a_card_that_a_person_changed_on_the_hub_stays_unless_told(hub, base, folder):
    adapt.push(folder, REPO)
    files = hub[REPO].commits[hub[REPO].refs["main"]]
    mine = Blob(files["README.md"].content + b"\nMy own words.\n", False)
    hub[REPO].commit({**files, "README.md": mine, "adapter.json": Blob(b"{}", False)}, "words")
    done = adapt.push(folder, REPO)
    assert hub[REPO].files["README.md"] == mine.content and "README.md" not in done.sent
    assert done.plan.asks_for_card is False and done.plan.keeps_card
    adapt.push(folder, REPO, replace_card=True)
    assert b"My own words" not in hub[REPO].files["README.md"]


def test_a_card_that_a_person_changed_here_is_pushed_with_the_repository_in_its_code(hub, base, folder):
    assert main(["card", str(folder)]) == 0
    text = (folder / "README.md").read_text()
    assert 'load_lora_weights("my-style"' in text and is_untouched(text)
    (folder / "README.md").write_text(text.replace("## Use it", "Mine: my-style is mine.\n\n## Use it"))
    adapt.push(folder, REPO)
    sent = hub[REPO].files["README.md"].decode()
    assert f'load_lora_weights("{REPO}"' in sent and "Mine: my-style is mine." in sent and not is_untouched(sent)


def test_card_does_not_replace_a_person_s_words_unasked(folder, capsys):
    (folder / "README.md").write_text("# my words\n")
    assert main(["card", str(folder)]) == 2
    assert (
        "a person has changed this card" in capsys.readouterr().err
        and (folder / "README.md").read_text() == "# my words\n"
    )
    assert main(["card", str(folder), "--output", "-", "--repository", "me/it"]) == 0
    assert 'load_lora_weights("me/it"' in capsys.readouterr().out
    assert main(["card", str(folder), "--yes", "--data-license", "cc0-1.0"]) == 0
    assert is_untouched((folder / "README.md").read_text()) and Adapter.read_facts(folder).data["license"] == "cc0-1.0"


def test_card_says_what_it_wrote_as_json(folder, capsys, monkeypatch):
    monkeypatch.setattr("adapt.cli.card._agreed", None)  # asks nothing
    assert main(["card", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"path": str(folder / "README.md"), "replaced": False, "card": (folder / "README.md").read_text()}
    assert main(["card", str(folder), "--output", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": None, "card": told["card"]}
    assert main(["card", str(folder), "--json"]) == 0 and json.loads(capsys.readouterr().out)["replaced"]
    (folder / "README.md").write_text("# my words\n")
    assert main(["card", str(folder), "--json"]) == 2 and (folder / "README.md").read_text() == "# my words\n"


# ------------------------------------------------------------------------------------------------ base and licence
def test_the_base_is_looked_up_and_its_licence_is_taken_over(hub, folder):
    hub.put("alice/tiny", {"README.md": b"---\nlicense: other\nlicense_name: tiny-terms\nlicense_link: LICENSE\n---\n"})
    adapt.push(folder, REPO)
    told = ModelCard(hub[REPO].files["README.md"].decode()).data.to_dict()
    assert (told["license"], told["license_name"]) == ("other", "tiny-terms")
    assert told["license_link"] == "https://huggingface.co/alice/tiny/blob/main/LICENSE"


def test_a_base_that_nobody_can_see_is_not_named(hub, folder):
    done = adapt.push(folder, REPO)
    assert "base_model" not in ModelCard(hub[REPO].files["README.md"].decode()).data.to_dict()
    assert any("others cannot see the base alice/tiny" in note for note in done.plan.notes)
    assert json.loads(hub[REPO].files["adapter.json"])["base"]["reference"] is None


def test_a_base_that_is_a_data_set_is_refused(hub, folder):
    hub.put("alice/tiny", {"README.md": b"# data"}, kind="datasets")
    with pytest.raises(SettingsError, match="base_model is wrong: this is a data set"):
        adapt.push(folder, REPO)
    assert REPO not in hub


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ({"license": "mit"}, "the base's licence is openrail"),
        ({"license": "openrail++", "data_license": "cc-by-nc-4.0"}, "non-commercial"),
        ({"data_license": "cc-by-sa-4.0"}, "asks the same licence"),
        ({"data_license": "cc-by-nd-4.0"}, "does not allow derived works"),
        ({}, "the licence of the training pictures is not stated"),
    ],
)
def test_licences_that_do_not_fit_are_said(hub, base, folder, words, note):
    told = adapt.push(folder, REPO, dry_run=True, **words)
    assert any(note in line for line in told.plan.notes), told.plan.notes


def test_weights_of_somebody_beside_ours_are_said(hub, base, folder):
    hub.put(REPO, {"other.safetensors": b"x", "README.md": b"# x"})
    done = adapt.push(folder, REPO)
    assert (
        any("other.safetensors lies beside" in note for note in done.plan.notes)
        and "other.safetensors" in hub[REPO].files
    )


def test_a_recommended_scale_other_than_1_is_said_with_the_command_that_puts_it_inside(
    hub, base, folder, tmp_path, monkeypatch
):
    assert not any("inference providers" in note for note in adapt.push(folder, REPO, dry_run=True).plan.notes)
    facts = json.loads((folder / FACTS_NAME).read_text())
    facts["recommended"]["scale"] = 0.5
    (folder / FACTS_NAME).write_text(json.dumps(facts))
    (note,) = [note for note in adapt.push(folder, REPO).plan.notes if "inference providers" in note]
    assert hub[REPO].files[FILE_NAME] == (folder / FILE_NAME).read_bytes()
    monkeypatch.chdir(tmp_path)
    assert main(note[note.index("adapt merge") :].split()[1:]) == 0
    (made,) = tmp_path.glob("*-at-1")
    again = Adapter.load(made)
    assert again.recommended["scale"] == 1 and adapt.push(made, "alice/at-1").plan.notes
    for name, layer in Adapter.load(folder).layers().items():
        assert torch.allclose(again.layers()[name].delta(), 0.5 * layer.delta(), atol=1e-6)


# ------------------------------------------------------------------------------------------------ what is refused
def test_links_out_of_the_folder_are_refused(hub, base, folder, tmp_path):
    (tmp_path / "private.json").write_text("{}")
    (folder / "samples" / "03.png").symlink_to(tmp_path / "private.json")
    with pytest.raises(AdapterError, match=r"a link leads out .*samples/03.png"):
        adapt.push(folder, REPO)
    (folder / "samples" / "03.png").unlink()
    (folder / "peft").symlink_to(tmp_path)
    with pytest.raises(AdapterError, match="a link leads out"):
        adapt.push(folder, REPO)
    assert REPO not in hub


def test_a_login_is_missing_or_not_enough(hub, base, folder, monkeypatch, capsys):
    cases = [(None, "nobody is logged in"), ("hf_wrongwrongwrongwrong", "does not accept the token"),
             ("hf_readreadreadreadread", "does not allow it"), ("hf_bobbobbobbobbobbobbob", "does not allow it")]  # fmt: skip
    for token, said in cases:
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
        assert main(["push", str(folder), REPO]) == 4, said
        err = capsys.readouterr().err.strip().splitlines()[-1]
        assert said in err and "hf auth login" in err and REPO not in hub


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["not a name"], "no name of a repository"),
        (["a/b/c"], "no name of a repository"),
        (["../x"], "no name of a repository"),
        ([REPO, "--tag", "a b"], "no name of a tag"),
        ([REPO, "--tag", "v1", "--pr"], "cannot be tagged"),
        ([REPO, "--license", "apache2"], "did you mean apache-2.0"),
        ([REPO, "--data-license", "free"], "knows no such licence"),
        (["alice/tiny"], "over its own base"),
    ],
)
def test_bad_words_are_one_line_and_exit_2(hub, base, folder, words, said, capsys):
    assert main(["push", str(folder), *words]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and len(err.splitlines()) == 1 and requests(hub) == []


def test_a_damaged_adapter_or_none_is_refused(hub, base, folder, tmp_path):
    (folder / FILE_NAME).write_bytes((folder / FILE_NAME).read_bytes()[:-1])
    with pytest.raises(AdapterError, match="cut off"):
        adapt.push(folder, REPO)
    with pytest.raises(AdapterError, match="holds no adapter"):
        adapt.push(tmp_path, REPO)
    assert hub.log == []


def test_a_tag_that_is_there_is_refused_before_anything_is_sent(hub, base, folder):
    adapt.push(folder, REPO, tag="v1")
    (folder / "samples" / "02.png").unlink()
    with pytest.raises(SettingsError, match="the tag is there already"):
        adapt.push(folder, REPO, tag="v1")
    assert "samples/02.png" in hub[REPO].files


# ------------------------------------------------------------------------------------------------ cleaned
def test_pictures_and_headers_are_cleaned_on_the_way(hub, base, folder):
    picture = Image.open(folder / "samples" / "01.png")
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "PLANTED prompt")
    exif = Image.Exif()
    exif[0x010E] = "PLANTED exif"
    picture.save(folder / "samples" / "01.png", pnginfo=text, exif=exif)
    picture.convert("RGB").save(folder / "samples" / "03.jpg", exif=exif, comment=b"PLANTED comment")
    tensors = load_file(folder / FILE_NAME)
    save_file(tensors, folder / FILE_NAME, {"ss_dataset_dirs": "PLANTED", "modelspec.author": "Ann", "x": "PLANTED"})
    done = adapt.push(folder, REPO)
    files = hub[REPO].files
    assert [name for name, content in files.items() if b"PLANTED" in content] == []
    with Image.open(io.BytesIO(files["samples/01.png"])) as sent:
        assert sent.convert("RGB").tobytes() == picture.convert("RGB").tobytes() and sent.info == {}
    assert b"modelspec.author" in files[FILE_NAME] and b"Ann" in files[FILE_NAME]
    cleaned = [item.name for item in done.plan.parcel.items.values() if item.cleaned]
    assert cleaned == [FILE_NAME, "samples/01.png", "samples/03.jpg"]
    (folder.parent / "again.safetensors").write_bytes(files[FILE_NAME])
    assert all(
        torch.equal(tensor, tensors[name]) for name, tensor in load_file(folder.parent / "again.safetensors").items()
    )


def test_paths_that_other_programs_wrote_beside_are_taken_out(hub, base, folder):
    """Lora-Manager fills the sidecar with absolute paths, peft's configuration holds the folder of the base."""
    (folder / "kohya").mkdir()
    shutil.copy(folder / FILE_NAME, folder / "kohya" / "a.safetensors")
    theirs = {"activation text": "zqx", "file_path": "/data/PLANTED/a.safetensors", "civitai": {"PLANTED": 1}}
    (folder / "kohya" / "a.json").write_text(json.dumps(theirs))
    (folder / "peft").mkdir()
    shutil.copy(folder / FILE_NAME, folder / "peft" / "adapter_model.safetensors")
    (folder / "peft" / "adapter_config.json").write_text(
        json.dumps({"r": 2, "base_model_name_or_path": "/data/PLANTED"})
    )
    adapt.push(folder, REPO)
    files = hub[REPO].files
    assert json.loads(files["kohya/a.json"]) == {"activation text": "zqx"}
    assert json.loads(files["peft/adapter_config.json"]) == {"r": 2, "base_model_name_or_path": None}
    (folder / "kohya" / "a.json").write_text("no json")
    with pytest.raises(AdapterError, match="no JSON"):
        adapt.push(folder, REPO)


def test_a_bare_file_of_another_trainer_becomes_a_folder(hub, base, folder, tmp_path):
    layers = Adapter.load(folder)
    foreign = tmp_path / "theirs.safetensors"
    save_file(load_file(folder / FILE_NAME), foreign, {"ss_datasets": "PLANTED", "modelspec.author": "Bea"})
    adapt.push(foreign, "alice/theirs")
    files = hub["alice/theirs"].files
    assert set(files) == {".gitattributes", "README.md", "adapter.json", "notebook.ipynb", FILE_NAME}
    assert not any(b"PLANTED" in content for content in files.values()) and b"Bea" in files[FILE_NAME]
    shutil.copytree(folder, tmp_path / "x")
    (tmp_path / "x" / FILE_NAME).write_bytes(files[FILE_NAME])
    assert Adapter.load(tmp_path / "x").weights.equals(layers.weights)


def test_secrets_and_folders_in_a_text_stop_the_push(hub, base, folder, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "correct-horse-battery")
    assert main(["card", str(folder)]) == 0
    card = (folder / "README.md").read_text()
    for planted, said in [("hf_abcdefghijklmnopqrstuvwx", "access token"), ("correct-horse-battery", "a secret of this machine"),
                          ("/home/ann/pictures", "a folder of this machine"), (r"C:\Users\ann", "a folder of this machine"),
                          (str(folder), "a folder of this machine"), (os.environ["HF_TOKEN"], "access token")]:  # fmt: skip
        (folder / "README.md").write_text(card + planted)
        with pytest.raises(AdapterError, match=said) as caught:
            adapt.push(folder, REPO)
        assert planted not in caught.value.message
    assert REPO not in hub and hub.log == []


def test_the_hub_s_login_error_is_an_error_of_ours(hub, base, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError):
        adapt.push(folder, REPO)
