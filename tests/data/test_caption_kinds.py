"""Every kind of caption that lies in real folders: the right text, or one line that says what is wrong and where."""

import json
import shlex
import string
import sys

import pytest

from adapt.config import TrainSettings, require_known, resolve
from adapt.data import find
from adapt.data.dataset_config import OPTIONS
from adapt.data.sources import Source, _parsed
from adapt.errors import DataError, SettingsError

# content of the caption file → captions, or words of the error
FILES = {
    "one line": ("a cat", ["a cat"]),
    "line feed at the end": ("a cat\n", ["a cat"]),
    "several lines": ("a cat\nanother\n\nthird", ["a cat", "another", "third"]),
    "windows line ends": ("a cat\r\nanother\r\n", ["a cat", "another"]),
    "old mac line ends": ("a cat\ranother", ["a cat", "another"]),
    "unicode line ends": ("a\u2028b\u2029c\x85d", ["a", "b", "c", "d"]),
    "empty": ("", []),
    "blanks only": (" \t \n\u3000\n", []),
    "byte order mark": (b"\xef\xbb\xbfa cat", ["a cat"]),
    "byte order mark alone": (b"\xef\xbb\xbf", []),
    "byte order mark inside": ("a \ufeffcat", ["a  cat"]),
    "blanks around": ("  a cat\t ", ["a cat"]),
    "tab inside": ("a\tcat", ["a cat"]),
    "control characters": ("a\x07b\x1bc\x7fd", ["a b c d"]),
    "accents": ("Übergrößenträger façade", ["Übergrößenträger façade"]),
    "decomposed accents": ("e\u0301tude", ["e\u0301tude"]),
    "chinese": ("一只猫", ["一只猫"]),
    "arabic": ("قطة صغيرة", ["قطة صغيرة"]),
    "emoji": ("🦊👩‍👩‍👧", ["🦊👩‍👩‍👧"]),
    "right-to-left mark": ("a \u202ecat", ["a \u202ecat"]),
    "zero-width space": ("a\u200bcat", ["a\u200bcat"]),
    "quotes": ("\"a cat\", 'dog'", ["\"a cat\", 'dog'"]),
    "commas at the ends": (", a, b,", [", a, b,"]),
    "brackets": ("(a:1.2), [b], {c|d}", ["(a:1.2), [b], {c|d}"]),
    "html": ("<b>cat</b> &amp; dog", ["<b>cat</b> &amp; dog"]),
    "percent and braces": ("100% {name} %s", ["100% {name} %s"]),
    "backslashes": (r"a\(b\) \n", [r"a\(b\) \n"]),
    "json text": ('{"text": "a"}', ['{"text": "a"}']),
    "a number": ("42", ["42"]),
    "none": ("None", ["None"]),
    "very long": ("word " * 5000, [("word " * 5000).strip()]),
    "a thousand lines": ("\n".join(f"c{i}" for i in range(1000)), [f"c{i}" for i in range(1000)]),
    "latin-1": ("café".encode("latin-1"), "not UTF-8 at byte 3"),
    "windows-1251": ("кот".encode("cp1251"), "not UTF-8 at byte 0"),
    "shift-jis": ("猫".encode("shift-jis"), "not UTF-8 at byte"),
    "gbk": ("我有一只猫和一只狗".encode("gbk"), "not UTF-8 at byte"),
    "utf-16": ("a cat".encode("utf-16"), "UTF-16, not UTF-8, at byte 0"),
    "utf-16 without a mark": ("a cat".encode("utf-16-le"), "NUL at byte 1"),
    "utf-32": ("a cat".encode("utf-32"), "at byte 0"),
    "cut inside a letter": ("caf\u00e9".encode()[:-1], "not UTF-8 at byte 3"),
    "surrogates in utf-8": (b"a \xed\xa0\xbd", "not UTF-8 at byte 2"),
    "nul at the end": (b"a cat\0", "NUL at byte 5"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(20), "not UTF-8 at byte 0"),
    "a mebibyte and one": (b"x" * (2**20 + 1), "larger than 1024 KiB"),
}


@pytest.fixture
def folder(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "b.png").write_bytes(png(1))
    return tmp_path


def refused(folder, words):
    with pytest.raises(DataError) as error:
        find(folder)
    line = str(error.value)
    assert words in line and "\n" not in line and error.value.exit_code == 2, line


@pytest.mark.parametrize("kind", FILES)
def test_caption_files(folder, kind):
    content, expected = FILES[kind]
    (folder / "a.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    if isinstance(expected, str):
        refused(folder, f"a.txt: {expected}" if expected != "at byte 0" else expected)
    else:
        assert list(find(folder).pictures[0].captions) == expected


def row(**columns):
    return json.dumps({"file_name": "a.png", **columns})


# a line of metadata.jsonl → captions of a.png, or words of the error
ROWS = {
    "text": (row(text="a cat"), ["a cat"]),
    "caption": (row(caption="a cat"), ["a cat"]),
    "a list": (row(captions=["a", " ", "b"]), ["a", "b"]),
    "lists in lists": (row(text=["a", ["b", None]]), ["a", "b"]),
    "a number": (row(text=3), ["3"]),
    "a fraction": (row(text=0.5), ["0.5"]),
    "null": (row(text=None), []),
    "empty text": (row(text=""), []),
    "empty list": (row(text=[]), []),
    "a line feed inside": (row(text="a\nb"), ["a b"]),
    "a lone surrogate": ('{"file_name": "a.png", "text": "a\\ud83d"}', ["a?"]),
    "text before caption": (row(caption="no", text="yes"), ["yes"]),
    "label only": (row(label="tabby_cat"), ["tabby cat"]),
    "label beside text": (row(text="x", label="cat"), ["x"]),
    "more columns": (row(text="x", width=3, tags={"a": 1}), ["x"]),
    "twice the same": (row(text="x") + "\n" + row(text="x"), ["x"]),
    "two rows": (row(text="x") + "\n" + row(text="y"), ["x", "y"]),
    "blank lines": ("\n" + row(text="x") + "\n\n", ["x"]),
    "windows line ends": (row(text="x") + "\r\n", ["x"]),
    "path with a dot": (json.dumps({"file_name": "./a.png", "text": "x"}), ["x"]),
    "path with backslash": (json.dumps({"file_name": ".\\a.png", "text": "x"}), ["x"]),
    "true": (row(text=True), "line 1: a caption is text or a list of texts, not bool"),
    "a mapping": (row(text={"en": "x"}), "line 1: a caption is text or a list of texts, not dict"),
    "no name": (json.dumps({"text": "x"}), "lacks a column"),
    "a name that is empty": (json.dumps({"file_name": "", "text": "x"}), "line 1: no file_name"),
    "a name that is a number": (json.dumps({"file_name": 3, "text": "x"}), "line 1: no file_name"),
    "a name that is nowhere": (
        json.dumps({"file_name": "c.png", "text": "x"}),
        "names files that are no pictures here",
    ),
    "a name above the folder": (json.dumps({"file_name": "../a.png", "text": "x"}), "no pictures here"),
    "an absolute name": (json.dumps({"file_name": "/a.png", "text": "x"}), "no pictures here"),
    "another case": (json.dumps({"file_name": "A.PNG", "text": "x"}), "no pictures here"),
    "no text": (json.dumps({"file_name": "a.png", "size": 3}), "lacks a column"),
    "no JSON": ("{'file_name': 'a.png'}", "line 1 is no JSON"),
    "a cut line": (row(text="x") + '\n{"file_na', "line 2 is no JSON"),
    "a list for a line": ("[1, 2]", "line 1 is no JSON object"),
    "one JSON list": ("[\n" + row(text="x") + "\n]", "line 1 is no JSON"),
    "brackets without end": ("[" * 100_000, "line 1 is no JSON"),
    "nothing": ("", "has no rows"),
    "latin-1": (b'{"file_name": "a.png", "text": "\xe9"}', "not UTF-8 at byte"),
    "utf-16": (row(text="x").encode("utf-16"), "UTF-16, not UTF-8"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_metadata(folder, kind):
    content, expected = ROWS[kind]
    (folder / "metadata.jsonl").write_bytes(content.encode() if isinstance(content, str) else content)
    if isinstance(expected, str):
        refused(folder, expected)
    else:
        assert list(find(folder).pictures[0].captions) == expected


# ------------------------------------------------------------------------------------------------ settings
SETTINGS = {
    "repeats=folder": "repeats: ",
    "repeats=10": "repeats: ",
    "repeats=true": "repeats: takes a value, not true or false",
    "masks=file": "masks: ",
    "masks=true": "masks: takes a value, not true or false",
    "masks=nan": "masks: ",
    "shuffle_tags=maybe": "shuffle_tags: ",
    "keep_tags=-1 shuffle_tags=true": "keep_tags: ",
    "keep_tags=1.5 shuffle_tags=true": "keep_tags: ",
    "keep_tags=2": "keep_tags (2) does something only with shuffle_tags or tag_dropout",
    "keep_tags_separator='|||'": "keep_tags_separator (|||) does something only with shuffle_tags or tag_dropout",
    "keep_tags_separator='\"\"' tag_dropout=0.1": "keep_tags_separator: ",
    "tag_dropout=1.1": "tag_dropout: ",
    "tag_dropout=nan": "tag_dropout: ",
    "tag_dropout=-0.1": "tag_dropout: ",
    "tag_variants=0": "tag_variants: ",
    "tag_variants=100000": "tag_variants: ",
    "tag_variants=inf": "tag_variants: ",
    "trigger='\"  \"'": "trigger: there is nothing to be seen in it",
    "trigger=[a]": "trigger: ",
    "caption_dropout=2": "caption_dropout: ",
    "caption_dropout=true": "caption_dropout: takes a value, not true or false",
    "shuffle_caption=true": "did you mean shuffle_tags?",
    "keep_tokens=1": "did you mean keep_tags?",
    "caption_tag_dropout_rate=0.1": "did you mean tag_dropout?",
    "keep_tokens_separator='|'": "did you mean keep_tags_separator?",
    "masked_loss=true": "did you mean masks?",
    "alpha_mask=true": "did you mean masks?",
    "num_repeats=10": "did you mean repeats?",
}


@pytest.mark.parametrize("words", SETTINGS)
def test_settings_that_are_wrong(words):
    with pytest.raises(SettingsError) as error:
        resolve(overrides=shlex.split(words))
    assert SETTINGS[words] in str(error.value) and "\n" not in str(error.value)


def typos(name):
    """Every way to leave a letter out, to double one, to swap two, and one way to hit another at each place."""
    for i in range(len(name)):
        yield name[:i] + name[i + 1 :]
        yield name[:i] + name[i] + name[i:]
        yield name[:i] + ("q" if name[i] != "q" else "w") + name[i + 1 :]
        if i and name[i] != name[i - 1]:
            yield name[: i - 1] + name[i] + name[i - 1] + name[i + 1 :]


KEYS = string.ascii_lowercase + string.digits + "_"


def every_typo(name):
    """Everything that one wrong press makes of a name: each character left out, each key hit instead of one or between two, each
    two neighbours swapped."""
    for i in range(len(name) + 1):
        before, after = name[:i], name[i:]
        yield before + after[1:]
        for key in KEYS:
            yield before + key + after
            yield before + key + after[1:]
        if after[1:]:
            yield before + after[1] + after[0] + after[2:]


ONE_KEY_APART = {
    "resolution": {"resolutions"},
    "resolutions": {"resolution"},
    "adam_beta1": {"adam_beta2"},
    "adam_beta2": {"adam_beta1"},
}
"""Settings that are each other's typos: the first two take no value of the other, the last are the names that all give them."""


@pytest.mark.parametrize("name", TrainSettings.model_fields)
def test_every_one_letter_typo_of_every_setting_is_caught(name, monkeypatch):
    """All of them: over 200 000."""
    monkeypatch.setattr(sys.modules["adapt.config.resolve"], "did_you_mean", lambda *_: None)
    made = set(every_typo(name)) - {name}
    others = made & set(TrainSettings.model_fields)
    assert others == ONE_KEY_APART.get(name, set())
    for typo in made - others:
        try:
            require_known([typo])
        except SettingsError as error:
            assert f"unknown setting: {typo}" in str(error)
        else:
            pytest.fail(f"{typo} is taken for a setting")


def test_several_resolutions_are_no_resolution():
    for words in ("resolution=[64, 128]", "resolutions=64"):
        with pytest.raises(SettingsError, match="resolution"):
            resolve(overrides=[words])


@pytest.mark.parametrize("name", [name for name in OPTIONS if len(name) > 3])
def test_every_one_letter_typo_of_a_dataset_config_is_caught(tmp_path, name):
    written = [typo for typo in dict.fromkeys(typos(name)) if typo not in OPTIONS and typo not in ("subsets",)]
    assert len(written) > len(name)
    rows = "\n".join(f'"{typo}" = 1' for typo in written)
    file = tmp_path / "kohya.toml"
    file.write_text(f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\n{rows}\n")
    with pytest.raises(SettingsError) as error:
        find(file)
    assert all(f"{typo} is unknown (did you mean {name}?)" in str(error.value) for typo in written)


@pytest.mark.parametrize("name", Source.model_fields)
def test_every_one_letter_typo_of_a_source_is_caught(tmp_path, name):
    for typo in set(typos(name)):
        file = tmp_path / "all.json"
        file.write_text(json.dumps({"sources": [{"path": "x", typo: 1}]}))
        with pytest.raises(SettingsError, match=rf"source 1: {typo} is unknown"):
            _parsed(file)


def test_there_are_enough_kinds():
    assert len(FILES) + len(ROWS) >= 80 and len(SETTINGS) >= 25
