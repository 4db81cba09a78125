"""What `adapt generate` is to do: judged as far as that goes without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.cli.beside import Beside
from adapt.cli.device import judge_device, judge_precision
from adapt.errors import RunError, SettingsError

if TYPE_CHECKING:
    from adapt.sampling.request import Request

METADATA = ("a1111", "none")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".mp4", ".gif", ".wav", ".flac")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Pictures, and what they are drawn with.

    Attributes:
        adapters: paths and scales; None is the scale that the adapter recommends, else 1.
        base: the backbone's reference.
        output: a folder, or the file of a single picture.
        format: of the files, `png` …; None: as the name of `output` says, else the usual one.
        device: None is the best there is.
        precision: what the base is held in, `bf16` …; None: as its weights are.
        metadata: `a1111`: files say how they were drawn; `none`.
        allow_missing: layers that the base may lack.
        beside: published networks that stand beside the base.
    """

    requests: Sequence[Request]
    adapters: Sequence[tuple[Path, float | None]]
    base: str
    output: Path
    format: str | None
    batch_size: int
    device: str | None
    precision: str | None = None
    metadata: str
    allow_missing: Sequence[str]
    beside: Beside

    def judge(self) -> None:
        """Everything that can be known beforehand; the base last, because one on the Hub is downloaded now.

        Raises:
            SettingsError: an option out of range, or one that does not fit the others or the base.
            RunError: the output cannot be written.
            AdapterError: a guidance compares with an adapter that is none.
        """
        if self.batch_size < 1:
            raise SettingsError("--batch-size is out of range", given=self.batch_size, allowed="a whole number from 1")
        if self.metadata not in METADATA:
            raise SettingsError("unknown --metadata", given=self.metadata, allowed=", ".join(METADATA))
        judge_device(self.device)
        judge_precision(self.precision)
        self._judge_output()
        self._judge_format()
        self._judge_weaker()
        self.beside.judge()
        self._judge_base()

    @property
    def is_file(self) -> bool:
        """Whether `output` is a file's name."""
        return self.output.suffix.lower() in ENDINGS and not self.output.is_dir()

    @property
    def ending(self) -> str:
        """Of the files, `.png` …; "": the usual one."""
        if self.format is not None:
            return f".{self.format.lower().removeprefix('.')}"
        return self.output.suffix.lower() if self.is_file else ""

    def _judge_output(self) -> None:
        if self.is_file and len(self.requests) > 1:
            told = f"--output is one file, and {len(self.requests)} pictures are asked for"
            raise SettingsError(told, given=self.output, next="give a folder")
        folder = self.output.parent if self.is_file else self.output
        nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise RunError("--output cannot be written", given=self.output, next="give another folder")

    def _judge_format(self) -> None:
        allowed = (self.output.suffix.lower(),) if self.is_file else ENDINGS
        if self.format is not None and self.ending not in allowed:
            known = ", ".join(e[1:] for e in ENDINGS)
            raise SettingsError(
                "--format does not fit", given=self.format, allowed=allowed[0] if self.is_file else known
            )

    def _judge_weaker(self) -> None:
        """Guidances that compare with a weaker model have one: an adapter to weaken, a file that is there."""
        from adapt.adapter import Adapter
        from adapt.sampling.guidances import WEAKER, share_of
        from adapt.sampling.request import guidance_named, named_in

        asked = {one for request in self.requests for one in named_in(guidance_named(request.guidance))}
        for named in (one for one in asked if one.name in WEAKER):
            if not self.adapters:
                told = f"guidance {named.name} compares with the model without its adapter, and there is no adapter"
                raise SettingsError(told, given=str(named), next="--adapter PATH")
            if named.name == "autoguidance" and share_of(named["weak"]) is None:
                Adapter.locate(named["weak"])

    def _judge_base(self) -> None:
        from adapt.loading import require
        from adapt.sampling.preflight import check_folder

        check_folder(require(self.base), self.requests)
