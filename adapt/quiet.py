"""Keeps libraries from talking over us where what they say is expected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and no warnings of diffusers and transformers inside the `with`; afterwards as before.

    They warn that `icons`' BERT is not the CLIP that the pipeline's signature names, that torchvision is missing, that a
    LoRA file has no text encoder, that a caption is cut off (the data's judgement has said so): all expected where this
    is used.
    """
    from transformers.utils import logging as transformers_logging

    # diffusers is imported inside: its import alone prints warnings through transformers.
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_level = diffusers_logging.get_verbosity()
    diffusers_bars = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        diffusers_logging.set_verbosity(diffusers_level)
        if bars:
            transformers_logging.enable_progress_bar()
        if diffusers_bars:
            diffusers_logging.enable_progress_bar()
