"""A tracker in a thread of its own: a library that waits for a network must not hold a run up nor cost it."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

log = logging.getLogger(__name__)

PATIENCE_S: Final = 30.0
"""How long the end of a run waits for a tracker to write what it has heard."""


class Tracker(Protocol):
    """Hears of one run, from `begin` to `end`, in one thread."""

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """The run begins, or goes on after a crash. `config`: what was asked for."""
        ...

    def log(self, record: Mapping[str, Any]) -> None:
        """Something happened."""
        ...

    def end(self) -> None:
        """The run is over, or this process is."""
        ...


class Background:
    """Passes all that it is told to a tracker, in order. One that raises hears no more of this run."""

    def __init__(self, tracker: Tracker, *, patience_s: float = PATIENCE_S) -> None:
        self._tracker = tracker
        self._patience_s = patience_s
        self._said: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"track-{self._name}", daemon=True)

    @property
    def _name(self) -> str:
        return type(self._tracker).__name__

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """Start the thread."""
        self._thread.start()
        self._said.put(lambda: self._tracker.begin(run, config))

    def log(self, record: Mapping[str, Any]) -> None:
        """Pass a record on; returns at once."""
        self._said.put(lambda: self._tracker.log(record))

    def end(self) -> None:
        """Wait until all was heard, but not for ever."""
        self._said.put(self._tracker.end)
        self._said.put(None)
        self._thread.join(self._patience_s)
        if self._thread.is_alive():
            log.warning(
                "%s has not written all within %g s; the run's metrics.jsonl is whole",
                self._name,
                self._patience_s,
            )

    def _work(self) -> None:
        while (say := self._said.get()) is not None:
            try:
                say()
            except Exception as error:  # noqa: BLE001 - a library that draws curves must not cost a run
                log.warning(
                    "%s fails (%s: %s); this run goes on without it, its metrics.jsonl is whole",
                    self._name,
                    type(error).__name__,
                    error,
                )
                return
