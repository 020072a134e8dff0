"""The thread that tells what happens: states that silence or a message changed, and the newest of each
device.

The writer only notes what came (`committed`); the events are built here, so that no reader costs it time. Of
one device and kind the newest alone is told, and a burst is told in portions that a reader's queue can hold.
"""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import gauges, queries
from samd_gateway.events import Event, Events
from samd_gateway.intake import Item
from samd_gateway.metrics import Metrics
from samd_gateway.recorder import Recorded
from samd_gateway.roster import Roster
from samd_gateway.schema import Database
from samd_gateway.states import Deaf, Policy

log = logging.getLogger(__name__)

LOOK_S = 0.5
PAUSE_S = 0.05
PORTION = 80
"""Events of each sort in one go; a reader's queue holds 256."""
PATIENCE_S = 1.0
"""How long a reader that is behind holds up what is told to all; then it loses its place."""
TOLD = ("assessment", "training")
GAUGES_S = 10.0


class Watcher:
    """Publishes `device`, `assessment`, `training` and `fleet` (how many devices are in which state)."""

    def __init__(
        self,
        database: Database,
        roster: Roster,
        events: Events,
        metrics: Metrics,
        policy: Policy,
        *,
        deaf: Callable[[], Deaf | None],
        now: Callable[[], float],
    ) -> None:
        self._database = database
        self._roster = roster
        self._events = events
        self._metrics = metrics
        self._policy = policy
        self._deaf = deaf
        self._now = now
        self._lock = threading.Lock()
        self._items: dict[tuple[str, str], Item] = {}
        self._changed: dict[str, None] = {}
        self._counts: dict[str, int] = {}
        self._measured = -GAUGES_S
        self._stopping = threading.Event()
        self._look = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stopping.set()
        self._look.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def look(self) -> None:
        """Something may have changed."""
        self._look.set()

    def committed(self, recorded: Recorded) -> None:
        """Note what is to be told. Called by the writer."""
        if self._events.listening:
            with self._lock:
                for item in recorded.newest:
                    self._note((item.kind, item.sender), item)
        self._look.set()

    def _note(self, key: tuple[str, str], item: Item) -> None:
        waiting = self._items.get(key)
        if waiting is not None and waiting.envelope.boot == item.envelope.boot:
            # of two threads that told at the same moment (see `others`) the later message counts
            item = max(waiting, item, key=lambda each: each.envelope.seq)
        self._items[key] = item

    def _run(self) -> None:
        while not self._stopping.is_set():
            more = self._tell()
            if not more:
                wait = min(max(self._roster.next_moment() - self._now(), 0.0), LOOK_S)
                self._look.wait(wait)
                self._look.clear()
            self._stopping.wait(PAUSE_S)  # at most so many looks, however many messages arrive
            until = time.monotonic() + PATIENCE_S
            while self._events.crowded and time.monotonic() < until and not self._stopping.is_set():
                self._stopping.wait(PAUSE_S)

    def _tell(self) -> bool:
        """One portion of everything; whether there is more."""
        self._changed.update(dict.fromkeys(self._roster.take_changed()))
        counts = self._roster.counts()
        for state, count in counts.items():
            self._metrics.devices.labels(state).set(count)
        listening = self._events.listening
        if counts != self._counts:
            self._counts = counts
            if listening:
                self._events.publish(Event("fleet", dict(counts)))
        try:
            self._gauges()
            if not listening:
                self._changed.clear()
                with self._lock:
                    self._items.clear()
                return False
            self._tell_items()
            self._tell_states()
        except SQLAlchemyError:  # /healthz says so; what is not told now is told when it can be read
            self._stopping.wait(LOOK_S)
        return bool(self._changed or self._items)

    def _tell_items(self) -> None:
        with self._lock:
            portion = [self._items.pop(key) for key in list(self._items)[:PORTION]]
        for item in portion:
            if item.kind in TOLD:
                told = queries.newest_out(item, self._now())
                self._events.publish(Event(item.kind, {"device": item.sender} | told.model_dump(mode="json")))

    def _tell_states(self) -> None:
        names = list(self._changed)[:PORTION]
        if not names:
            return
        with self._database.read() as connection:
            known = self._roster.some(names)
            found = queries.devices(connection, known, self._now(), self._policy, deaf=self._deaf())
        for device in found:
            self._events.publish(Event("device", device.model_dump(mode="json")))
        for name in names:
            del self._changed[name]

    def _gauges(self) -> None:
        if self._now() - self._measured < GAUGES_S and self._now() >= self._measured:
            return
        self._measured = self._now()
        self._metrics.flagged.set(self._roster.flagged())
        with self._database.read() as connection:
            gauges.measure(connection, self._metrics)
