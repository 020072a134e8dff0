"""Tracking: what happened in a run, told to whoever wants it. Metrics leave, never a reading.

A record is a mapping with an `event` (counted, round, evaluated, personalised, candidate); what a device says
stands below `by_device`. JSON lines get every record as it is and are all that a run needs; the others get
numbers alone (`records`), and one that fails is left out with a warning: no run is lost by it.

=================  ==========================================================================
module             what it says
=================  ==========================================================================
``background``     a tracker in a thread of its own, which cannot hold a run up
``records``        the numbers in a record, of the server and of each device
``jsonl``          `metrics.jsonl` in the run's folder
``tensorboard``    event files; needs `samd-server[tracking]`
``wandb``          Weights & Biases; needs `samd-server[tracking]`, offline unless a key is set
``history``        a run's folder, read again
``curves``         its curves as PNG and HTML
=================  ==========================================================================
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from samd_server.errors import ServerError
from samd_server.tracking.background import Background, Tracker

__all__ = ["NAMES", "Tracker", "Tracking", "check", "open_trackers"]

NAMES: Final = ("tensorboard", "wandb")
"""What can be had beside the JSON lines."""


class Tracking:
    """Several trackers as one. The first writes at once and must not fail; the others follow in threads."""

    def __init__(self, first: Tracker, *others: Tracker) -> None:
        self._first = first
        self._others = [Background(tracker) for tracker in others]

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """Tell all that a run begins."""
        self._first.begin(run, config)
        for other in self._others:
            other.begin(run, config)

    def log(self, record: Mapping[str, Any]) -> None:
        """Tell all what happened."""
        self._first.log(record)
        for other in self._others:
            other.log(record)

    def end(self) -> None:
        """Tell all that it is over."""
        self._first.end()
        for other in self._others:
            other.end()


def check(names: Sequence[str]) -> None:
    """Raise ServerError for a tracker that is not known or not installed, before any run begins."""
    for name in names:
        if name not in NAMES:
            raise ServerError(f"tracking {name!r} is not known; choose of: {', '.join(NAMES)}")
        _class(name)


def open_trackers(names: Sequence[str], folder: Path) -> list[Tracker]:
    """The trackers of these names, with their files below `folder`."""
    return [_class(name)(folder / name) for name in names]


def _class(name: str) -> Callable[[Path], Tracker]:
    module, kind = {
        "tensorboard": ("samd_server.tracking.tensorboard", "TensorBoard"),
        "wandb": ("samd_server.tracking.wandb", "Wandb"),
    }[name]
    try:
        made: Callable[[Path], Tracker] = getattr(import_module(module), kind)
    except ImportError as error:
        raise ServerError(
            f"tracking by {name} needs {error.name}: pip install 'samd-server[tracking]'"
        ) from error
    return made
