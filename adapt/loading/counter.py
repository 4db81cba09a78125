"""Tokens of a caption, by the tokenizer of a folder. Imports no torch where that has a `tokenizer.json`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.loading.shape import row_of
from adapt.quiet import quiet_libraries

if TYPE_CHECKING:
    from adapt.types import TokenCounter


def caption_counter(folder: Path) -> TokenCounter:
    """Caption → its tokens, and how many the text encoder reads. The tokenizer is loaded when it is first asked; without
    torch where the base has a `tokenizer.json`."""
    row = row_of(folder)
    reader = row if row and (folder / row.tokenizer).is_dir() else None
    where = folder / (reader.tokenizer if reader else "tokenizer")
    most = reader.max_tokens if reader else None
    if not where.is_dir():
        return lambda caption: (1, 1)  # classes, or nothing

    @cache
    def fast() -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(where / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cache
    def limit() -> int:
        return most or int(json.loads((where / "tokenizer_config.json").read_text("utf-8"))["model_max_length"])

    def count(caption: str) -> tuple[int, int]:
        return len(fast().encode(caption).ids), limit()

    return count if (where / "tokenizer.json").is_file() else _slow_counter(where, most)


def _slow_counter(where: Path, most: int | None = None) -> TokenCounter:
    """By transformers, for the older files of a tokenizer; by the pipeline's own class, where it brings one (Kolors)."""

    @cache
    def tokenizer() -> Any:
        library, name = json.loads((where.parent / "model_index.json").read_text("utf-8"))[where.name]
        with quiet_libraries():
            import transformers
            from diffusers import pipelines

            brought = getattr(getattr(pipelines, library, None), name, None)
            return (brought or transformers.AutoTokenizer).from_pretrained(where, local_files_only=True)

    def count(caption: str) -> tuple[int, int]:
        words = tokenizer()(caption, truncation=False, verbose=False).input_ids
        return len(words), most or int(tokenizer().model_max_length)

    return count
