"""Words of a prompt, and maps of them on one grid."""

import pytest
import torch

from adapt.errors import SettingsError
from adapt.sampling.heat import columns_in, elsewhere, grid_of, looked_at
from adapt.sampling.words import Word, without, words_named, words_of

PROMPT = "A red fox, a <me>-like “blue” fox; naïve café!"


def test_words_stand_where_they_say():
    words = words_of(PROMPT)
    assert [w.text for w in words] == ["A", "red", "fox", "a", "<me>-like", "blue", "fox", "naïve", "café"]
    assert all(PROMPT[w.start : w.end] == w.text for w in words)
    assert words_of(" ,.! ") == []


def test_asked_words_are_found_in_every_place_and_in_a_row():
    assert [w.start for w in words_named(PROMPT, ["FOX"])] == [6, PROMPT.rindex("fox")]
    assert [w.text for w in words_named(PROMPT, ["red  fox", "red"])] == ["red fox", "red"]
    with pytest.raises(SettingsError, match=r"no such word.*foxs.*A, red, fox, a, <me>-like, blue.*did you mean fox"):
        words_named(PROMPT, ["foxs"])
    with pytest.raises(SettingsError, match="no such word"):
        words_named("red fox", ["fox red"])


@pytest.mark.parametrize(
    ("prompt", "word", "left"),
    [
        ("a red fox", "red", "a fox"),
        ("a fox, red, small", "red", "a fox, small"),
        ("red, a fox", "red", "a fox"),
        ("a fox, red", "red", "a fox"),
        ("fox", "fox", ""),
        ("a fox  sits.", "sits", "a fox."),
    ],
)
def test_a_prompt_without_a_word_reads_as_if_it_had_never_been_there(prompt, word, left):
    assert without(prompt, words_named(prompt, [word])[0]) == left


def test_grids_are_those_of_halved_latents():
    assert grid_of(64, (8, 8)) == (8, 8)
    assert grid_of(6 * 10, (11, 20)) == (6, 10)  # halves are rounded up
    assert grid_of(4, (8, 8)) == (2, 2)
    with pytest.raises(ValueError, match="no grid"):
        grid_of(7, (8, 8))


def test_maps_of_all_tokens_add_up_and_a_word_s_tokens_belong_together():
    """Two layers on two grids; four tokens: start, `ab` in two pieces, `c`."""
    generator = torch.Generator().manual_seed(0)
    maps = {str(n): torch.randn(n, 5, generator=generator).softmax(-1) for n in (16, 4)}
    spans, words = [(0, 0), (0, 1), (1, 2), (3, 4)], [Word("ab", 0, 2), Word("c", 3, 4), Word("d", 5, 6)]
    assert [columns_in(spans, word) for word in words] == [[1, 2], [3], []]
    ab, c, d = looked_at(maps, (4, 4), spans, words)
    assert (ab.tokens, c.tokens, d.tokens) == (2, 1, 0)
    assert ab.heat.shape == (4, 4) and d.share == 0
    rest = elsewhere(maps, spans, words)
    assert ab.share + c.share + rest["picture"] + rest["no_word"] == pytest.approx(1, abs=1e-3)
    fine = maps["16"][:, [1, 2]].sum(1).view(4, 4)
    coarse = looked_at({"4": maps["4"]}, (2, 2), spans, words)[0].heat
    alone = looked_at({"16": maps["16"]}, (4, 4), spans, words)[0]
    torch.testing.assert_close(alone.heat, fine)
    torch.testing.assert_close(2 * ab.heat[0, 0], fine[0, 0] + coarse[0, 0])  # corners of both grids are one place
    across, down = alone.place
    assert fine[int(down * 4), int(across * 4)] == fine.max()
