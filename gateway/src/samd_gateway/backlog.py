"""What was received and is not yet written: a queue that is bounded by messages and by bytes."""

import threading
import time
from collections import deque

import msgspec

MESSAGES = 10_000
BYTES = 64 * 1024 * 1024


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message as the link received it. `session` is the connection it came on: an acknowledgement is valid
    only there, since after a reconnect the broker sends the message again under a number of its choice."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    mid: int
    session: int
    received_at: float


class Backlog:
    """One thread puts, one takes; both may wait."""

    def __init__(self, *, messages: int = MESSAGES, bytes_: int = BYTES) -> None:
        self._messages = messages
        self._limit = bytes_
        self._queue: deque[Received] = deque()
        self._bytes = 0
        self._condition = threading.Condition()
        self._closed = False

    @property
    def depth(self) -> int:
        return len(self._queue)

    @property
    def filled(self) -> float:
        """How full it is, 0 to 1."""
        return max(len(self._queue) / self._messages, self._bytes / self._limit)

    def _full(self) -> bool:
        return len(self._queue) >= self._messages or self._bytes >= self._limit

    def put(self, received: Received, *, wait: bool) -> bool:
        """Whether it was taken: without `wait` a full queue refuses, with it only a closed one does."""
        with self._condition:
            while self._full() and wait and not self._closed:
                self._condition.wait()
            if self._closed or self._full():
                return False
            self._queue.append(received)
            self._bytes += len(received.payload)
            if len(self._queue) == 1:
                self._condition.notify_all()
            return True

    def take(self, most: int, timeout_s: float) -> list[Received]:
        """What waits, at most so many; none when nothing comes in that time."""
        with self._condition:
            deadline = time.monotonic() + timeout_s
            while not self._queue and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0 or not self._condition.wait(left):
                    break
            was_full = self._full()
            batch = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            self._bytes -= sum(len(received.payload) for received in batch)
            if was_full:
                self._condition.notify_all()
            return batch

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
