"""`notebook.ipynb`: what the Hub's Colab and Kaggle buttons open in place of a generated one."""

from __future__ import annotations

import json
from typing import Any

from adapt.adapter import Facts
from adapt.card.usage import usage_of

STRENGTHS = (0.0, 0.5, 1.0)
TO_GPU = '\nif torch.cuda.is_available():\n    pipeline.to("cuda")'


def notebook(name: str, facts: Facts, address: str) -> str:
    """The notebook's text: install, load, draw, strengths, train your own. Equal facts are equal bytes.

    Args:
        address: `user/name`, or a folder.
    """
    usage = usage_of(facts, address)
    cells = [
        _words(f"# {name}\n\nAn adapter for `{usage.reference or 'a local base'}`, trained with adapt. Run the cells in order."),
        _code("%pip install -q adapt-diffusion"),
        _code(f"{usage.imports}\n\n{usage.load}{'' if usage.in_python else TO_GPU}"),
        _code(f"{usage.draw}\npicture"),
        *([_code(_strengths(usage.draw))] if usage.by_diffusers and not usage.labels else []),
        _words("## Train your own\n\nPut pictures, each with a caption in a text file of the same name, into `my-pictures`."),
        _code(_train(facts)),
    ]  # fmt: skip
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    book = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _strengths(draw: str) -> str:
    inner = "\n".join(f"    {line}" for line in draw.splitlines())
    return (
        f"pictures = []\nfor strength in {STRENGTHS}:  # 0 is the base alone, 1 as trained\n"
        f'    pipeline.set_adapters("it", strength)\n{inner}\n    pictures.append(picture)\npictures'
    )


def _train(facts: Facts) -> str:
    base = facts.base_reference or "icons"
    return (
        "from pathlib import Path\n\n"
        'if Path("my-pictures").is_dir():\n'
        f"    !adapt train my-pictures --base {base} --output runs/mine\n"
        "else:\n"
        '    print("my-pictures is not there yet")'
    )


def _words(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str) -> dict[str, Any]:
    lines = text.splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": lines}
