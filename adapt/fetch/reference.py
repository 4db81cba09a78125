"""How an adapter of the Hub is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
REFERENCE = re.compile(rf"^(?:https://huggingface\.co/)?({PART}/{PART})(?:@([\w./-]+))?$")
IN_REPOSITORY = re.compile(rf"^({PART}/{PART})/([\w./ -]+\.safetensors)(?:@([\w./-]+))?$")


@dataclass(frozen=True)
class Reference:
    """Attributes:
    repository: `user/name`.
    revision: a branch, a tag or a commit; None is the main branch.
    file: one file in it, where that was named.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        return f"{self.repository}{file}" + (f"@{self.revision}" if self.revision else "")


def reference(text: str | Path) -> Reference | None:
    """`user/name`, `user/name@revision`, `user/name/file.safetensors` or the page's address; None for what is a path here.

    What exists here is a path, and so is what stands in a folder that exists here.
    """
    text = text.as_posix() if isinstance(text, Path) else text
    path = Path(text)
    if path.exists() or (path.parent != Path() and path.parent.is_dir()):
        return None
    if match := REFERENCE.match(text):
        return Reference(match[1], match[2])
    if match := IN_REPOSITORY.match(text):
        return Reference(match[1], match[3], match[2])
    return None
