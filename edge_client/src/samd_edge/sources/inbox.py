"""A bounded queue from whoever receives to the loop: what comes too fast pushes out the oldest, counted."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Overrun(NamedTuple):
    """So many items were pushed out, unread, since this was last told."""

    messages: int


class Inbox(Generic[T]):
    """At most ``limit`` items, together ``limit_bytes`` by ``size``. Create it within the loop that reads it.

    The oldest goes, not the newest: of a patient's signs the newest matters most. ``pushed_out`` is called
    with each item that goes, in the thread of ``put``, and must only take note.
    """

    def __init__(
        self,
        *,
        limit: int,
        limit_bytes: int,
        size: Callable[[T], int],
        pushed_out: Callable[[T], None] = lambda _item: None,
    ) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._size = size
        self._pushed_out = pushed_out
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._items: deque[T] = deque()
        self._bytes = 0
        self._overrun = 0
        self._closed = False
        self._filled = asyncio.Event()
        self._waking = False

    def put(self, item: T) -> None:
        """From any thread; never waits."""
        with self._lock:
            self._items.append(item)
            self._bytes += self._size(item)
            while len(self._items) > self._limit or (
                self._bytes > self._limit_bytes and len(self._items) > 1
            ):
                oldest = self._items.popleft()
                self._bytes -= self._size(oldest)
                self._overrun += 1
                self._pushed_out(oldest)
            self._wake()

    def close(self) -> None:
        """End ``get``, for good."""
        with self._lock:
            self._closed = True
            self._wake()

    async def get(self) -> T | Overrun | None:
        """The oldest item; an Overrun in the place of those that were pushed out; None when it is closed."""
        while True:
            with self._lock:
                if self._closed:
                    return None
                if self._overrun:
                    count, self._overrun = self._overrun, 0
                    return Overrun(count)
                if self._items:
                    item = self._items.popleft()
                    self._bytes -= self._size(item)
                    return item
                self._filled.clear()
                self._waking = False
            await self._filled.wait()

    def _wake(self) -> None:
        """Once per wait: a flood must not fill the loop with calls either."""
        if not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                self._loop.call_soon_threadsafe(self._filled.set)
