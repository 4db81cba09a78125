"""Finds pictures and their captions, whatever holds them: the one door to all kinds of data.

./my-images                  a folder                     `folders`
./my-data                    parquet, arrow, saved sets   `tables`
./shards/{000..003}.tar      webdataset archives          `archives`
./dataset.toml               kohya's dataset_config       `dataset_config`
./my-sources.yaml            several of them              `sources`
user/name                    a data set on the Hub        `snapshot`
"""

from __future__ import annotations

from pathlib import Path

from adapt.data import archives, tables
from adapt.data.folders import AS_IT_LIES, Reading, pictures_among, read_folder
from adapt.data.picture import Found
from adapt.data.snapshot import is_hub_id, snapshot
from adapt.data.walk import Walk, suffix, walk
from adapt.data.wording import listed, printable
from adapt.errors import DataError

SEVERAL = (".yaml", ".yml", ".json")
_ALLOWED = "a folder, .tar, .parquet or .arrow, a list of sources (.yaml) or kohya's dataset_config (.toml)"
_HINT = "give a folder of pictures"


def find(source: str | Path, reading: Reading = AS_IT_LIES) -> Found:
    """The pictures of a source, in an order that depends on their names only. Nothing in it is changed.

    Args:
        source: a folder of PNG, JPEG, WebP or BMP pictures (recursive; hidden names, pipes and loops are skipped); parquet or
            arrow files or what `datasets`' `save_to_disk` wrote; webdataset archives, one, a folder of them or
            `{000..003}.tar`; kohya's `dataset_config` (TOML); a list of sources (YAML or JSON); the id of a data set on the
            Hub.
        reading: how captions, repeats and masks are taken.

    Raises:
        DataError: nothing is there, or what is there cannot be used; all problems of a kind are in one message.
        SettingsError: a list of sources or a `dataset_config` is wrong.
        HubError: the Hub asks for a login.
    """
    path = path_of(source)
    if path.is_dir():
        return find_one(path, reading)
    if suffix(path.name) == ".toml":
        from adapt.data.dataset_config import read_config

        return read_config(path, reading)
    if suffix(path.name) in SEVERAL:
        from adapt.data.sources import read_sources

        return read_sources(path, reading)
    return find_one(path, reading)


def folders_of(source: str | Path) -> list[Path]:
    """The folders that `find` searches with all that is in them; none for files, archives and the Hub.

    Raises:
        SettingsError: a list of sources is wrong.
    """
    path = path_of(source)
    if suffix(path.name) in SEVERAL and path.is_file():
        from adapt.data.sources import places_of

        return [place for place in places_of(path) if place.is_dir()]
    return [path] if path.is_dir() else []


def find_one(source: str | Path, reading: Reading = AS_IT_LIES) -> Found:
    """As `find`, but no list of sources."""
    path = path_of(source)
    if archives.is_pattern(path):
        return archives.read_archives(archives.expand(path), reading)
    if not path.exists():
        if not is_hub_id(str(source)):
            raise DataError("The folder does not exist", given=printable(str(source)), next=_HINT)
        path = snapshot(str(source))
    if path.is_dir():
        return _find_folder(path, reading)
    readers = {".tar": lambda: archives.read_archives([path], reading), ".parquet": lambda: _table(path, reading)}
    if (read := readers.get(suffix(path.name))) is None:
        raise DataError(
            "This is a file, not a folder",
            given=printable(str(source)),
            allowed=_ALLOWED,
            next=f"{_HINT}: {path.parent}",
        )
    return read()


def _find_folder(root: Path, reading: Reading) -> Found:
    if tables.is_saved(root):
        return _table(root, reading)
    walked = walk(root, reading.deep)
    if walked.unreadable:
        raise DataError("Folders cannot be read", given=listed(walked.unreadable), next="change their permissions")
    if pictures_among(walked, reading.extensions):
        return read_folder(walked, reading)
    if any(suffix(name) in (".parquet", ".arrow") for name in walked.files):
        return _table(root, reading)
    if tars := [path for name, path in walked.files.items() if suffix(name) == ".tar"]:
        return archives.read_archives(tars, reading)
    raise _nothing(root, walked, reading)


def _table(place: Path, reading: Reading) -> Found:
    if reading.noun != "pictures":
        raise DataError(f"Tables of {reading.noun} are not read", given=place, next=f"give a folder of {reading.noun}")
    if place.is_file():
        return tables.read_file(place)
    return tables.read_saved(place) if tables.is_saved(place) else tables.read_tables(place)


def path_of(source: str | Path) -> Path:
    """The path that is meant. Raises DataError when there can be none: an unknown user's home, a NUL."""
    try:
        path = Path(source).expanduser()
        path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"The folder cannot be read: {error}", given=printable(str(source)), next=_HINT) from error
    return path


def _nothing(root: Path, walked: Walk, reading: Reading) -> DataError:
    allowed = ", ".join(reading.extensions)
    if not walked.files:
        return DataError("The folder is empty", given=root, allowed=allowed, next=f"put {reading.noun} there")
    kinds = sorted({suffix(name) or "(none)" for name in walked.files})
    given = f"{root} with {len(walked.files)} files of type {listed(kinds)}"
    return DataError(
        f"The folder holds no {reading.noun}", given=given, allowed=allowed, next="convert them or give their folder"
    )
