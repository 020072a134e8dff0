"""What happens, as it happens, to those who listen at `/api/events`.

The writer never waits for a reader: each has a bounded queue, and one that does not keep up is dropped. It
connects again and reads the present state from the API, which loses nothing that is on record.
"""

import asyncio
import threading
from typing import Any

from samd_gateway.metrics import Metrics

QUEUE_EVENTS = 256


class Event:
    """One event: its name, and its data as a JSON-ready dictionary."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: dict[str, Any]) -> None:
        self.name = name
        self.data = data


class Subscriber:
    """One reader. `get` returns the next event, or None once the reader has been dropped or all ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self.loop = loop
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(maxsize=size)
        self.dropped = False
        self.offered = 0
        """Events that are on their way to it, or were: each is counted before it arrives in the loop."""
        self._taken = 0

    @property
    def behind(self) -> int:
        """How many events it has not taken yet."""
        return self.offered - self._taken

    def offer(self, event: Event) -> bool:
        """In the reader's own loop. False when the queue is full: then the reader is told to end."""
        if self.dropped:
            return False
        if self._queue.full():
            self.end()
            return False
        self._queue.put_nowait(event)
        return True

    def end(self) -> None:
        """Forget what waits and end the stream."""
        self.dropped = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def get(self) -> Event | None:
        event = await self._queue.get()
        self._taken += 1
        return event


class Events:
    """The hub. `publish` is called from any thread and never blocks."""

    def __init__(self, metrics: Metrics, *, size: int = QUEUE_EVENTS) -> None:
        self._metrics = metrics
        self._size = size
        self._lock = threading.Lock()
        self._subscribers: set[Subscriber] = set()
        self._closed = False

    def subscribe(self) -> Subscriber:
        """A new reader, in the running event loop."""
        subscriber = Subscriber(asyncio.get_running_loop(), self._size)
        with self._lock:
            self._subscribers.add(subscriber)
            self._metrics.event_clients.set(len(self._subscribers))
            if self._closed:
                subscriber.end()
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._subscribers.discard(subscriber)
            self._metrics.event_clients.set(len(self._subscribers))

    @property
    def listening(self) -> bool:
        """Whether anybody would receive an event."""
        return bool(self._subscribers)

    @property
    def crowded(self) -> bool:
        """Whether some reader's queue is more than a quarter full: who has much to tell may wait a little."""
        with self._lock:
            return any(subscriber.behind > self._size // 4 for subscriber in self._subscribers)

    def publish(self, event: Event) -> None:
        with self._lock:
            subscribers = list(self._subscribers)
            for subscriber in subscribers:
                subscriber.offered += 1
        for subscriber in subscribers:
            try:
                subscriber.loop.call_soon_threadsafe(self._deliver, subscriber, event)
            except RuntimeError:  # its loop has ended with the program
                self.unsubscribe(subscriber)

    def _deliver(self, subscriber: Subscriber, event: Event) -> None:
        if subscriber.dropped:
            return
        if not subscriber.offer(event):
            self._metrics.event_clients_dropped.inc()
            self.unsubscribe(subscriber)

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            self._closed = True
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            try:
                subscriber.loop.call_soon_threadsafe(subscriber.end)
            except RuntimeError:
                continue
