"""Brackets: A1111's numbers, and one line for what cannot be read."""

import pytest

from adapt.errors import SettingsError
from adapt.prompts import PLAIN, read


def pieces(text):
    (term,) = read(text).terms
    return [[(piece.text, round(piece.weight, 4)) for piece in part] for part in term.parts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (red:1.3) cat", [[("a ", 1), ("red", 1.3), (" cat", 1)]]),
        ("((a)) [b]", [[("a", 1.21), (" ", 1), ("b", 0.9091)]]),
        ("(a (b:2) c:0.5)", [[("a ", 0.5), ("b", 1), (" c", 0.5)]]),
        ("(a: .5 )", [[("a", 0.5)]]),
        ("(a, b:1e-1)", [[("a, b", 0.1)]]),
        ("(red:1) ap(ple:1.0)", [[("red apple", 1)]]),
        (r"a \(b\) \[c\] d\:e \\", [[("a (b) [c] d:e \\", 1)]]),
        ("at 10:30: (note: this)", [[("at 10:30: ", 1), ("note: this", 1.1)]]),
        ("a BREAK (b BREAK c:2) BREAKER", [[("a", 1)], [("b", 2)], [("c", 2), (" BREAKER", 1)]]),
        ("blend", [[("blend", 1)]]),
        ("blend(a)", [[("blend", 1), ("a", 1.1)]]),
        ("a blend(b)", [[("a blend", 1), ("b", 1.1)]]),
        ("", [[]]),
    ],
)
def test_weights_are_a1111s(text, expected):
    assert pieces(text) == expected


def test_a_blend_has_shares_that_add_up_to_1():
    terms = read("blend( a fox:3 | (an:1.2) owl | :4)").terms
    assert [term.share for term in terms] == [0.375, 0.125, 0.5]
    assert [[piece.text for part in term.parts for piece in part] for term in terms] == [["a fox"], ["an", " owl"], []]
    assert read("blend(a:2)").terms == read("a").terms


@pytest.mark.parametrize(
    "text",
    [
        *("(word:1e9)", "(word:-1)", "(word:nan)", "(word:inf)", "((((a:9):9):9):9)", "(" * 40 + "a" + ")" * 40),
        *("(a", "a)", "[a", "a]", "[a)", "(a]", "a:1.2)", ":)", "[a:1.2)"),
        *("[a:b:0.5]", "[a|b]", "[b:0.5]"),
        *("blend(a|b", "blend(a|b) c", "blend(a:0|b:0)", "blend(a:-1|b)", "blend(a:nan|b)", "blend(blend(a|b)|c)"),
        *("blend((a|b)", "blend(a:1|(b:1e9))"),
    ],
)
def test_what_cannot_be_read_is_one_line(text):
    with pytest.raises(SettingsError) as caught:
        read(text)
    told = str(caught.value)
    assert "\n" not in told and "given" in told and "allowed" in told


def test_plain_text_is_one_piece_as_it_is():
    (term,) = read(r"(a [b \( {c", PLAIN).terms
    assert [piece.text for part in term.parts for piece in part] == [r"(a [b \( {c"]
