"""Files as they may be shared: without what other programs have written into them besides the thing itself."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapt import files
from adapt.errors import AdapterError
from adapt.fetch.reference import REFERENCE
from adapt.formats.header import header_bytes, kept
from adapt.formats.peft_folder import CONFIG_NAME
from adapt.formats.private import NAME, peft_entries, says_a_path
from adapt.formats.readers import UI_FOLDER
from adapt.sampling.png import png_bytes

SIDECAR = ("activation text", "description", "negative text", "notes", "preferred weight", "sd version")
"""What UIs read of `<stem>.json`; their own programs add paths and addresses."""
BASE64 = re.compile(r"^data:image/\w+;base64,(.+)$", re.S)


def picture(path: Path) -> bytes:
    """The same pixels without EXIF, text, colour profile, thumbnail or anything after the end.

    Raises:
        AdapterError: no picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            if opened.format == "JPEG" and not opened.getexif().get(0x0112):
                return _jpeg(opened)
            upright = ImageOps.exif_transpose(opened)
            alpha = upright.has_transparency_data
            plain = upright.convert("RGBA" if alpha else "RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise AdapterError("a picture beside the adapter cannot be read", given=path.name, next="remove it") from error
    plain.info = {}
    if path.suffix.lower() == ".png":
        return png_bytes(plain)
    buffer = io.BytesIO()
    plain.convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _jpeg(opened: Any) -> bytes:
    buffer = io.BytesIO()
    opened.save(buffer, "JPEG", quality="keep", comment=b"")
    return buffer.getvalue()


def weights(path: Path) -> bytes | None:
    """Another header for a safetensors file, where its own tells more than it should; None where nothing is to be changed."""
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    told = {str(k): str(v) for k, v in json.loads(header).get("__metadata__", {}).items()}
    clean = kept(told)
    if _tells_more(clean.get("modelspec.thumbnail", "")):
        del clean["modelspec.thumbnail"]
    return None if clean == told else header_bytes(header, clean)


def _tells_more(thumbnail: str) -> bool:
    """Whether a thumbnail carries EXIF or XMP."""
    match = BASE64.match(thumbnail)
    if not thumbnail or match is None:
        return bool(thumbnail)
    try:
        content = base64.b64decode(match[1])
    except ValueError:
        return True
    return any(mark in content for mark in (b"Exif", b"ns.adobe.com", b"tEXt", b"iTXt", b"zTXt"))


def settings(path: Path) -> bytes:
    """A JSON file, where networks came from named only where that is a Hub id; a sidecar and peft's configuration with the
    entries that are read.

    Raises:
        AdapterError: no JSON object.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError("a file beside the adapter is no JSON", given=path.name, next="remove it") from error
    if isinstance(values, dict) and path.parent.name == UI_FOLDER:
        values = {key: values[key] for key in SIDECAR if key in values and not says_a_path(values[key])}
    if isinstance(values, dict):
        origins = {key: _public(value) for key, value in values.items() if NAME.search(key)}
        values = (peft_entries(values) if path.name == CONFIG_NAME else values) | origins
    return files.dump_json(values).encode()


def _public(origin: object) -> object:
    """The Hub's name of a network, and no other."""
    return origin if isinstance(origin, str) and REFERENCE.match(origin) else None


CLEANERS: dict[str, Callable[[Path], bytes]] = {
    ".png": picture,
    ".jpg": picture,
    ".jpeg": picture,
    ".json": settings,
    ".md": Path.read_bytes,
    ".ipynb": Path.read_bytes,
}
"""Suffix → the bytes that may be shared. Weights are too large for it: see `weights`."""
