"""What the device has to say and nobody has confirmed yet: rows in SQLite, and the thread that sends them.

`put` inserts and commits first; nothing is ever sent that is not in a row. The sender has at most 20 messages
in flight and deletes a row when the broker has confirmed it (PUBACK). A new connection begins from the rows:
whatever was in flight on the old one is sent again, with the same message id, so a receiver gets each message
at least once. What the broker refuses goes to a table of dead letters. When the outbox is full, the least
urgent and oldest goes first, and an alert never.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from samd_edge.database import micros
from samd_edge.device_db import DeviceDb, put

log = logging.getLogger(__name__)

ALERT, RESULT, ASSESSMENT, HEARTBEAT = 0, 1, 2, 3
"""Priorities: the lowest is sent first and evicted last."""

MAX_ROWS: Final = 50_000
"""About 50 MB, or a day of an assessment every two seconds."""

MAX_IN_FLIGHT: Final = 20
MAX_DEAD_LETTERS: Final = 1000


class Entry(NamedTuple):
    """One message to be sent: sealed, with the id that its receiver drops duplicates by."""

    priority: int
    kind: str
    topic: str
    message_id: str
    payload: bytes
    expires_at: datetime | None = None


class Publisher(Protocol):
    """The link, as the sender sees it."""

    def publish(self, topic: str, payload: bytes, *, expiry_s: int | None = None) -> int | None:
        """Hand a message (QoS 1) to the connection; its packet id, or None while there is no connection.
        Raises ValueError for a message that no connection would take."""
        ...


class Outbox:
    """The rows. Safe to call from several threads."""

    def __init__(
        self, db: DeviceDb, *, max_rows: int = MAX_ROWS, woken: Callable[[], None] = lambda: None
    ) -> None:
        self._db = db
        self._max_rows = max_rows
        self.woken = woken
        self.evicted = 0
        self.expired = 0
        self._depth = db.number("SELECT COUNT(*) FROM outbox")
        self._counting = threading.Condition()

    @property
    def depth(self) -> int:
        """Messages that wait."""
        return self._depth

    @property
    def dead_letters(self) -> int:
        """Messages that the broker refused."""
        return self._db.number("SELECT COUNT(*) FROM dead_letters")

    def put(self, entries: Iterable[Entry], marks: Mapping[str, Any] | None = None) -> None:
        """Insert messages and commit; `marks` are values of the device's file written in the same commit.

        A message id that waits already is not inserted twice.
        """
        with self._counting:
            with self._db.write() as connection:
                added = 0
                for entry in entries:
                    expires = None if entry.expires_at is None else micros(entry.expires_at)
                    added += connection.execute(
                        "INSERT OR IGNORE INTO outbox (priority, kind, topic, message_id, payload, "
                        "expires_at) VALUES (?, ?, ?, ?, ?, ?)",
                        (entry.priority, entry.kind, entry.topic, entry.message_id, entry.payload, expires),
                    ).rowcount
                for name, value in (marks or {}).items():
                    put(connection, name, value)
                excess = self._depth + added - self._max_rows
                gone = 0
                if excess > 0:
                    gone = connection.execute(
                        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE priority > ? "
                        "ORDER BY priority DESC, id LIMIT ?)",
                        (ALERT, excess),
                    ).rowcount
            self._depth += added - gone
        if gone:
            if self.evicted == 0:
                log.warning(
                    "the outbox is full (%d messages): the oldest and least urgent go", self._max_rows
                )
            self.evicted += gone
        self.woken()

    def next(self, count: int, in_flight: Iterable[int]) -> list[tuple[int, str, bytes, int | None]]:
        """The next rows to send, most urgent first: (row, topic, payload, expires at in microseconds)."""
        skip = ",".join(str(int(row)) for row in in_flight)
        query = (
            "SELECT id, topic, payload, expires_at FROM outbox WHERE id NOT IN (%s) "
            "ORDER BY priority, id LIMIT ?"
        )
        return [(row[0], row[1], row[2], row[3]) for row in self._db.rows(query % skip, count)]

    def remove(self, rows: Iterable[int]) -> None:
        """Forget messages that were confirmed or have expired."""
        with self._counting:
            with self._db.write() as connection:
                gone = sum(
                    connection.execute("DELETE FROM outbox WHERE id = ?", (row,)).rowcount for row in rows
                )
            self._depth -= gone
            self._counting.notify_all()

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait, in a thread that may, until nothing waits any more; False when it took too long."""
        with self._counting:
            return self._counting.wait_for(lambda: self._depth <= 0, timeout_s)

    def bury(self, row: int, reason: str, now: datetime) -> None:
        """Move a refused message to the dead letters; the oldest of those make room."""
        with self._counting:
            with self._db.write(synced=True) as connection:
                connection.execute(
                    "INSERT INTO dead_letters (kind, topic, message_id, payload, reason, died_at) "
                    "SELECT kind, topic, message_id, payload, ?, ? FROM outbox WHERE id = ?",
                    (reason, micros(now), row),
                )
                gone = connection.execute("DELETE FROM outbox WHERE id = ?", (row,)).rowcount
                connection.execute(
                    "DELETE FROM dead_letters WHERE id <= (SELECT MAX(id) FROM dead_letters) - ?",
                    (MAX_DEAD_LETTERS,),
                )
            self._depth -= gone
            self._counting.notify_all()
        log.error("the broker refused a message (%s): it was put with the dead letters", reason)


class Sender:
    """The one thread that sends. Everything that it is told arrives through one queue."""

    def __init__(
        self,
        outbox: Outbox,
        publisher: Publisher,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._now = now
        self._max_in_flight = max_in_flight
        self._events: queue.SimpleQueue[tuple[str, int, int, str | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox-sender", daemon=True)
        self._connection: int | None = None
        self._in_flight: dict[int, int] = {}
        self.failure: str | None = None
        outbox.woken = self.wake

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something new to send."""
        self._events.put(("wake", 0, 0, None))

    def connected(self, connection: int) -> None:
        """A new connection stands: begin from the rows."""
        self._events.put(("connected", connection, 0, None))

    def disconnected(self) -> None:
        self._events.put(("disconnected", 0, 0, None))

    def acknowledged(self, connection: int, packet: int, refusal: str | None) -> None:
        """The broker confirmed a packet, or refused it with a reason. Under paho's lock: only enqueues."""
        self._events.put(("acknowledged", connection, packet, refusal))

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread; rows that wait stay."""
        self._events.put(("stop", 0, 0, None))
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            batch = [self._events.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < 1000:
                    batch.append(self._events.get_nowait())
            if any(event[0] == "stop" for event in batch):
                return
            self.handle(batch)

    def handle(self, batch: Iterable[tuple[str, int, int, str | None]]) -> None:
        """Take in what happened, then send what there is room for."""
        confirmed: list[int] = []
        for kind, connection, packet, refusal in batch:
            if kind == "connected":
                self._connection = connection
                self._in_flight.clear()
            elif kind == "disconnected":
                self._connection = None
                self._in_flight.clear()
            elif kind == "acknowledged" and connection == self._connection:
                row = self._in_flight.pop(packet, None)
                if row is None:
                    continue
                if refusal is None:
                    confirmed.append(row)
                else:
                    self._outbox.bury(row, refusal, self._now())
        if confirmed:
            self._outbox.remove(confirmed)
        while self._connection is not None and self._send():
            pass

    def _send(self) -> bool:
        """Fill the room in flight; True when more may follow at once (some had expired)."""
        room = self._max_in_flight - len(self._in_flight)
        if room <= 0:
            return False
        expired: list[int] = []
        now = micros(self._now())
        for row, topic, payload, expires_at in self._outbox.next(room, self._in_flight.values()):
            if expires_at is not None and expires_at <= now:
                expired.append(row)
                continue
            expiry_s = None if expires_at is None else max(1, (expires_at - now) // 1_000_000)
            try:
                packet = self._publisher.publish(topic, payload, expiry_s=expiry_s)
            except ValueError as error:
                self._outbox.bury(row, str(error), self._now())
                continue
            if packet is None:
                self._connection = None  # the connection is gone; its end is on its way through the queue
                return False
            self._in_flight[packet] = row
        if expired:
            self._outbox.remove(expired)
            self._outbox.expired += len(expired)
        return bool(expired)
