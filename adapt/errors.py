"""What can go wrong, in one tree.

    AdaptError                 exit 2: the user's input
    ├── SettingsError          a setting: unknown, out of range, contradictory
    ├── DataError              pictures, captions, folders
    ├── BackboneError          a pretrained model that is not there or not usable
    ├── AdapterError           an adapter file: damaged, unsafe, for another base
    ├── RunError               an output folder: in use, holds a run, cannot be resumed
    ├── TrainingError          the run itself: loss or weights no longer finite, memory
    ├── TransferError          the Hub: not reachable, not there, in the way, damaged on the way
    ├── HubError               exit 4: login or permission
    └── Stopped                exit 130 / 143: stopped by a signal, checkpoint saved

Each message says what is wrong, what was given, what is allowed and what to do next. Anything that is not an `AdaptError`
is a bug of ours: the command line keeps its traceback and exits with 101.
"""


class AdaptError(Exception):
    """An error that a user can act on; prints as one line.

    Args:
        message: what is wrong.
        given: what was given.
        allowed: what would have been accepted.
        next: what to do now; a command where there is one.
    """

    exit_code = 2

    def __init__(self, message: str, *, given: object = None, allowed: object = None, next: str | None = None) -> None:
        super().__init__(message)
        self.message, self.given, self.allowed, self.next = message, given, allowed, next

    def __str__(self) -> str:
        details = [
            f"{name}: {value}"
            for name, value in (("given", self.given), ("allowed", self.allowed))
            if value is not None
        ]
        line = self.message + (f" ({'; '.join(details)})" if details else "")
        line = line + (f". Next: {self.next}" if self.next else "")
        return " ".join(line.split())

    def as_dict(self) -> dict[str, str | None]:
        """The same as one JSON object: `code`, `message`, `given`, `allowed`, `next`."""
        text = {
            name: None if value is None else str(value)
            for name, value in (("given", self.given), ("allowed", self.allowed))
        }
        return {"code": type(self).__name__, "message": self.message, **text, "next": self.next}


class SettingsError(AdaptError):
    """A setting is unknown, out of range or contradicts another."""


class DataError(AdaptError):
    """Pictures, captions or folders cannot be used."""


class BackboneError(AdaptError):
    """A pretrained model is not there, or is none that adapt can use."""


class AdapterError(AdaptError):
    """An adapter file is damaged, unsafe, or made for another base."""


class RunError(AdaptError):
    """An output folder is in use, holds a run, or cannot be resumed."""


class TrainingError(AdaptError):
    """Training cannot go on: the loss or the weights are no longer finite, or memory ran out."""


class TransferError(AdaptError):
    """The Hub cannot be reached, has no such thing, or something went wrong on the way."""


class HubError(AdaptError):
    """The Hub asks for a login or a permission."""

    exit_code = 4


class Stopped(AdaptError):
    """A signal stopped the run after its step was finished and its checkpoint saved."""

    def __init__(self, signal_number: int, message: str, *, next: str) -> None:
        super().__init__(message, next=next)
        self.exit_code = 128 + signal_number


def did_you_mean(name: str, known: list[str]) -> str | None:
    """The known name nearest to `name`, or None when nothing is near."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return near[0] if near else None
