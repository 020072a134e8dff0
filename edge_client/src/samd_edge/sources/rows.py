"""A table of readings as a source: rows are read by a thread, so that a silent pipe stops nothing else."""

import asyncio
import contextlib
import io
import itertools
import os
import select
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_data.table import Format, read_rows
from samd_edge.clock import Clock, DataClock

_AHEAD: Final = 1000  # rows read and not yet asked for: a file must not fill the memory


class _Interruptible(io.RawIOBase):
    """A file descriptor that can be read until it ends, or until ``stop`` is called from another thread."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._wake_read, self._wake_write = os.pipe()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        ready, _, _ = select.select([self._fd, self._wake_read], [], [])
        if self._wake_read in ready:
            return 0
        data = os.read(self._fd, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def stop(self) -> None:
        os.write(self._wake_write, b"x")

    def close(self) -> None:
        if not self.closed:
            for fd in (self._fd, self._wake_read, self._wake_write):
                os.close(fd)
        super().close()


class RowSource:
    """Rows that a thread reads ahead of who asks for them. There is no history: all are played, in order.

    ``rows`` is iterated over in the thread; ``stop`` makes it end soon and may be called from another one;
    ``close`` lets go of what it reads, once the thread has ended.
    """

    def __init__(
        self,
        rows: Iterator[Reading | Rejection],
        clock: Clock,
        *,
        stop: Callable[[], None],
        close: Callable[[], None],
    ) -> None:
        self.clock = clock
        self._rows = rows
        self._stop = stop
        self._close = close
        self._room = threading.Semaphore(_AHEAD)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._peeked: list[Reading | Rejection] = []

    def history(self) -> Iterator[Reading]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Reading | Rejection]:
        if self._thread is not None:
            raise RuntimeError("a source is iterated over once")
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Reading | Rejection | Exception | None] = asyncio.Queue()
        self._thread = threading.Thread(
            target=self._pump, args=(loop, arrived), name="samd-rows", daemon=True
        )
        self._thread.start()
        while (item := await arrived.get()) is not None:
            if isinstance(item, Exception):
                raise item
            self._room.release()
            if isinstance(item, Reading) and isinstance(self.clock, DataClock):
                self.clock.follow(item.observed_at)
            yield item

    def _pump(
        self, loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[Reading | Rejection | Exception | None]
    ) -> None:
        def hand_over(item: Reading | Rejection | Exception | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed under us: nobody waits any more
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        try:
            for item in itertools.chain(self._peeked, self._rows):
                self._room.acquire()
                if self._closing.is_set():
                    break
                hand_over(item)
        except Exception as error:  # noqa: BLE001  (it is raised again where the rows are awaited)
            hand_over(error)
        hand_over(None)

    async def aclose(self) -> None:
        self._closing.set()
        self._room.release()
        if self._thread is not None and self._thread.is_alive():
            self._stop()
            await asyncio.to_thread(self._thread.join)
        self._close()


class TableSource(RowSource):
    """The rows of a file or pipe, one patient's. Owns ``fd`` and closes it.

    ``name`` stands in the messages. Iterating raises ``DataError`` for what is no table at all (empty, no
    header, no UTF-8). Of one that is ``live``, bytes that are no UTF-8 spoil the value that they stand in.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        clock: Clock,
        *,
        format: Format | None = None,  # noqa: A002
        live: bool = False,
    ) -> None:
        raw = _Interruptible(fd)
        errors = "replace" if live else "strict"
        text = io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8", errors=errors, newline=None)
        super().__init__(read_rows(text, name, format=format), clock, stop=raw.stop, close=text.close)

    def peek(self) -> None:
        """Read up to the first row now, so that a file that is no table is refused when it is opened."""
        first = next(self._rows, None)
        if first is not None:
            self._peeked.append(first)
