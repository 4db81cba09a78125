"""A vision-language model of transformers, from a folder on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL.Image import Image

from adapt.api.beside.words import PROMPT, Captioner
from adapt.errors import BackboneError
from adapt.quiet import quiet_libraries

DIRECTION = "hf download MODEL --local-dir FOLDER brings one here"


def local_captioner(folder: Path, ask: str | None, tokens: int) -> Captioner:
    """Describes pictures with the model of a folder; the same words each time.

    Args:
        folder: as `save_pretrained` leaves it, with safetensors weights.
        ask: what a model is asked. None: models that are talked to get a question of ours, others the picture alone.
        tokens: new tokens at most.

    Raises:
        BackboneError: no such folder, pickled weights, or no model that describes pictures.
    """
    if not (folder / "config.json").is_file():
        raise BackboneError("there is no model in this folder", given=folder, allowed="config.json", next=DIRECTION)
    processor, model = _loaded(folder)

    def describe(image: Image) -> str:
        return _describe(processor, model, _inputs(processor, image, ask), tokens)

    return Captioner(describe, (folder.resolve().name, str(model.num_parameters()), ask or PROMPT, str(tokens)))


def _loaded(folder: Path) -> tuple[Any, Any]:
    with quiet_libraries():
        from transformers import AutoModelForImageTextToText, AutoProcessor

        common = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor = AutoProcessor.from_pretrained(folder, **common)
            model = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True, dtype="auto", **common)
        except (OSError, ValueError, ImportError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BackboneError(
                f"this model cannot describe pictures here: {reason}",
                given=folder,
                allowed="a model that transformers' AutoModelForImageTextToText takes, as safetensors",
            ) from error
    return processor, _placed(model)


def _placed(model: Any) -> Any:
    import torch

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return model.to(device).eval()


def _describe(processor: Any, model: Any, inputs: Any, tokens: int) -> str:
    import torch

    inputs = inputs.to(model.device)
    inputs = {k: v.to(model.dtype) if torch.is_floating_point(v) else v for k, v in inputs.items()}
    with torch.inference_mode():
        said = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    asked = inputs.get("input_ids")
    if asked is not None and said.shape[1] >= asked.shape[1] and torch.equal(said[:, : asked.shape[1]], asked):
        said = said[:, asked.shape[1] :]  # models that only continue give the question back
    text: str = processor.batch_decode(said, skip_special_tokens=True)[0]
    return text


def _inputs(processor: Any, image: Image, ask: str | None) -> Any:
    if not getattr(processor, "chat_template", None):
        return processor(images=image, return_tensors="pt", **({"text": ask} if ask else {}))
    content = [{"type": "image", "image": image}, {"type": "text", "text": ask or PROMPT}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
