"""What can be done with the classes of a finished adapter: rename, remove, merge. The others draw the same bytes as before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from adapt.adapter import Adapter
from adapt.errors import AdapterError, SettingsError, did_you_mean
from conditioning import ClassConditioner


def edited(
    adapter: Adapter,
    *,
    rename: Mapping[str, str] | None = None,
    remove: Sequence[str] = (),
    merge: Adapter | None = None,
) -> Adapter:
    """The adapter with other classes: first some are removed, then renamed, then those of another adapter are added.

    Args:
        rename: old name → new.
        merge: an adapter that grew from the same one (`grow_from`): its layers are the same, and so is what its classes say.

    Raises:
        SettingsError: no such class, a name that is taken, or nothing left.
        AdapterError: an adapter without classes, or two that do not go together: other layers, or one name for two classes.
    """
    classes = _classes_of(adapter)
    for label in (*remove, *(rename or {})):
        _require_known(label, classes.labels)
    try:
        classes = classes.without(remove) if remove else classes
        classes = classes.renamed(rename) if rename else classes
    except ValueError as error:
        raise SettingsError(f"the classes cannot be changed so: {error}", given=adapter.name) from error
    if merge is not None:
        classes = _merged(adapter, classes, merge)
    told = {**adapter.facts.conditioning.get("class", {}), "labels": list(classes.labels)}
    facts = replace(adapter.facts, conditioning={**adapter.facts.conditioning, "class": told})
    return replace(adapter, conditioners={**adapter.conditioners, "class": classes}, facts=facts)


def _classes_of(adapter: Adapter) -> ClassConditioner:
    if adapter.classes is None:
        raise AdapterError("the adapter has no classes", given=adapter.name, next="train one with classes=true")
    return adapter.classes


def _require_known(label: str, labels: Sequence[str]) -> None:
    if label not in labels:
        near = did_you_mean(label, list(labels))
        raise SettingsError("the adapter knows no such class", given=label, allowed=", ".join(labels),
                            next=f"did you mean {near}?" if near else None)  # fmt: skip


def _merged(adapter: Adapter, classes: ClassConditioner, other: Adapter) -> ClassConditioner:
    theirs = _classes_of(other)
    if not classes.speaks_as(theirs) or not adapter.weights.equals(other.weights):
        raise AdapterError(
            "the two adapters were trained apart: a class means something only to the layers that it was learned with",
            given=f"{adapter.name}, {other.name}", allowed="adapters that grew from the same one",
            next="train all classes together, or each further one with grow_from",
        )  # fmt: skip
    if clash := classes.clashes(theirs):
        raise AdapterError(
            "both have a class of this name, and mean something else", given=", ".join(clash),
            next=f"--rename '{clash[0]}=another name', or --remove '{clash[0]}'",
        )  # fmt: skip
    return classes.merged(theirs)
