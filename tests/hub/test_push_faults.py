"""A push that goes wrong: the repository is as it was or as it should be, never between; the next push mends it."""

import json
import re
from copy import deepcopy

import pytest
from local_hub import Blob

import adapt
from adapt.errors import AdaptError, TransferError
from adapt.formats import FILE_NAME

REPO = "alice/my-style"
INFO = rf"GET /api/models/{REPO}$"
PHASES = {
    "base": r"GET /api/models/alice/tiny$",
    "look": INFO,
    "refs": r"GET .*/refs$",
    "create": r"POST /api/repos/create",
    "validate": r"POST /api/validate-yaml",
    "preupload": r"POST .*/preupload/",
    "batch": r"POST .*/objects/batch",
    "upload": r"PUT /_lfs/",
    "verify": r"POST /_verify/",
    "commit": r"POST .*/commit/",
    "afterwards": rf"GET /api/models/{REPO}/revision/",
    "tag": r"POST .*/tag/",
}
ALWAYS = [
    {"status": 401},
    {"status": 403},
    {"status": 404},
    {"status": 429},
    {"status": 500},
    {"status": 503, "html": True},
    {"drop": True},
]
MORE = {
    "create": [{"status": 409}, {"status": 500, "after": True, "times": 1}, {"drop": True, "after": True, "times": 1}],
    "upload": [{"status": 400}, {"status": 500, "after": True, "times": 1}, {"delay": 0.3, "times": 1},
               {"read": 100, "times": 1}, {"read": 100}],
    "commit": [{"read": 20}, {"read": 20, "times": 1},
               {"status": 409}, {"status": 412}, {"status": 413}, {"status": 502, "after": True, "times": 1},
               {"status": 504, "after": True, "times": 1}, {"drop": True, "after": True, "times": 1},
               {"status": 500, "html": True, "after": True, "times": 1}, {"delay": 0.3, "times": 1}],
    "tag": [{"status": 409}, {"drop": True, "after": True, "times": 1}],
}  # fmt: skip
NEW, OLD = "new", "old"
AGAIN = ("look", "refs", "preupload", "commit", "afterwards", "tag")
"""Phases of a push over an older version whose weights are the same."""
FAULTS = [
    *((NEW, phase, what) for phase in PHASES for what in (*ALWAYS, *MORE.get(phase, ()))),
    *((OLD, phase, what) for phase in AGAIN for what in (*ALWAYS[2:], *MORE.get(phase, ())[3:])),
]


def test_there_are_enough_faults():
    assert len(FAULTS) >= 100 and {phase for _, phase, _ in FAULTS} == set(PHASES)


READY = {}


def prepare(hub, folder, place):
    """The adapter, and the Hub before the push: without the repository, or with an older version of it."""
    if place == OLD:
        if OLD not in READY:
            adapt.push(folder, REPO)
            READY[OLD] = deepcopy(hub[REPO])
        hub.repositories["models", REPO] = deepcopy(READY[OLD])
    facts = json.loads((folder / "adapter.json").read_text())
    facts["recommended"]["steps"] = 9
    (folder / "adapter.json").write_text(json.dumps(facts))
    (folder / "samples" / "02.png").unlink()
    hub.log.clear()


def contents(hub):
    return hub[REPO].files if REPO in hub else {}


@pytest.mark.parametrize(("place", "phase", "what"), FAULTS, ids=str)
def test_old_or_new_and_never_between(hub, base, folder, place, phase, what):
    prepare(hub, folder, place)
    before = contents(hub)
    titles = len(hub[REPO].titles) if REPO in hub else 1
    hub.fault(PHASES[phase], **{"times": 99, **what})
    try:
        adapt.push(folder, REPO, tag="v2")
    except AdaptError as error:
        assert len(str(error).splitlines()) == 1 and error.exit_code in (2, 4)
    after = contents(hub)
    landed = "adapter.json" in after and json.loads(after["adapter.json"])["recommended"]["steps"] == 9
    if landed:
        assert set(after) == {
            ".gitattributes",
            "README.md",
            "adapter.json",
            "notebook.ipynb",
            FILE_NAME,
            "samples/01.png",
        }
    else:
        assert after == before or set(after) == {".gitattributes"}
    commits = len(hub[REPO].titles) - titles if REPO in hub else 0
    assert commits == int(landed)
    hub.faults.clear()
    adapt.push(folder, REPO, tag=None if REPO in hub and "v2" in hub[REPO].tags else "v2")
    assert len(hub[REPO].titles) == titles + 1, "one commit in all"
    assert hub[REPO].tags["v2"] == hub[REPO].refs["main"]


def test_a_lost_answer_of_the_commit_is_no_error(hub, base, folder):
    hub.fault(PHASES["commit"], drop=True, after=True)
    done = adapt.push(folder, REPO)
    assert done.commit == hub[REPO].refs["main"] and len(hub[REPO].titles) == 2


LOST = [{"drop": True}, {"status": 502}, {"status": 500, "html": True}]


def offered(hub, name="bob/theirs"):
    return [ref for ref in hub[name].refs if ref.startswith("refs/pr/")]


@pytest.mark.parametrize("what", LOST, ids=str)
def test_a_lost_answer_of_a_pull_request_is_looked_up(hub, base, folder, what):
    hub.put("bob/theirs", {"README.md": b"# theirs\n"})
    hub.fault(PHASES["commit"], **what, after=True)
    done = adapt.push(folder, "bob/theirs", pr=True, replace_card=True)
    (ref,) = offered(hub)
    assert done.commit == hub["bob/theirs"].refs[ref] and done.url == f"{hub.endpoint}/bob/theirs/discussions/{ref[8:]}"


def test_a_retry_opens_no_second_pull_request_and_a_changed_adapter_does(hub, base, folder):
    hub.put("bob/theirs", {"README.md": b"# theirs\n"})
    hub.fault(PHASES["commit"], drop=True, after=True)
    hub.fault(r"GET .*/discussions$", status=503, times=99)
    with pytest.raises(TransferError):
        adapt.push(folder, "bob/theirs", pr=True)
    assert offered(hub) == [], "nothing is sent before it is known what is offered already"
    hub.faults[1:] = []
    hub.before_commit = lambda: hub.fault(r"GET .*/discussions$", status=503, times=1)
    with pytest.raises(TransferError, match="cannot be reached"):
        adapt.push(folder, "bob/theirs", pr=True)
    (first,) = offered(hub)
    hub.before_commit = None
    again = adapt.push(folder, "bob/theirs", pr=True)
    assert offered(hub) == [first] and again.commit == hub["bob/theirs"].refs[first] and again.sent == ()
    assert again.url.endswith(f"/discussions/{first[8:]}")
    (folder / "samples" / "02.png").unlink()
    adapt.push(folder, "bob/theirs", pr=True)
    assert len(offered(hub)) == 2 and set(hub["bob/theirs"].files) == {"README.md"}


def test_somebody_else_s_commit_in_between_is_not_overwritten(hub, base, folder):
    adapt.push(folder, REPO)
    (folder / "samples" / "02.png").unlink()

    def meanwhile():
        hub.before_commit = None
        files = hub[REPO].commits[hub[REPO].refs["main"]]
        hub[REPO].commit({**files, "theirs.md": Blob(b"words", False)}, "theirs")

    hub.before_commit = meanwhile
    with pytest.raises(TransferError, match="changed the repository meanwhile"):
        adapt.push(folder, REPO)
    assert "theirs.md" in hub[REPO].files and "samples/02.png" in hub[REPO].files
    adapt.push(folder, REPO)
    assert "theirs.md" in hub[REPO].files and "samples/02.png" not in hub[REPO].files


def test_weights_that_arrived_are_not_sent_again(hub, base, folder):
    hub.fault(PHASES["commit"], status=500)
    with pytest.raises(TransferError, match="trouble of its own"):
        adapt.push(folder, REPO)
    assert len(hub.lfs) == 1
    hub.log.clear()
    adapt.push(folder, REPO)
    assert [line for line in hub.log if line.startswith("PUT")] == []


@pytest.mark.parametrize("number", [1, 2, 3])
def test_large_files_go_in_parts_and_a_part_that_fails_is_sent_again(hub, base, folder, number):
    hub.part_size = (folder / FILE_NAME).stat().st_size // 3 + 1
    hub.fault(rf"PUT /_part/.*/{number}$", drop=True)
    adapt.push(folder, REPO)
    assert hub[REPO].files[FILE_NAME] == (folder / FILE_NAME).read_bytes()
    assert len([line for line in hub.log if line.startswith("PUT /_part")]) == 4


@pytest.mark.parametrize("phase", ["look", "commit"])
def test_a_server_that_has_gone_silent_is_not_waited_for_for_ever(hub, base, folder, phase, monkeypatch):
    from huggingface_hub.utils import _http

    _http.close_session()
    monkeypatch.setattr("adapt.fetch.patience.SECONDS", 0.3)
    hub.fault(PHASES[phase], delay=2.0, times=99)
    with pytest.raises(TransferError, match="cannot be reached: ReadTimeout"):
        adapt.push(folder, REPO)


def test_a_file_that_changes_during_the_push_is_noticed(hub, base, folder, monkeypatch):
    """The digest that was planned is compared with what the Hub holds afterwards."""
    swap = Blob(b"other bytes", True)

    def meanwhile():
        for oid in hub.lfs:
            hub.lfs[oid] = swap.content

    hub.before_commit = meanwhile
    with pytest.raises(TransferError, match="holds other bytes than were sent"):
        adapt.push(folder, REPO)


def test_no_request_names_this_machine_or_the_user_s_folders(hub, base, folder):
    """Neither bodies nor addresses: 0 of all that is sent."""
    adapt.push(folder, REPO, tag="v1")
    assert hub.bodies and not any(str(folder).encode() in body for body in hub.bodies)
    assert not any(re.search(r"/(tmp|home|root)/", line) for line in hub.log)
