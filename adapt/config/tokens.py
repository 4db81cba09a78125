"""New words that are taught: pivotal tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from adapt.config.fields import Section


class TokenSettings(Section):
    """New words that are taught beside the adapter."""

    new_tokens: dict[str, str] = Field(
        {}, description="new words and what they start as: {<me>: cat}, or <me>=cat; nothing: like any word"
    )
    new_token_vectors: int = Field(1, ge=1, le=64, description="vectors that a new word is made of")
    new_token_learning_rate: float | None = Field(
        None, gt=0, le=10, allow_inf_nan=False, description="their learning rate at its highest; None: learning_rate"
    )
    new_token_stop: float = Field(
        1.0, gt=0, le=1, description="share of the steps after which new words stay as they are; 1: taught to the end"
    )

    @field_validator("new_tokens", mode="before")
    @classmethod
    def _said(cls, value: Any) -> Any:
        """`<me>=cat`, or a list of such."""
        if value is None:
            return {}
        if isinstance(value, Mapping):
            return {str(token): "" if words is None else words for token, words in value.items()}
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list | tuple) or not all(isinstance(word, str) for word in listed):
            raise ValueError("new words are written {<me>: cat}, or <me>=cat")
        return {token.strip(): words.strip() for token, _, words in (word.partition("=") for word in listed)}

    @field_validator("new_tokens")
    @classmethod
    def _words(cls, value: dict[str, str]) -> dict[str, str]:
        for token in value:
            if not token or token != "".join(token.split()):
                raise ValueError(f"{token!r} is no word: write one without spaces, such as <me>")
            if token != token.lower():
                raise ValueError(f"{token!r}: tokenizers make everything small; write {token.lower()}")
            if any(other != token and other in token for other in value):
                raise ValueError(f"{token!r} has another of them inside, and would be taken for it")
        return value

    @model_validator(mode="after")
    def _of_new_words(self) -> Self:
        """What says how new words are taught goes with some."""
        for name in ("new_token_vectors", "new_token_learning_rate", "new_token_stop"):
            if not self.new_tokens and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} ({getattr(self, name)}) is of new_tokens={{<me>: cat}}")
        return self
