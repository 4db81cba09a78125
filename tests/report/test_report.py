"""The report: one file, nothing from elsewhere, everything of the user's escaped, whatever lies in the folder."""

import html.parser
import json
import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from adapt.cli.main import main
from adapt.config import TrainSettings
from adapt.errors import RunError
from adapt.report import facts_of, pictures, render, write_report
from adapt.report.facts import Round
from adapt.report.page import smoothed
from adapt.report.wording import BIDI, figure, shown
from adapt.training import folder

HOSTILE = (
    "<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "{{ 7 * 7 }} {% raw %}", "</style><h1>", "&lt;b&gt;",
    "evil \u202egnp.exe\u202c \u2066\u2069\u200f", "\x00\x07\x1b[31m red", "javascript:alert(1)", "]]>--><svg onload=alert(1)>",
    "\ud800 lone", "'\"`", "https://example.org/x.png", "line\nbreak\u2028and\u2029more", "x" * 5000,
)  # fmt: skip


def measurement(step, ratio, **more):
    return {
        "step": step, "loss": ratio, "base": 1.0, "ratio": ratio, "standard_error": 0.02, "change": -3.0, "pictures": 8,
        "log_ratio": float(np.log(ratio)), "log_error": 0.02, "weights": "ema", "judged": {"ema": ratio, "raw": ratio + 0.1},
        "curve": [{"noise": n, "loss": ratio, "base": 1.0, "log_ratio": float(np.log(ratio)) + n, "standard_error": 0.03}
                  for n in (0.1, 0.5, 0.9)], **more,
    }  # fmt: skip


class Run:
    """A made-up run's folder."""

    def __init__(self, path, settings=None, **record):
        self.path, self.time = path, 1e9
        path.mkdir(parents=True)
        settings = {**TrainSettings(steps=40).model_dump(mode="json"), **(settings or {})}
        values = {
            **{"settings": settings, "data": "", "base": "", "base_reference": "icons", "pictures": [30, 8]},
            **{"machine": {"adapt": "0.2.0", "device": "cpu"}, "findings": [], "origins": {"steps": "command line"}},
        }
        (path / "run.json").write_text(json.dumps({**values, **record}))

    def add(self, event, **values):
        self.time += 1
        line = json.dumps({"event": event, "time": self.time, **values})
        with (self.path / "events.jsonl").open("a") as file:
            file.write(line + "\n")

    def trained(self, steps=40, every=10, prompts=("a fox", "a hut"), side=32):
        random = np.random.default_rng(0)
        for step in range(steps + 1):
            if step:
                self.add("step", step=step, loss=1 / step + 0.1, learning_rate=1e-3, seconds=0.5, memory_gib=1.5)
            if step % every == 0:
                self.add("validation", **measurement(step, 1 - 0.5 * step / steps))
            if step and step % every == 0 and prompts:
                self.preview(step, prompts, random.integers(0, 255, (side, side, 3), np.uint8))
        return self

    def preview(self, step, prompts, pixels):
        place = self.path / "previews" / f"step-{step:06d}"
        place.mkdir(parents=True, exist_ok=True)
        for number in range(len(prompts)):
            Image.fromarray(pixels).save(place / f"{number + 1:02d}.png")
        self.add("preview", step=step, prompts=list(prompts), seconds=2.0)

    def finished(self):
        proof = {"layers": 16, "difference": 1e-6, "effect": 2.0}
        self.add("finished", step=40, chosen_step=40, weights="ema", proof=proof)
        return self

    def page(self):
        return write_report(self.path).read_text("utf-8")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "my run")


class Page(html.parser.HTMLParser):
    """Every tag, attribute and text, and whether tags close in order."""

    EMPTY = ("meta", "img", "br", "line", "circle", "polyline")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


def assert_harmless(text):
    """Closed tags of ours, no request, no script, no character that turns text around."""
    page = Page(text)
    assert page.open == []
    assert set(page.tags) <= {
        "html", "head", "meta", "title", "style", "body", "header", "section", "footer", "h1", "h2", "h3", "p", "span",
        "bdi", "dl", "div", "dt", "dd", "small", "figure", "figcaption", "svg", "line", "text", "polyline", "circle", "i",
        "code", "table", "thead", "tbody", "tr", "th", "td", "img", "ul", "li",
    }  # fmt: skip
    for _, name, value in page.attributes:
        assert not name.startswith("on") and name not in ("href", "srcset", "action", "style", "xlink:href")
        assert name != "src" or re.fullmatch(r"data:image/webp;base64,[A-Za-z0-9+/=]+", value)
    styles = [data for tag, data in page.texts if tag == "style"]
    assert len(styles) == 1 and "url(" not in styles[0] and "@import" not in styles[0]
    policy = next(value for tag, name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not BIDI & set(text)
    assert not [c for c in text if unicodedata.category(c) == "Cc" and c != "\n"]
    return page


# ---------------------------------------------------------------------------------------------- what it holds
def test_a_finished_run(run):
    text = run.trained().finished().page()
    page = assert_harmless(text)
    words = " ".join(" ".join(data.split()) for _, data in page.texts)
    assert "Finished after 40 steps. Step 40 (moving average) became the adapter: on 8 pictures" in words
    assert "its loss is 0.500 ± 0.020 of the base's" in words
    assert page.tags.count("svg") == 3 and page.tags.count("img") == 8
    assert "16 layers" in words and "2 pictures a second" not in words
    assert "16 pictures a second, 0.5 s a step" in words and "1.5 GiB" in words
    assert "a fox" in words and "40 · kept" in words and "Nothing was found to be wrong" in words
    assert len(text) < 5_000_000


def test_settings_stand_there_with_their_origins(run):
    page = assert_harmless(run.trained().page())
    texts = [data.strip() for _, data in page.texts]
    at = texts.index("steps")
    assert [t for t in texts[at:] if t][:3] == ["steps", "40", "command line"]
    missing = [name for name in TrainSettings.model_fields if name not in texts]
    assert missing == []


def test_pictures_in_the_page_are_the_previews(run):
    """A red picture at step 10 for the second prompt is red in its cell."""
    import base64
    import io

    run.preview(10, ("a", "b"), np.zeros((40, 40, 3), np.uint8))
    Image.new("RGB", (40, 40), "red").save(run.path / "previews" / "step-000010" / "02.png")
    uris = [value for tag, name, value in Page(run.page()).attributes if name == "src"]
    assert len(uris) == 2
    for uri, colour in zip(uris, ((0, 0, 0), (255, 0, 0)), strict=True):
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
            assert picture.format == "WEBP" and picture.size == (40, 40)
            assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - colour).max() <= 6


def test_prompts_that_changed_on_the_way_have_rows_of_their_own(run):
    for step, prompts in ((10, ("a", "same")), (20, ("b", "same"))):
        run.preview(step, prompts, np.zeros((8, 8, 3), np.uint8))
    grid = pictures.grid(run.path, facts_of(run.path))
    assert [(prompt, [uri is not None for uri in row]) for prompt, row in grid.rows] == [
        ("a", [True, False]), ("b", [False, True]), ("same", [True, True]),
    ]  # fmt: skip


def test_error_bars_and_smoothing_are_drawn(run):
    page = Page(run.trained().page())
    bars = [(n, v) for tag, n, v in page.attributes if tag == "line" and n == "class" and v.startswith("bar")]
    assert len(bars) == 3 * 5 + 3 * 3  # stem and two caps of five measurements and three bands


def test_smoothing_has_no_pull_from_its_start_and_keeps_a_constant():
    assert [y for _, y in smoothed([(x, 2.0) for x in range(30)])] == pytest.approx([2.0] * 30)
    noisy = [(x, 1.0 + (-1) ** x) for x in range(400)]
    late = [y for _, y in smoothed(noisy)[200:]]
    assert max(late) - min(late) < 0.2
    assert smoothed([(0, float("nan")), (1, 3.0)]) == [(1, 3.0)]


def test_the_same_folder_gives_the_same_bytes(run):
    run.trained().finished()
    assert run.page() == run.page()
    facts = facts_of(run.path)
    assert render(facts, pictures.grid(run.path, facts)) == run.page()


# ---------------------------------------------------------------------------------------------- as it stands
def test_a_run_that_trains_a_run_that_stopped_and_one_that_has_done_nothing(tmp_path):
    nothing = Run(tmp_path / "nothing")
    assert "Stopped after step 0 of 40." in nothing.page() and "<svg" not in nothing.page()
    run = Run(tmp_path / "some").trained(steps=20)
    assert "would become the adapter now" in run.page() and 'class="state stopped"' in run.page()
    run.add("stopped", step=20, reason="the loss of step 21 is not finite")
    assert "Stopped after step 20 of 40: the loss of step 21 is not finite." in run.page()
    with folder.claimed(run.path):
        assert "Training: step 20 of 40." in run.page() and 'class="state training"' in run.page()


def test_half_lines_foreign_lines_and_damaged_pictures_are_left_out(run):
    run.trained()
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"event": "step", "step": 41, "lo\n[]\n"x"\n{"no": "event"}\n')
        file.write('{"event": "step", "step": 42, "loss": NaN}\n{"event": "step", "step": "../../x", "loss": 1}\n')
        file.write('{"event": "validation", "step": 43}\n{"event": "validation", "step": 44, "curve": 3}\n')
        file.write('{"event": "preview", "step": -1, "prompts": ["a"]}\n{"event": "finished", "proof": 3}\n')
    (run.path / "previews" / "step-000010" / "01.png").write_bytes(b"no picture")
    (run.path / "previews" / "step-000020" / "02.png").unlink()
    page = assert_harmless(run.page())
    assert page.tags.count("img") == 6
    assert facts_of(run.path).step == 40


def test_steps_that_ran_twice_count_once_the_later_time(run):
    run.add("step", step=1, loss=5.0, seconds=1.0)
    run.add("step", step=2, loss=4.0, seconds=1.0)
    run.add("resume", step=1, changes={"steps": [10, 40]})
    run.add("step", step=2, loss=3.0, seconds=1.0)
    facts = facts_of(run.path)
    assert facts.losses == {1: 5.0, 2: 3.0} and facts.speed.steps_seconds == 2.0
    assert facts.happened == ((1, "resumed, with changes: steps [10, 40]"),)


def test_what_a_resumed_run_took_back_does_not_stand(run):
    """Killed after a measurement on request at step 15, resumed at 10; then finished, and resumed with more steps."""
    run.trained(steps=10)
    run.add("step", step=15, loss=0.1, seconds=0.5)
    run.add("validation", **measurement(15, 0.01))
    run.add("resume", step=10, changes={})
    facts = facts_of(run.path)
    assert (facts.chosen, facts.step, [m.step for m in facts.measurements]) == (10, 10, [0, 10])
    run.finished()
    assert facts_of(run.path).state == "finished"
    run.add("resume", step=10, changes={"steps": [10, 40]})
    assert facts_of(run.path).state == "stopped" and len(facts_of(run.path).happened) == 3


def test_a_resumed_run_is_not_stopped_any_more(run):
    run.add("stopped", step=3, reason="stopped after step 3")
    run.add("resume", step=3, changes={})
    assert facts_of(run.path).reason is None


def test_what_the_gap_says_is_said_only_when_it_is_more_than_chance(tmp_path):
    for gap, told in ((0.3, True), (0.05, False)):
        run = Run(tmp_path / str(gap))
        run.add("validation", **measurement(10, 0.7, members=-0.5, gap=gap, gap_error=0.05))
        assert ("more than chance explains" in run.page()) == ("35\u00a0% higher" in run.page()) == told


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run in this folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- what came from the user
def test_everything_hostile_is_text(tmp_path):
    """In captions, findings, settings' names, values and origins, the base, events, and the folder's name."""
    for number, evil in enumerate(HOSTILE):
        name = re.sub(r"[/\x00\ud800]", "", evil)[:80]
        run = Run(
            tmp_path / str(number) / name, {"trigger": evil, "previews": [evil], evil: evil, "targets": [evil, evil]},
            findings=[evil], base_reference=evil, origins={"trigger": evil, evil: evil}, machine={evil: evil},
        )  # fmt: skip
        run.trained(prompts=(evil, "plain"))
        run.add("request", step=40, request=evil)
        run.add("resume", step=40, changes={evil: [evil, evil]})
        run.add("stopped", step=40, reason=evil)
        text = run.page()
        page = assert_harmless(text)
        assert page.tags.count("img") == 8
        if len(evil) < 100:
            assert shown(evil) in " ".join(data for _, data in page.texts)


def test_a_file_name_that_is_no_text_can_be_shown(tmp_path):
    run = Run(tmp_path / "na\udcffme").trained(steps=2)
    assert "na\\udcffme" in run.page()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a\nb\tc", "a b c"), ("x\u202ey", "x\\u202ey"), ("\x00", "\\u0000"), ("é 猫 👩‍🎨", "é 猫 👩‍🎨"), (7, "7")],
    ids=["lines", "direction", "null", "scripts", "number"],
)
def test_text_is_shown_as_it_is_where_it_can_be(value, expected):
    assert shown(value) == expected


def test_long_text_is_cut_and_says_so():
    assert len(shown("y" * 999, 50)) == 50 and shown("y" * 999, 50).endswith("…")


def test_figures():
    assert [figure(x) for x in (0.12345, 12345, None, True, float("inf"))] == ["0.123", "12\u202f345", "–", "–", "inf"]


# ---------------------------------------------------------------------------------------------- how large
def crowded(run, steps, prompts, side):
    """Previews of noise, which does not compress."""
    random, names = np.random.default_rng(0), [f"prompt {n}" for n in range(prompts)]
    for step in range(1, steps + 1):
        run.preview(step, names, random.integers(0, 255, (side, side, 3), np.uint8))
    run.add("validation", **measurement(steps // 2, 0.5))
    return facts_of(run.path)


def test_what_does_not_fit_becomes_smaller_and_then_fewer(run):
    facts = crowded(run, steps=8, prompts=4, side=130)
    full, small, few = (pictures.grid(run.path, facts, budget) for budget in (10**7, 150_000, 12_000))

    def size(grid):
        return sum(len(uri) * 3 / 4 for _, row in grid.rows for uri in row if uri)

    assert full.steps == small.steps == tuple(range(1, 9)) and size(full) > 150_000 >= size(small) > 50_000
    assert 0 < len(few.steps) < 8 and size(few) <= 12_000 and few.left_out == (8 - len(few.steps), 0)


@pytest.mark.slow
def test_many_large_previews_stay_within_the_limit(run):
    """30 steps × 30 prompts of 256 px would be 40 MB."""
    crowded(run, steps=30, prompts=30, side=256)
    text = run.page()
    assert 1_000_000 < len(text.encode()) < 5_000_000
    assert 'class="kept">15' in text and "more steps are in" in text and "6 more prompts are in" in text
    assert Page(text).tags.count("img") >= 24 * 3


def test_thinning_keeps_the_ends_and_the_chosen_step():
    rounds = [Round(step, ("a",)) for step in range(10, 1010, 10)]
    for chosen in (10, 20, 500, 990, 1000):
        kept = [r.step for r in pictures.thinned(rounds, chosen, 8)]
        assert len(kept) == 8 and kept == sorted(kept) and {10, 1000, chosen} <= set(kept)
    assert [r.step for r in pictures.thinned(rounds, None, 1)] == [1000] and pictures.thinned(rounds, None, 0) == []
    assert pictures.thinned(rounds[:3], 20, 8) == rounds[:3]


def test_a_budget_that_nothing_fits_still_gives_a_page(run):
    run.trained()
    assert pictures.grid(run.path, facts_of(run.path), budget=0).steps == ()


# ---------------------------------------------------------------------------------------------- the command
def test_the_command_writes_where_it_is_told_and_tells(run, tmp_path, capsys):
    run.trained().finished()
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out.strip() == str(run.path / "report.html")
    assert main(["report", str(run.path), "--output", str(tmp_path / "elsewhere.html")]) == 0
    assert (tmp_path / "elsewhere.html").read_bytes() == (run.path / "report.html").read_bytes()
    assert main(["report", str(tmp_path)]) == 2 and "no run in this folder" in capsys.readouterr().err
    assert main(["report", str(run.path), "--output", str(tmp_path / "no" / "such" / "folder.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_json_holds_the_facts_and_writes_nothing(run, capsys):
    run.trained().finished()
    assert main(["report", str(run.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["chosen"], told["step"]) == ("finished", 40, 40) and len(told["measurements"]) == 5
    assert not (run.path / "report.html").exists()
