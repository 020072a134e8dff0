"""From the broker into the database: a bounded queue, one writer thread, acknowledgements after the commit.

The broker may forget a message once it is acknowledged, so that happens only when the transaction that holds
it is durable, and in the order of arrival. What cannot be accepted is acknowledged too, as it would come back
for ever. When the database fails, nothing is acknowledged and the same batch is tried again.

What may be lost with the program (signs of life, heartbeats) is written by the same thread, a second later.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from samd_gateway import signs
from samd_gateway.backlog import Backlog, Received
from samd_gateway.flags import Flag
from samd_gateway.flood import Allowance, Flood
from samd_gateway.health_buckets import Beats
from samd_gateway.intake import Item, Malformed, parse, sender_of
from samd_gateway.metrics import Metrics
from samd_gateway.recorder import Recorded, record, take_in
from samd_gateway.roster import Roster
from samd_gateway.schema import Database
from samd_gateway.signs_rows import write_listened, write_signs
from samd_gateway.states import Policy
from samd_protocol.errors import MessageError

log = logging.getLogger(__name__)

BATCH_MESSAGES = 500
BUSY_MESSAGES, GATHER_S = 10, 0.004
"""After a batch of so many the writer waits so long for more: a transaction costs milliseconds whatever is in
it, and a broker sends only a window of messages ahead of the acknowledgements."""
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
FLUSH_S = 1.0
LISTENED_EVERY_S = 5.0
FLUSH_ROWS = 2000
"""Signs of life and spans of heartbeats that are written at once; the rest a moment later, so that messages
do not wait behind ten thousand spans that end in the same moment."""


class Ingest:
    """The queue and its writer. `offer` is called by the network thread and does nothing but enqueue."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        policy: Policy,
        roster: Roster,
        *,
        acknowledge: Callable[[Sequence[Received]], None],
        committed: Callable[[Recorded], None],
        listening: Callable[[], bool] = lambda: True,
        allowance: Allowance | None = None,
        backlog: Backlog | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._policy = policy
        self._roster = roster
        self._acknowledge = acknowledge
        self._committed = committed
        self._listening = listening
        self._flood = Flood(allowance or Allowance())
        self._backlog = backlog or Backlog()
        self._now = now
        self.beats = Beats()
        self._malformed = Malformed(
            lambda reason: metrics.dropped.labels(reason).inc(), lambda text: log.warning("%s", text)
        )
        self._stopping = threading.Event()
        self._busy = False
        self._flushed = time.monotonic()
        self._said = -math.inf
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self.error: str | None = None
        """Why the last transaction failed; None while all is well."""

    @property
    def depth(self) -> int:
        return self._backlog.depth

    @property
    def filled(self) -> float:
        """How full the queue is, 0 to 1."""
        return self._backlog.filled

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the writer; what is not committed by then is not acknowledged, so the broker keeps it."""
        self._stopping.set()
        self._backlog.close()
        self._thread.join(timeout_s)

    def offer(self, received: Received) -> None:
        """Enqueue. When the queue is full, messages of QoS 0 are dropped; others wait here, which holds back
        the broker through the connection, and nothing is lost."""
        if not self._backlog.put(received, wait=received.qos > 0) and received.qos == 0:
            self._metrics.dropped.labels("queue full").inc()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._busy:
                self._stopping.wait(GATHER_S)
            batch = self._backlog.take(BATCH_MESSAGES, FLUSH_S / 4)
            self._busy = len(batch) >= BUSY_MESSAGES
            if batch and self._write(batch):
                self._acknowledge(batch)
            if time.monotonic() - self._flushed >= FLUSH_S:
                self.flush()
        self.beats.close()
        for _ in range(100):  # bounded, should the database be away
            if not self.flush():
                break

    def _write(self, batch: Sequence[Received]) -> bool:
        """Commit a batch, however long it takes; False when the program ends first."""
        self._metrics.queue_depth.set(self.depth)
        kept, thinned = self._flood.sift(batch)
        for device, count in thinned.items():
            self._metrics.dropped.labels("flood").inc(count)
            self._earned(device, "flood", batch[-1].received_at)
        items: list[Item] = []
        for each in kept:
            try:
                items.append(parse(each.topic, each.payload, each.received_at, retained=each.retained))
            except MessageError as error:
                self._malformed.drop(each.topic, error)
                self._earned(sender_of(each.topic), "rubbish", each.received_at)
        if not self._store(items):
            return False
        self._metrics.lag_seconds.observe(max(self._now() - batch[0].received_at, 0.0))
        return True

    def _earned(self, device: str, flag: Flag, at: float) -> None:
        with self._roster.held:
            known = self._roster.get(device)
            if known is not None:
                signs.earn(self._roster, known, at=at, flag=flag)

    def _store(self, items: Sequence[Item]) -> bool:
        attempt = 0
        while items and not self._stopping.is_set():
            try:
                self._commit(items)
            except (DataError, IntegrityError, ValueError, OverflowError) as error:
                # Not the database but something in the batch: keep the others, one by one.
                if len(items) > 1:
                    return all(self._store([item]) for item in items)
                self._metrics.dropped.labels("not storable").inc()
                log.error(
                    "a message of %s cannot be stored and is dropped (%s)",
                    items[0].sender,
                    type(error).__name__,
                )
                return True
            except SQLAlchemyError as error:  # locked, full, read-only, damaged, away: no message's fault
                self._failed(error)
            else:
                self.error = None
                return True
            self._stopping.wait(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1
        return not items

    def _commit(self, items: Sequence[Item]) -> None:
        began = time.perf_counter()
        with self._database.append({item.sender for item in items}) as connection:
            recorded = record(connection, items, self._policy, self._roster)
        take_in(recorded, self._roster, self.beats)
        self._metrics.commit_seconds.observe(time.perf_counter() - began)
        self._metrics.batch_size.observe(len(items))
        self._metrics.duplicates.inc(len(items) - len(recorded.new))
        counts: dict[str, int] = {}
        for item in recorded.new:
            counts[item.kind] = counts.get(item.kind, 0) + 1
        for kind, count in counts.items():
            self._metrics.messages.labels(kind).inc(count)
        if recorded.new:
            self._committed(recorded)

    def flush(self) -> bool:
        """Write signs of life and heartbeats; whether there was something, and it is written."""
        self._flushed = time.monotonic()
        says = self._listening() and self._flushed - self._said >= LISTENED_EVERY_S
        self.beats.close_ended(self._now())
        rows = self._roster.take_unwritten(FLUSH_ROWS)
        senders = self.beats.senders(FLUSH_ROWS) | {row["name"] for row in rows}
        if not senders and not says:
            return False
        try:
            with self._database.append(senders) as connection:
                write_signs(connection, rows)
                if self._listening():
                    write_listened(connection, self._now())
                self.beats.write(connection)
        except SQLAlchemyError as error:
            self._roster.give_back(rows)
            self._failed(error)
            return False
        self.beats.written()
        self._said = self._flushed
        self.error = None
        return bool(senders)

    def _failed(self, error: SQLAlchemyError) -> None:
        self._metrics.write_errors.inc()
        cause = next(iter(str(getattr(error, "orig", "")).strip().splitlines()), type(error).__name__)
        text = f"the database cannot be written ({cause})"
        if self.error is None:
            log.error("%s; messages wait at the broker, and are tried again", text)
        self.error = text
