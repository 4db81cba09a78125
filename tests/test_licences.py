"""Licences: read from cards, known by name, compared; nothing here is legal advice."""

import pytest

from adapt.errors import SettingsError
from adapt.licences import BASES, IDS, PERMISSIVE, Licence, conflicts, front_matter, of_base, require_known


def test_the_tables_use_the_hub_s_identifiers():
    assert len(IDS) > 80 and PERMISSIVE < IDS
    assert all(
        licence.id in IDS and (licence.id != "other" or (licence.name and licence.link)) for licence in BASES.values()
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: mit\n---\n# x", {"license": "mit"}),
        ("﻿---\nlicense: mit\n---\n", {"license": "mit"}),
        ("# no front matter\n---\nlicense: mit\n---\n", {}),
        ("---\nlicense: mit\n", {}),
        ("---\n- a\n- b\n---\n", {}),
        ("---\na: [\n---\n", {}),
        ("", {}),
    ],
)
def test_front_matter(text, found):
    assert front_matter(text) == found


def test_a_base_s_own_card_goes_before_the_table(tmp_path):
    assert of_base("icons") == Licence("apache-2.0") and of_base(None) is None and of_base("nobody/knows") is None
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: terms\nlicense_link: LICENSE\n---\n")
    assert of_base("icons", tmp_path) == Licence("other", "terms", "LICENSE")
    (tmp_path / "README.md").write_text("---\nlicense: [mit]\n---\n")
    assert of_base("icons", tmp_path) == Licence("apache-2.0")


@pytest.mark.parametrize(
    ("base", "said", "pictures", "count"),
    [
        ("apache-2.0", "cc-by-4.0", None, 0), ("openrail++", "openrail++", None, 0), ("openrail++", "mit", None, 1),
        ("mit", "mit", "cc-by-nc-4.0", 1), ("mit", "cc-by-nc-4.0", "cc-by-nc-4.0", 0), ("mit", "mit", "cc-by-sa-4.0", 1),
        ("mit", "cc-by-sa-4.0", "cc-by-sa-4.0", 0), ("mit", "mit", "cc-by-nd-4.0", 1), ("mit", "mit", "cc-by-nc-nd-4.0", 2),
        (None, "mit", None, 0), ("openrail++", None, "cc-by-nc-4.0", 0),
    ],
)  # fmt: skip
def test_what_does_not_fit(base, said, pictures, count):
    found = conflicts(base and Licence(base), said and Licence(said), pictures)
    assert len(found) == count and all("the" in line for line in found)


def test_names_matter_where_the_identifier_is_other():
    assert conflicts(Licence("other", "a"), Licence("other", "b"), None) and not conflicts(
        Licence("other", "a"), Licence("other", "a"), None
    )


def test_unknown_identifiers_are_refused_with_the_nearest():
    assert require_known("mit") == "mit"
    with pytest.raises(SettingsError, match=r"did you mean apache-2\.0"):
        require_known("apache-2")
