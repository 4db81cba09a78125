"""`events.jsonl`: what is written is what `docs/watching.md` says, and what is documented is written."""

import ast
import json
import re
from pathlib import Path

from tiny_runs import tiny

import adapt
from adapt.training import events
from adapt.training.events import EVERY, SCHEMA, Events

ROOT = Path(adapt.__file__).parents[1]
DOCS = (ROOT / "docs" / "watching.md").read_text("utf-8")


def documented():
    """Event → fields, from the table under `## events.jsonl`."""
    part = DOCS.partition("## events.jsonl")[2].partition("\n## ")[0]
    found, kind = {}, None
    for first, field in re.findall(r"^\|\s*(?:`(\w+)`)?\s*\| `(\w+)` \|", part, re.M):
        kind = first or kind
        found.setdefault(kind, []).append(field)
    return found


def written_in_code():
    """The first words of every `….events.add("kind", …)` in the package."""
    kinds = set()
    for path in (ROOT / "adapt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "add"
                and node.args
            ):
                owner, kind = ast.unparse(node.func.value), node.args[0]
                if owner.split(".")[-1] == "events" and isinstance(kind, ast.Constant):
                    kinds.add(kind.value)
    return kinds


def test_the_documentation_and_the_code_name_the_same_events_and_fields():
    assert documented() == {kind: list(fields) for kind, fields in SCHEMA.items()}
    assert written_in_code() == set(SCHEMA)
    assert all(f"`{name}`" in DOCS for name in EVERY)


def test_every_field_that_a_run_writes_is_documented(whole):
    """All kinds of a plain run; the others are written in `test_run_requests.py` and `test_resume.py` by the same calls."""
    told = events.read(whole.folder)
    assert {e["event"] for e in told} == {"step", "validation", "snapshot", "preview", "checkpoint", "finished"}
    for event in told:
        assert set(event) == {*EVERY, *SCHEMA[event["event"]]}, event
    bands = [band for e in told if e["event"] == "validation" for band in e["curve"]]
    row = next(line for line in DOCS.splitlines() if line.startswith("| | `curve` |"))
    assert bands and all(f"`{name}`" in row for band in bands for name in band)
    assert set(next(e for e in told if e["event"] == "finished")["proof"]) >= {"layers", "difference", "effect"}


def test_numbers_are_those_of_the_run(whole):
    told = events.read(whole.folder)
    measured = [e for e in told if e["event"] == "validation"]
    assert [e["step"] for e in measured] == [m.step for m in whole.measurements]
    assert [e["loss"] for e in measured] == [m.loss for m in whole.measurements]
    assert events.losses(whole.folder) == dict(whole.history)
    times = [e["time"] for e in told]
    assert times == sorted(times) and 1.7e9 < times[0] < 5e9
    assert all(e["memory_gib"] > 0.01 and e["seconds"] > 0 for e in told if e["event"] == "step")


def test_prompts_with_every_kind_of_line_end_stay_on_one_line(tmp_path):
    prompt = "a\nb\u2028c\u2029d\x85e\x0bf\x1cg\r"
    record = Events(tmp_path)
    record.add("preview", {"step": 1, "prompts": [prompt], "seconds": 0.1})
    record.add("checkpoint", {"step": 1})
    assert (tmp_path / "events.jsonl").read_bytes().count(b"\n") == 2
    assert [e["event"] for e in events.read(tmp_path)] == ["preview", "checkpoint"]
    assert events.read(tmp_path)[0]["prompts"] == [prompt]


def test_what_is_no_event_is_skipped(tmp_path):
    (tmp_path / "events.jsonl").write_bytes(
        b'{"event": "step", "step": 1}\n{"ev\n[1]\n7\n\xff\xfe\n{"event": "x"}\n{"a": 1}\n'
    )
    assert [e["event"] for e in events.read(tmp_path)] == ["step", "x"]


def test_listeners_are_told_what_is_written_and_only_by_the_first_process(tmp_path):
    told = []
    for folder in (tmp_path, None):
        record = Events(folder)
        record.listeners.append(lambda kind, values: told.append((kind, values)))
        record.add("checkpoint", {"step": 4})
    assert told == [("checkpoint", {"step": 4})]
    line = json.loads((tmp_path / "events.jsonl").read_text())
    assert {k: v for k, v in line.items() if k != "time"} == {"event": "checkpoint", "step": 4}


def test_tiny_runs_draw_and_measure():
    assert tiny().validate_every <= tiny().steps and tiny().previews
