"""What is pushed: the files of one adapter, known by name, cleaned, with their digests. Judged before anything is sent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapt import files
from adapt.adapter import FACTS_NAME, Adapter, Facts, home
from adapt.card import for_repository, is_untouched, notebook, render
from adapt.errors import AdapterError
from adapt.formats.opening import check_file
from adapt.hub import clean
from adapt.hub.leaks import leaks, places, secrets
from adapt.licences import Licence

LAYOUT = re.compile(
    r"pytorch_lora_weights\.safetensors|adapter\.json|README\.md|notebook\.ipynb"
    r"|(?:peft|conditioning|ip_adapter|controlnet|embeddings)/(?:[\w.-]+/)?[\w.-]+\.(?:safetensors|json)"
    r"|transformer_2/low_noise\.safetensors"
    r"|kohya/[\w.-]+\.(?:safetensors|json|png)|samples/[\w.-]+\.(?:png|jpe?g)"
)
"""Files of an adapter, by their name in the repository. Nothing else is pushed."""
CARD, NOTEBOOK = "README.md", "notebook.ipynb"


@dataclass(frozen=True)
class Item:
    """One file of a push.

    Attributes:
        name: in the repository.
        content: its bytes, or where they are.
        size: in bytes.
        sha256, git: its digests, as git-lfs and as git name it.
        cleaned: whether something was taken out of it.
    """

    name: str
    content: bytes | Path
    size: int
    sha256: str
    git: str
    cleaned: bool = False

    @staticmethod
    def of(name: str, content: bytes | Path, cleaned: bool = False) -> Item:
        """With its size and digests."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        for piece in _pieces(content):
            sha256.update(piece)
            git.update(piece)
        return Item(name, content, size, sha256.hexdigest(), git.hexdigest(), cleaned)


@dataclass(frozen=True)
class Parcel:
    """Attributes:
    name: of the adapter.
    facts: as they are pushed.
    items: the files, by name.
    left_out: files of the folder that are not pushed.
    edited: whether the card was written by a person.
    """

    name: str
    facts: Facts
    items: Mapping[str, Item]
    left_out: tuple[str, ...]
    edited: bool

    @property
    def card(self) -> str:
        content = self.items[CARD].content
        assert isinstance(content, bytes)
        return content.decode()

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items.values())

    def with_facts(self, facts: Facts, repository: str) -> Parcel:
        """The same with other facts: `adapter.json`, notebook and, unless a person wrote it, the card follow."""
        items = {**self.items, FACTS_NAME: _facts_item(facts)}
        if not self.edited:
            items[CARD] = Item.of(CARD, render(self.name, facts, address=repository).encode())
        return replace(self, facts=facts, items=items)


def pack(adapter: str | Path, repository: str, scratch: Path, said: Mapping[str, Any]) -> Parcel:
    """Reads, judges and cleans an adapter for a repository.

    Args:
        adapter: a folder, a run's folder, or a file; anything that is no folder of adapt's is written as one first.
        repository: `user/name`, which the card's code will name.
        scratch: an empty folder for files that had to be rewritten; it must outlive the push.
        said: entries for `data` in `adapter.json`: `license`, `source` of the pictures; `adapter`: the adapter's own licence.

    Raises:
        AdapterError: no adapter, damaged, a link that leads out of its folder, or something private in a file.
    """
    loaded = Adapter.load(adapter)
    folder = home(Adapter.locate(adapter))
    if folder is None:
        folder = scratch / "adapter"
        loaded.save(folder)
    facts = replace(loaded.facts, data={**loaded.facts.data, **said})
    found = dict(_files(folder))
    items = {name: _item(name, path, scratch) for name, path in found.items() if LAYOUT.fullmatch(name)}
    items[FACTS_NAME] = _facts_item(facts)
    text = found[CARD].read_text("utf-8", "replace") if CARD in found else None
    edited = text is not None and not is_untouched(text)
    shown = render(loaded.name, facts, address=repository)
    if text is not None and edited:
        shown = _with_licence(for_repository(text, loaded.name, repository), facts)
    items[CARD] = Item.of(CARD, shown.encode())
    if NOTEBOOK not in items:
        items[NOTEBOOK] = Item.of(NOTEBOOK, notebook(loaded.name, facts, repository).encode())
    left_out = tuple(sorted(name for name in found if not LAYOUT.fullmatch(name)))
    parcel = Parcel(loaded.name, facts, dict(sorted(items.items())), left_out, edited)
    require_clean(parcel, folder)
    return parcel


def require_clean(parcel: Parcel, folder: Path) -> None:
    """Raises `AdapterError` where a text of the parcel names this machine's folders or holds a secret."""
    hidden, paths = secrets(), places(folder, Path.cwd())
    found = [f"{name}: {leak}" for name, item in parcel.items.items() for leak in leaks(_text(item), hidden, paths)]
    if found:
        raise AdapterError(
            "something private would be pushed, so nothing was",
            given="; ".join(found[:4]),
            next=f"take it out of {found[0].partition(':')[0]} in {folder}, or render the card anew: adapt card",
        )


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name → path of every file below.

    Raises:
        AdapterError: a link that leads out of the folder.
    """
    inside = folder.resolve()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise AdapterError("a link leads out of the adapter's folder", given=name, next="put the file itself there")
        if path.is_file():
            yield name, path


def _item(name: str, path: Path, scratch: Path) -> Item:
    if path.suffix != ".safetensors":
        content = clean.CLEANERS[path.suffix.lower()](path)
        return Item.of(name, content, cleaned=content != path.read_bytes() and path.suffix not in (".md", ".ipynb"))
    check_file(path)
    header = clean.weights(path)
    if header is None:
        return Item.of(name, path)
    rewritten = scratch / name.replace("/", "-")
    with path.open("rb") as old, rewritten.open("wb") as new:
        new.write(header)
        old.seek(8 + int.from_bytes(old.read(8), "little"))
        while piece := old.read(2**20):
            new.write(piece)
    return Item.of(name, rewritten, cleaned=True)


def _facts_item(facts: Facts) -> Item:
    return Item.of(FACTS_NAME, files.dump_json(facts.as_dict()).encode())


def _with_licence(text: str, facts: Facts) -> str:
    """A card that a person wrote, with the licence that was said for the adapter now."""
    from huggingface_hub import ModelCard

    said = Licence.of(facts.data.get("adapter", {}))
    if said is None:
        return text
    card = ModelCard(text, ignore_metadata_errors=True)
    for key, value in {"license": said.id, "license_name": said.name, "license_link": said.link}.items():
        setattr(card.data, key, value)
    return str(card)


def _text(item: Item) -> bytes:
    """What can be read of it: all of a text, the header of weights; pixels are no text."""
    if isinstance(item.content, bytes):
        return b"" if item.name.endswith((".png", ".jpg", ".jpeg")) else item.content
    with item.content.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def _pieces(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(2**20):
            yield piece
