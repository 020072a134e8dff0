"""From the broker into the database: a bounded queue, one writer thread, acknowledgements after the commit.

The broker may forget a message once it is acknowledged, so that happens only when the transaction that holds
it is durable, and in the order of arrival. What cannot be accepted is acknowledged too, as it would come back
for ever. When the database fails, nothing is acknowledged and the same batch is tried again.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from samd_gateway.intake import Item, Malformed, parse
from samd_gateway.metrics import Metrics
from samd_gateway.recorder import record
from samd_gateway.schema import Database
from samd_gateway.states import Policy
from samd_protocol.errors import MessageError

log = logging.getLogger(__name__)

QUEUE_MESSAGES = 10_000
BATCH_MESSAGES = 500
BUSY_MESSAGES, GATHER_S = 10, 0.004
"""After a batch of so many the writer waits so long for more: a transaction costs milliseconds whatever is in
it, and a broker sends only a window of messages ahead of the acknowledgements."""
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class Received(msgspec.Struct, frozen=True):
    """A message as the link received it. `session` is the connection it came on: an acknowledgement is valid
    only there, since after a reconnect the broker sends the message again under a number of its choice."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    mid: int
    session: int
    received_at: float


class Ingest:
    """The queue and its writer. `offer` is called by the network thread and does nothing but enqueue."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        policy: Policy,
        *,
        acknowledge: Callable[[Sequence[Received]], None],
        committed: Callable[[Sequence[Item]], None],
        size: int = QUEUE_MESSAGES,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._policy = policy
        self._acknowledge = acknowledge
        self._committed = committed
        self._queue: queue.Queue[Received | None] = queue.Queue(maxsize=size)
        self._malformed = Malformed(
            lambda reason: metrics.dropped.labels(reason).inc(), lambda text: log.warning("%s", text)
        )
        self._stopping = threading.Event()
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self.error: str | None = None
        """Why the last transaction failed; None while all is well."""
        self.size = size

    @property
    def depth(self) -> int:
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the writer; what is not committed by then is not acknowledged, so the broker keeps it."""
        self._stopping.set()
        with contextlib.suppress(queue.Full):  # then the writer looks at the event between batches
            self._queue.put_nowait(None)
        self._thread.join(timeout_s)

    def offer(self, received: Received) -> None:
        """Enqueue. When the queue is full, messages of QoS 0 are dropped; others wait here, which holds back
        the broker through the connection, and nothing is lost."""
        if received.qos == 0:
            try:
                self._queue.put_nowait(received)
            except queue.Full:
                self._metrics.dropped.labels("queue full").inc()
            return
        while not self._stopping.is_set():
            try:
                self._queue.put(received, timeout=0.5)
            except queue.Full:
                continue
            return

    def _batch(self) -> list[Received]:
        """At least one message, and those that wait behind it."""
        first = self._queue.get()
        batch = [] if first is None else [first]
        if self._busy:
            self._stopping.wait(GATHER_S)
        while len(batch) < BATCH_MESSAGES:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is not None:
                batch.append(following)
        self._busy = len(batch) >= BUSY_MESSAGES
        return batch

    def _run(self) -> None:
        while not self._stopping.is_set():
            batch = self._batch()
            self._metrics.queue_depth.set(self.depth)
            if batch and self._write(batch):
                self._acknowledge(batch)

    def _write(self, batch: Sequence[Received]) -> bool:
        """Commit a batch, however long it takes; False when the program ends first."""
        items: list[Item] = []
        for each in batch:
            try:
                items.append(parse(each.topic, each.payload, each.received_at, retained=each.retained))
            except MessageError as error:
                self._malformed.drop(each.topic, error)
        return self._store(items)

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
            new = record(connection, items, self._policy)
        self._metrics.commit_seconds.observe(time.perf_counter() - began)
        self._metrics.batch_size.observe(len(items))
        self._metrics.duplicates.inc(len(items) - len(new))
        for item in new:
            self._metrics.messages.labels(item.kind).inc()
        if new:
            self._committed(new)

    def _failed(self, error: SQLAlchemyError) -> None:
        self._metrics.write_errors.inc()
        cause = next(iter(str(getattr(error, "orig", "")).strip().splitlines()), type(error).__name__)
        text = f"the database cannot be written ({cause})"
        if self.error is None:
            log.error("%s; messages wait at the broker, and are tried again", text)
        self.error = text
