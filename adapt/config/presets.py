"""What should I set? Settings for four jobs, each with its reason; `docs/presets.md` is written from here (`make docs`).

A preset stands where defaults would: anything that is said goes before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

AUTO = "without held-out pictures nobody knows which step to keep; auto holds back a fifth, 4 to 40"


@dataclass(frozen=True)
class Preset:
    """Attributes:
    job: what it is for, in one sentence.
    values: setting → value and reason.
    advice: what only the user can say.
    measured: what was changed → loss on held-out pictures, and drift of words that were not taught, in parts of the base's loss.
    """

    job: str
    values: Mapping[str, tuple[Any, str]]
    advice: str
    measured: Mapping[str, tuple[float, float]] = field(default_factory=dict)


PRESETS: Mapping[str, Preset] = {
    "style": Preset(
        "How something is drawn, whatever is drawn: an artist's hand, a house style.",
        {
            "anchor_above": (
                0.7,
                "outlines are decided at noisy times and rendering at clean ones: above 70 % of noise the base stays right, "
                "so that nouns which were not trained on keep their shape",
            ),
            "flip": (0.5, "a hand has no left and right; pictures whose captions tell them apart are never mirrored"),
            "validation": ("auto", AUTO),
        },
        "Captions say what is in each picture and nothing of the style: what they leave out is what the adapter learns.",
        {
            "as above": (0.754, 0.340), "anchor_above=none": (0.677, 0.852), "anchor_above=0.85": (0.704, 0.583),
            "anchor_above=0.55": (0.814, 0.208), "anchor_above=0.42": (0.868, 0.119), "flip=0": (0.757, 0.332),
            "rank=4": (0.756, 0.287), "rank=32": (0.752, 0.373), "caption_dropout=0.05": (0.755, 0.340),
        },
    ),
    "subject": Preset(
        "One thing that shall be drawn in new places: a pet, a person, a product.",
        {
            "rank": (4, "one thing needs few directions: more of them learn no more of it, and move what has other names"),
            "epochs": (100.0, "each picture is seen a hundred times, however few there are; in steps, ten pictures would be "
                              "seen four hundred times"),
            "caption_dropout": (0.0, "the subject shall come when it is called, and not with an empty prompt"),
        },
        "Give it a name: trigger=…, or a new word (new_tokens). prior_prompt='a dog' keeps other dogs as they are, for twice the "
        "time: nothing else that was tried keeps so much. No flip: things have sides.",
        {
            "as above": (0.581, 0.255), "rank=8, caption_dropout=0.05": (0.576, 0.378),
            "the same, rank=2": (0.587, 0.247), "the same, rank=4": (0.580, 0.293),
            "the same, rank=16": (0.575, 0.490), "the same, epochs=25": (0.636, 0.188), "the same, epochs=50": (0.587, 0.321),
            "the same, epochs=200": (0.577, 0.442), "rank=8, caption_dropout=0": (0.577, 0.316),
            "rank=8, caption_dropout=0.1": (0.576, 0.436), "rank=8, caption_dropout=0.05, prior_prompt='a thing'": (0.579, 0.064),
        },
    ),
    "class": Preset(
        "A kind of thing that the base draws badly or not at all, from many pictures: birds of a region, circuit boards.",
        {
            "flip": (0.5, "it doubles the pictures of things that are seen from any side"),
            "validation": ("auto", AUTO),
            "buckets": (True, "many pictures come in many shapes, and a square crop cuts heads and tails off"),
        },
        "Captions name each picture's own kind; with several kinds, about as many pictures of each.",
        {"as above": (0.316, 0.411), "flip=0 (flags, whose captions tell sides)": (0.301, 0.447), "rank=4": (0.353, 0.246)},
    ),
    "edit": Preset(
        "Changing a given picture by words: pairs of before and after. Only for bases that take a picture beside the words.",
        {
            "rank": (32, "it is a skill, learned from many pairs, and not one look"),
            "caption_dropout": (0.05, "InstructPix2Pix's share (Brooks et al. 2023, arXiv 2211.09800, section 3.2.1)"),
            "validation": ("auto", AUTO),
        },
        "Captions say what to change, not what is seen.",
    ),
}  # fmt: skip
SAME = {"epochs": "steps"}
"""Two ways to say one thing: who says the other has said it."""


def preset_defaults(values: Any) -> dict[str, Any]:
    """Settings that are not given and for which the chosen preset has values."""
    if not isinstance(values, Mapping) or not isinstance(values.get("preset"), str):
        return {}
    preset = PRESETS.get(values["preset"])
    told = {name: value for name, (value, _) in preset.values.items()} if preset else {}
    return {name: value for name, value in told.items() if name not in values and SAME.get(name) not in values}


HEAD = """# What should I set?

Written from the code by `make docs`; do not edit. A preset stands where defaults would; whatever you set yourself goes
before it. `--dry-run` shows every value with where it came from.

What was measured: `benchmarks/presets.py` changes one setting at a time on `icons`, 160 steps of 8 (`subject`: its epochs),
two runs each, whose figures differ by less than 0.01 and 0.08. *Learned* is the loss on held-out pictures, *drift* how far the
predictions for words that were not taught move, both in parts of the base's loss: 1 and 0 are the base, lower is better.
Larger bases need not agree.

```
adapt train ./my-pictures --dry-run preset=style
adapt train ./my-pictures --dry-run preset=subject trigger=zxc prior_prompt='a cat'
```
"""


def markdown() -> str:
    """The page."""
    return HEAD + "".join(f"{line}\n" for name, preset in PRESETS.items() for line in _section(name, preset))


def _section(name: str, preset: Preset) -> Iterator[str]:
    yield from ("", f"## {name}", preset.job, "", "| setting | why |", "|---|---|")
    for setting, (value, reason) in preset.values.items():
        yield f"| `{setting}={str(value).lower()}` | {reason} |"
    yield from ("", preset.advice)
    if preset.measured:
        yield from ("", "| measured | learned | drift |", "|---|---|---|")
        yield from (f"| {what} | {learned:.3f} | {drift:.3f} |" for what, (learned, drift) in preset.measured.items())
