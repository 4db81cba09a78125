"""What shows pictures to Qwen2.5-VL, without the part for videos, which needs torchvision."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


@cache
def processor_class() -> Any:
    """transformers' `Qwen2VLProcessor` of pictures and text, with transformers' own image processor on Pillow."""
    import transformers

    class Qwen2VLProcessor(transformers.Qwen2VLProcessor):  # type: ignore[misc]
        # A pipeline writes down the class of a component, and shall name transformers' own.
        __module__ = transformers.Qwen2VLProcessor.__module__

        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    return Qwen2VLProcessor


def read_processor(folder: Path) -> Any:
    """The processor of a pipeline's folder. Raises `OSError` where it is not whole."""
    import transformers

    own = getattr(transformers, "Qwen2VLImageProcessorPil", None) or transformers.Qwen2VLImageProcessor
    pictures = own.from_pretrained(folder, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return processor_class()(pictures, tokenizer)
