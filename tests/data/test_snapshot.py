"""Data sets on the Hub: what lies in the local cache is used without network; the Hub itself is not asked here."""

import json

import pytest

from adapt.data import find
from adapt.data.snapshot import is_hub_id
from adapt.errors import DataError, HubError

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub's cache of this test, and nothing beyond it; name, files → a data set there."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)

    def put(name, files):
        folder = tmp_path / "hub" / f"datasets--{name.replace('/', '--')}"
        (folder / "blobs").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(REVISION)
        for number, (path, data) in enumerate(files.items()):
            blob, link = folder / "blobs" / str(number), folder / "snapshots" / REVISION / path
            blob.write_bytes(data)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)

    return put


def test_a_data_set_in_the_cache_is_read_without_network(hub, png):
    rows = [{"file_name": f"{i}.png", "text": f"picture {i}"} for i in range(2)]
    files = {f"train/{i}.png": png(i) for i in range(2)}
    hub(
        "someone/pictures",
        {**files, "train/metadata.jsonl": "\n".join(map(json.dumps, rows)).encode(), "README.md": b"# x"},
    )
    found = find("someone/pictures")
    assert [(p.name, p.captions) for p in found.pictures] == [(f"train/{i}.png", (f"picture {i}",)) for i in range(2)]
    assert [p.read() for p in found.pictures] == [png(0), png(1)]


def test_a_folder_goes_before_a_data_set_of_its_name(hub, tmp_path, png, write):
    hub("someone/pictures", {"a.png": png(0)})
    write(tmp_path, someone__pictures__b_png=png(1))
    assert [p.name for p in find("someone/pictures").pictures] == ["b.png"]


def test_a_source_may_be_a_data_set(hub, tmp_path, png):
    hub("someone/pictures", {"a.png": png(0)})
    (tmp_path / "all.yaml").write_text("sources: [{path: someone/pictures}]")
    assert [p.name for p in find(tmp_path / "all.yaml").pictures] == ["pictures/a.png"]


def test_what_is_neither_here_nor_there_is_one_error(hub):
    with pytest.raises(DataError, match=r"no such folder, and no data set of this name.*someone/nothing.*connect once"):
        find("someone/nothing")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ("GatedRepoError", HubError, "accept its terms"),
        ("RepositoryNotFoundError", DataError, "or it is private"),
        ("LocalEntryNotFoundError", DataError, "within reach"),
    ],
)
def test_what_the_hub_answers(hub, monkeypatch, error, kind, words):
    import huggingface_hub
    from huggingface_hub import errors

    cls = getattr(errors, error)
    raised = cls.__new__(cls)

    def refuse(*args, **kwargs):
        assert kwargs["repo_type"] == "dataset" and not any(p.endswith(".py") for p in kwargs["allow_patterns"])
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(kind, match=words) as caught:
        find("someone/pictures")
    assert caught.value.exit_code == (4 if kind is HubError else 2)


@pytest.mark.parametrize("name", ["a/b", "A-1/b.c_d"])
def test_ids(name):
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name", ["a", "./a/b", "a/b/c", "/a/b", "a/", "../b", "a b/c", "a/{0..1}.tar", ".a/b", "~a/b", "a\\b"]
)
def test_no_ids(name):
    assert not is_hub_id(name)
