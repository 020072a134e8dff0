"""A release on trial, as it stands on the disk; and how an update ended.

``ROOT/trial`` is written before the switch and removed after the verdict. Who finds it (the update itself, or
whoever comes after a power cut) goes on from what stands there: the phase says in which direction.
"""

import contextlib
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from samd_edge.update.layout import Layout
from samd_edge.update.manifest import UpdateError, check_name

FILE: Final = "trial"
LAST: Final = "last-update.json"
_MAX_BYTES: Final = 65_536

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1000)]


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the old client could do just before the switch, and so the new one must."""

    link: bool = False
    admission: bool = False
    model: bool = False
    score: bool = False


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long, and how often, a new release may try.

    Within `deadline_s` of each boot it must be well for `settle_s` on end, and crash less than `crashes`
    times; it is given up when the device has booted more than `boots` times without a verdict.
    """

    deadline_s: _Seconds = 180.0
    settle_s: _Seconds = 10.0
    crashes: _Count = 3
    boots: _Count = 2


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The release on trial, and the way back. `began_s` counts from the boot `boot_id`: a Pi has no clock.

    `fresh`: this update has unpacked the release, which goes again if it fails. `restarts` is how often the
    service had been started anew when the trial began, None when that is unknown.
    """

    name: str
    back_to: str
    phase: Literal["trial", "returning"] = "trial"
    reason: str = ""
    fresh: bool = True
    expected: Expected = Expected()
    limits: Limits = Limits()
    boot_id: str
    began_s: float
    boots: int = 0
    restarts: int | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an update ended. `done`: the new release is in use. `returned`: the old one is again. `undone`: cut
    off before the switch. `stayed`: the new one failed, but the old one cannot open the store any more."""

    outcome: Literal["done", "returned", "undone", "stayed"]
    release: str
    before: str
    reason: str = ""
    at: datetime
    clock: str = "unsynced"


def read(layout: Layout) -> Trial | None:
    """The trial that is under way. Raises UpdateError for one that cannot be read."""
    path = layout.root / FILE
    try:
        with path.open("rb") as file:
            trial = msgspec.json.decode(file.read(_MAX_BYTES), type=Trial)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpdateError(f"{path}: cannot be read ({error})") from error
    check_name(trial.name, str(path))
    check_name(trial.back_to, str(path))
    return trial


def write(layout: Layout, trial: Trial) -> None:
    """Have the trial on the disk."""
    layout.write(FILE, msgspec.json.encode(trial))


def end(layout: Layout, outcome: Outcome) -> None:
    """The verdict is there: keep it, and end the trial; a full disk only costs the record."""
    with contextlib.suppress(OSError):
        layout.write(LAST, msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n")
    layout.drop(FILE)


def last(layout: Layout) -> Outcome | None:
    """How the last update ended, as far as is known."""
    try:
        with (layout.root / LAST).open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=Outcome)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
