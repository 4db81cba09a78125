"""What a picture is called: the words of its name, its look and its set, in several phrasings."""

import re
from collections.abc import Iterator

from colours import COLOURS
from prepare import Row

STYLES = {"noto": "noto style", "fluent-emoji-flat": "fluent style", "twemoji": "twemoji style"}
LOOKS = {"plain": "", "recoloured": "", "outlined": "outlined", "mirrored": "mirrored"}
COLOUR_WORD = re.compile(rf"\b({'|'.join(COLOURS)})\b *")


def words(row: Row) -> str:
    """`red apple`; of a recoloured drawing the new colour and the name without its own: `blue apple`."""
    name = row.name.replace("-", " ")
    if row.kind != "recoloured":
        return name
    bare = COLOUR_WORD.sub("", name).strip()
    return f"{row.colour} {bare or name}"


def phrasings(row: Row) -> Iterator[tuple[str, float]]:
    """(caption, weight). A look that is not the plain one is always named; the set and the colour only sometimes."""
    said, look, style = words(row), LOOKS[row.kind], STYLES[row.set]
    yield _list(said, look, style), 7
    yield _list(said, look), 2
    if row.kind == "plain":
        yield _list(f"a {said}"), 1
        yield _list(said, row.category.lower().replace(" & ", " and "), style), 1
        if row.colour and not COLOUR_WORD.search(said):
            yield _list(f"{row.colour} {said}", style), 2
            yield f"{row.colour} {said}", 1


def _list(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
