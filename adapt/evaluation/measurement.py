"""What one measurement of held-out pictures gave. Imports no torch: reports read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self


@dataclass(frozen=True)
class Band:
    """One band of noise, all held-out pictures together.

    Attributes:
        noise: share of noise, mean of the band, 0 … 1.
        loss: mean loss of the adapter.
        base: the same of the base.
        log_ratio: mean over pictures of log(loss / base); None where the base itself is what is right (`anchor_above`).
        standard_error: of the log ratio, over pictures; None with a single picture.
    """

    noise: float
    loss: float
    base: float
    log_ratio: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Measurement:
    """Attributes:
    step: optimizer steps done.
    loss: mean held-out loss.
    base: the same of the base.
    ratio: loss / base; below 1 the adapter has learned something that carries over.
    standard_error: of the ratio, over pictures; None with a single picture.
    change: (loss - base) in standard errors of the paired differences; 0 when their spread is 0 or not known.
    pictures: how many.
    log_ratio: mean over pictures and bands of noise of log(loss / base): every band counts alike, also those whose losses
        are small. None where it is not defined (`mean_log_ratio`).
    log_error: its standard error over pictures.
    curve: the same by band of noise, clean first.
    weights: which weights these are: `ema` the moving average, `raw` the last step's; None outside a run.
    judged: mean held-out loss of every kind of weights that was judged at this step.
    members: log ratio of as many pictures that *are* trained on; None when none were measured.
    gap: log_ratio - members: what is gained on training pictures only. It grows when the adapter begins to memorise.
    gap_error: its standard error over pictures.
    anchored: whether at some times the base itself is what is right, where its loss is 0 (`anchor_above`).
    """

    step: int
    loss: float
    base: float
    ratio: float
    standard_error: float | None
    change: float
    pictures: int
    log_ratio: float | None = None
    log_error: float | None = None
    curve: tuple[Band, ...] = ()
    weights: str | None = None
    judged: Mapping[str, float] = field(default_factory=dict)
    members: float | None = None
    gap: float | None = None
    gap_error: float | None = None
    anchored: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """Without the curve."""
        return {name: value for name, value in self.as_dict().items() if name != "curve"}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of `as_dict`, also of an older version's."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(**{**known, "curve": tuple(Band(**band) for band in known.get("curve", ()))})

    def beside(self, members: Measurement) -> Measurement:
        """With the same measure of training pictures beside it."""
        if self.log_ratio is None or members.log_ratio is None:
            return self
        errors = (self.log_error, members.log_error)
        gap_error = None if None in errors else sum(e**2 for e in errors if e is not None) ** 0.5
        gap = self.log_ratio - members.log_ratio
        return replace(self, members=members.log_ratio, gap=gap, gap_error=gap_error)
