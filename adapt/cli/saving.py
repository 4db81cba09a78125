"""Where commands that make an adapter put it: a folder, or a file of diffusers'; read back, and proved where its base is here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.errors import RunError

if TYPE_CHECKING:
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone


def require_free(output: Path) -> None:
    """Raises `RunError` when something is there: nothing of the user's is overwritten."""
    if output.exists():
        raise RunError("something is there already", given=output, next="give another --output")


def save(adapter: Adapter, output: Path, base: Backbone | None = None, *, proof: bool = True) -> dict[str, Any]:
    """An adapter's folder, whole or not at all; a `.safetensors` path gives the weights alone, of two experts a file each.

    Args:
        base: to prove it with; None: the adapter's own if it is on this machine.
        proof: whether a fresh pipeline is to take what was written.

    Returns:
        For `--json`: `proof`, where there is one.

    Raises:
        AdapterError: what was written reads differently, or a fresh pipeline does not agree; it is set aside.
    """
    from adapt.cli.proving import prove

    written = _write(adapter, output)
    if not proof:
        return {}
    verdicts = [prove(path, adapter, base) for path in written]
    told = verdicts[0].proof if verdicts and verdicts[0] else None
    return {"proof": told.as_dict()} if told else {}


def _write(adapter: Adapter, output: Path) -> list[Path]:
    """Writes and reads back; what can be proved."""
    from adapt import files
    from adapt.api.tools import read_back

    if output.suffix == ".safetensors":
        for file in adapter.files(output):
            require_free(file)
        adapter.export(output, "diffusers")
        return list(adapter.files(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_folder(output) as temporary:
        adapter.save(temporary)
    read_back(output, adapter)
    return [output]
