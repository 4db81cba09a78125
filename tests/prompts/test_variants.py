"""Templates: as dynamicprompts has them, and a function of the seed alone."""

from collections import Counter

import pytest

from adapt.errors import AdaptError
from adapt.prompts import Wildcards, every, picked
from adapt.sampling.prompts import requests_of
from adapt.sampling.request import Request
from adapt.sampling.variants import Variants

EVERY = [
    ("{red|blue} apple", ["red apple", "blue apple"]),
    ("{2$$a|b|c}", ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b"]),
    ("{1-2$$ and $$a|b}", ["a", "b", "a and b", "b and a"]),
    ("{-1$$a|b}", ["a", "b"]),
    (
        "{2-$$ $$a|b|c}",
        ["a b", "a c", "b a", "b c", "c a", "c b", "a b c", "a c b", "b a c", "b c a", "c a b", "c b a"],
    ),
    ("{0-1$$a|b}", ["", "a", "b"]),
    ("{5$$a|b}", ["a,b", "b,a"]),
    ("{ red | blue }x", ["red x", "blue x"]),
    ("{a|{b|c}}", ["a", "b", "c"]),
    ("{0.7::a|0.3::b}", ["a", "b"]),
    ("{a|0::b}", ["a"]),
    ("a  {b|} c", ["a  b c", "a   c"]),
    ("{}", [""]),
    ("a fox", ["a fox"]),
    (r"\{a\|b\} \__x\__ \$5", ["{a|b} __x__ $5"]),
]


@pytest.fixture
def folder(tmp_path):
    """Animals, two kinds of colours in a subfolder, and two files that stand for each other."""
    files = {
        "animal": "\ufeff# kinds\nfox\n\n owl \nfox\n",
        "colours/warm": "red\n{dark|light} orange",
        "colours/cold": "blue",
        "pet": "0.5::tame __animal__\n1.5::cat",
        "hen": "__egg__",
        "egg": "__hen__",
        "bare": "# nothing",
    }
    for name, text in files.items():
        path = tmp_path / "wild" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "wild"


@pytest.mark.parametrize(("template", "expected"), EVERY)
def test_every_variant_as_dynamicprompts_lists_them(template, expected):
    assert every(template) == expected


@pytest.mark.parametrize("template", [template for template, _ in EVERY])
def test_what_chance_picks_is_one_of_them_and_a_function_of_seed_and_key(template):
    drawn = [picked(template, seed, "0") for seed in range(60)]
    assert drawn == [picked(template, seed, "0") for seed in range(60)]
    assert set(drawn) <= set(every(template))
    if len(every(template)) > 1:
        assert drawn != [picked(template, seed, "1") for seed in range(60)]


def test_chance_follows_the_weights_and_knows_every_order():
    drawn = Counter(picked("{0.7::a|0.3::b}", seed) for seed in range(2000))
    assert abs(drawn["a"] - 1400) < 4 * (2000 * 0.7 * 0.3) ** 0.5
    orders = Counter(picked("{2$$a|b|c}", seed) for seed in range(1200))
    assert len(orders) == 6 and min(orders.values()) > 140
    counts = Counter(picked("{1-2$$a|b}", seed).count(",") for seed in range(1000))
    assert abs(counts[0] - 500) < 64


def test_wildcards_are_lines_of_files(folder):
    wild = Wildcards(folder)
    assert every("a __animal__", wild) == ["a fox", "a owl"]
    assert every("__colours/warm__", wild) == ["red", "dark orange", "light orange"]
    assert every("__warm__", wild) == every("__colours/warm__", wild)
    assert set(every("__colours/*__", wild)) == {"blue", "red", "dark orange", "light orange"}
    assert every("__pet__", wild) == ["tame fox", "tame owl", "cat"]
    assert every("{2$$ and $$__animal__}", wild) == ["fox and owl", "owl and fox"]
    assert every("{1-$$__animal__}", wild) == ["fox", "owl", "fox,owl", "owl,fox"]
    cats = sum(picked("__pet__", seed, wildcards=wild) == "cat" for seed in range(1000))
    assert abs(cats - 750) < 55


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a {b", "{ is not closed"),
        ("a} b", "} closes nothing"),
        ("${x=a}", "variables"),
        ("{@a|b}", "marks"),
        ("{0::a|0::b}", "all weights"),
        ("{" * 80 + "}" * 80, "levels"),
        ("__plant__", "no such wildcard"),
        ("__anmal__", "did you mean __animal__"),
        ("__hen__", "without end"),
        ("__bare__", "no lines"),
        ("__../secret__", "no such wildcard"),
        ("{6$$a|b|c|d|e|f|g|h} {1|2}", "too many variants"),
    ],
)
def test_bad_templates_are_one_line(folder, template, said):
    with pytest.raises(AdaptError) as caught:
        every(template, Wildcards(folder))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_wildcards_without_a_folder_say_what_to_give(tmp_path):
    with pytest.raises(AdaptError, match="--wildcards DIR"):
        picked("__animal__", 0)
    with pytest.raises(AdaptError, match="no wildcards"):
        picked("__animal__", 0, wildcards=Wildcards(tmp_path / "none"))


def test_requests_of_a_template_differ_by_seed_and_a_seed_keeps_its_words():
    template = Request(prompt="", seed=3)
    row = {"prompt": "{red|blue|green} {apple|pear}", "negative_prompt": "{dark|dull}", "count": 20}
    requests = requests_of(template, [row])
    assert len({request.prompt for request in requests}) > 3
    (alone,) = requests_of(template, [{**row, "count": 1, "seed": 9}])
    same = next(request for request in requests if request.seed == 9)
    assert (alone.prompt, alone.negative_prompt) == (same.prompt, same.negative_prompt)


def test_all_variants_are_drawn_with_the_same_seeds():
    row = {"prompt": "{a|b}", "negative_prompt": "{x|y}", "compose": [("{1|2}", 0.5)], "count": 2}
    drawn = requests_of(Request(prompt=""), [row], Variants(every=True))
    assert len(drawn) == 16
    assert [request.seed for request in drawn] == [0] * 8 + [1] * 8
    assert len({request.texts for request in drawn[:8]}) == 8
    assert all(request.compose[0][1] == 0.5 for request in drawn)


def test_a_plain_prompt_is_left_alone():
    text = "{a|b} __x__ (c"
    (request,) = requests_of(Request(prompt="", prompt_syntax="plain"), [{"prompt": text}], Variants(every=True))
    assert request.prompt == text
