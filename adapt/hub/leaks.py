"""The last gate: what must not stand in anything that is shared."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from adapt.formats.private import names_a_path, parsed, says_a_path

TOKEN = re.compile(
    rb"\b(?:hf_[A-Za-z0-9]{16,}|hf_oauth_[\w.-]{16,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b"
)
"""As the Hub, OpenAI, GitHub and AWS write theirs."""
HOME = re.compile(rb"(?<![\w.:/])(?:/home/|/Users/|/root/)[\w.-]+|\b[A-Za-z]:\\\\?Users\\\\?[\w.-]+")
SECRET = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|ACCESS_KEY|CREDENTIAL|PRIVATE", re.I)
SHORTEST = 8


def secrets() -> list[bytes]:
    """Values of this process's environment that are called a token, a key or a password, and the Hub's stored token."""
    from huggingface_hub import constants

    found = [value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST]
    with suppress(OSError, ValueError):
        found.append(Path(constants.HF_TOKEN_PATH).read_text("utf-8").strip())
    paths = {value for value in found if Path(value).is_absolute() and Path(value).exists()}
    return [value.encode() for value in found if len(value) >= SHORTEST and value not in paths]


def places(*folders: Path) -> list[bytes]:
    """The user's home and these folders as absolute paths, as they would stand in a text."""
    found = [Path.home(), *(folder.absolute() for folder in folders), *(folder.resolve() for folder in folders)]
    return [str(path).encode() for path in dict.fromkeys(found) if len(path.parts) > 2]


def leaks(content: bytes, hidden: list[bytes], paths: list[bytes]) -> Iterator[str]:
    """What of it stands in a text, in words that do not repeat it."""
    if TOKEN.search(content):
        yield "something that looks like an access token"
    if any(secret in content for secret in hidden):
        yield "a secret of this machine's environment"
    if any(path in content for path in paths) or HOME.search(content) or _says_a_path(content):
        yield "a folder of this machine or of another"


def _says_a_path(content: bytes) -> bool:
    """Whether a text names an absolute path, or a JSON text holds one."""
    text = content.decode("utf-8", "replace")
    told = parsed(text)
    return names_a_path(text) if told is None else says_a_path(told)
