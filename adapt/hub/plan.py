"""What a push will do, said before it is done."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.card import licence_of
from adapt.card.stamp import is_untouched
from adapt.errors import AdaptError, SettingsError
from adapt.hub import remote
from adapt.hub.parcel import CARD, LAYOUT, Item, Parcel, pack
from adapt.licences import Licence, conflicts, front_matter, require_known

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from adapt.hub.remote import State

TAG = re.compile(r"^[A-Za-z0-9][\w.-]*$")
ROOT_WEIGHTS = re.compile(r"[^/]+\.safetensors")


@dataclass(frozen=True)
class Wishes:
    """What the user asks for.

    Attributes:
        private: a new repository is seen by its owner only.
        tag: name for the new commit, such as `v1`.
        pr: as a pull request, for repositories of others.
        license: the adapter's licence; None: its base's.
        data_license: of the training pictures; None: not stated.
        data_source: where the pictures are from, in words.
        replace_card: whether a card on the Hub that a person has changed is replaced; None: not decided.
        message: of the commit.
    """

    private: bool = False
    tag: str | None = None
    pr: bool = False
    license: str | None = None
    data_license: str | None = None
    data_source: str | None = None
    replace_card: bool | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        for id in (self.license, self.data_license):
            if id is not None:
                require_known(id)
        if self.tag is not None and (not TAG.match(self.tag) or ".." in self.tag):
            raise SettingsError("no name of a tag", given=self.tag, allowed="letters, digits, . _ -, such as v1.0")
        if self.tag and self.pr:
            raise SettingsError("a pull request cannot be tagged: its owner merges it first", next="--tag or --pr")

    @property
    def data(self) -> dict[str, Any]:
        """For `data` in `adapter.json`."""
        told = {"license": self.data_license, "source": self.data_source}
        own = {"adapter": Licence(self.license).as_dict()} if self.license else {}
        return {key: value for key, value in told.items() if value} | own


@dataclass(frozen=True)
class Plan:
    """What will be done.

    Attributes:
        repository: `user/name`.
        parcel: the files.
        state: of the repository; None where the Hub was not asked (a dry run without network).
        wishes: the user's.
        notes: what the user should know first.
    """

    repository: str
    parcel: Parcel
    state: State | None
    wishes: Wishes
    notes: tuple[str, ...] = ()

    @property
    def meets_a_person_s_card(self) -> bool:
        """Whether the Hub has another card, which a person has written or changed."""
        old = self.state.card if self.state else None
        return old is not None and not is_untouched(old) and old.rstrip() != self.parcel.card.rstrip()

    @property
    def asks_for_card(self) -> bool:
        """Whether nobody has decided yet about such a card."""
        return self.meets_a_person_s_card and self.wishes.replace_card is None

    @property
    def keeps_card(self) -> bool:
        """Whether the Hub's card stays. Where nobody has decided, it does."""
        return self.meets_a_person_s_card and not self.wishes.replace_card

    @property
    def sent(self) -> dict[str, Item]:
        """Files that the commit adds or changes."""
        there = self.state
        return {
            name: item
            for name, item in self.parcel.items.items()
            if not (there and there.has(item)) and not (name == CARD and self.keeps_card)
        }

    @property
    def expected(self) -> dict[str, Item]:
        """What the repository holds afterwards of this adapter."""
        return {name: item for name, item in self.parcel.items.items() if not (name == CARD and self.keeps_card)}

    @property
    def removed(self) -> list[str]:
        """Files of an older version of this adapter that the new one does not have. What adapt did not make stays."""
        return sorted(filter(self.is_stray, self.state.files if self.state else {}))

    def is_stray(self, name: str) -> bool:
        """Whether a file of this name is one of an adapter, and not of this one."""
        return LAYOUT.fullmatch(name) is not None and name not in self.parcel.items

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        items = [self._told(item) for item in self.parcel.items.values()]
        return {
            "repository": self.repository,
            "new": None if self.state is None else self.state.head is None,
            "private": bool(self.state and self.state.private) or self.wishes.private,
            "files": items,
            "bytes": self.parcel.size,
            "removed": self.removed,
            "left_out": list(self.parcel.left_out),
            "notes": list(self.notes),
        }

    def _told(self, item: Item) -> dict[str, Any]:
        done = "unchanged" if item.name in self.expected else "kept"
        return {
            "name": item.name,
            "bytes": item.size,
            "action": "send" if item.name in self.sent else done,
            "cleaned": item.cleaned,
        }

    def lines(self) -> list[str]:
        """For people: every file with its size, what happens to it, and what should be known."""
        told = self.as_dict()
        whole = f"{self.repository} ({'private' if told['private'] else 'public'}"
        kind = {None: "", True: ", new", False: ", there already"}[told["new"]]
        width = max(len(name) for name in self.parcel.items)
        rows = [
            f"  {row['name']:{width}}  {size(row['bytes']):>9}  {WORDS[row['action']]}{' (cleaned)' if row['cleaned'] else ''}"
            for row in told["files"]
        ]
        return [
            f"push to {whole}{kind}{', as a pull request' if self.wishes.pr else ''}): {len(rows)} files, {size(told['bytes'])}",
            *rows,
            *(f"  {name:{width}}  {'':>9}  removed: the adapter no longer has it" for name in self.removed),
            *(f"left out   {name}: no file of an adapter" for name in self.parcel.left_out),
            *(f"note       {note}" for note in self.notes),
        ]


WORDS = {"send": "sent", "unchanged": "there already", "kept": "not sent: the Hub's was written by a person"}


def size(count: int) -> str:
    """`1536` → `1.5 kB`."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def plan(api: HfApi, adapter: str | Path, repository: str, wishes: Wishes, scratch: Path, *, dry: bool = False) -> Plan:
    """Reads the adapter, then asks the Hub what is there. Sends nothing.

    Args:
        dry: goes on where the Hub cannot be asked.

    Raises:
        SettingsError, AdapterError: what is to be pushed cannot be.
        HubError: a login or a permission is missing.
        TransferError: the Hub cannot be asked; a tag that is there already.
    """
    name = remote.full_name(api, repository)
    parcel = pack(adapter, name, scratch, wishes.data)
    notes: list[str] = []
    there: State | None = None
    try:
        remote.require_login()
        there = remote.state(api, name)
        parcel, found = _with_base(api, parcel, name)
        notes += found
    except AdaptError as error:
        if not dry or isinstance(error, SettingsError):
            raise
        notes.append(f"the Hub was not asked: {error}")
    if there and wishes.tag in there.tags:
        raise SettingsError("the tag is there already", given=wishes.tag, next="another --tag")
    found_notes = _notes(adapter, parcel, there, wishes, name)
    return Plan(name, parcel, there, wishes, (*notes, *found_notes))


def _with_base(api: HfApi, parcel: Parcel, repository: str) -> tuple[Parcel, list[str]]:
    """The parcel with what the Hub says of the base: its licence, and whether others can see it at all."""
    name = parcel.facts.base.get("reference")
    if not name or "/" not in name:
        return parcel, ["the base has no name on the Hub, so the page shows none"] if not name else []
    if name == repository:
        raise SettingsError("the adapter cannot be pushed over its own base", given=repository, next="another name")
    there = remote.base(api, name)
    if not there.found:
        facts = replace(parcel.facts, base={**parcel.facts.base, "reference": None})
        return parcel.with_facts(facts, repository), [f"others cannot see the base {name} on the Hub: it is not named"]
    if there.licence is None or there.licence == Licence.of(parcel.facts.base):
        return parcel, []
    return parcel.with_facts(_told(parcel.facts, there.licence), repository), []


def _told(facts: Any, licence: Licence) -> Any:
    kept: Mapping[str, Any] = {k: v for k, v in facts.base.items() if not k.startswith("license")}
    return replace(facts, base={**kept, **licence.as_dict()})


def _strength(given: str | Path, name: str, scale: float) -> str:
    """What is pushed is what was proved here, its strength with it: nothing is written anew on the way."""
    return (
        f"scale {scale:g} is recommended: adapt draws with it and the card says it, but the page's widget and inference "
        f"providers draw at 1. A folder that is right at 1: adapt merge {given}:{scale:g} --output {name}-at-1"
    )


def _notes(given: str | Path, parcel: Parcel, there: State | None, wishes: Wishes, repository: str) -> Sequence[str]:
    """What should be known: licences that do not fit, a card of somebody, weights that programs could mistake for these."""
    head = front_matter(parcel.card)
    said = Licence.of(head) or licence_of(parcel.facts)
    named = head.get("base_model")
    base = parcel.facts.base.get("reference")
    if named and base and "/" in base and named not in (base, [base]):
        raise SettingsError(
            "README.md names another base than the adapter was made for", given=named, allowed=base, next="adapt card"
        )
    notes = conflicts(Licence.of(parcel.facts.base), said, parcel.facts.data.get("license"))
    if said is None:
        notes.append("no licence is stated, and the base's is not known: --license")
    if not parcel.facts.data.get("license"):
        notes.append("the licence of the training pictures is not stated: --data-license")
    if parcel.edited:
        notes.append(
            "README.md was written or changed by a person: it is pushed as it is, with its code naming " + repository
        )
    if there and there.head and wishes.private and not there.private:
        notes.append("the repository is there and public: --private does not change that")
    if (scale := parcel.facts.recommended.get("scale", 1.0)) != 1:
        notes.append(_strength(given, parcel.name, scale))
    others = [n for n in (there.files if there else {}) if ROOT_WEIGHTS.fullmatch(n) and n not in parcel.items]
    if others:
        notes.append(f"{others[0]} lies beside the new weights: programs that are given no file name may take it")
    return notes
