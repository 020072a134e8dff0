"""Several sources as one, and what each of them is doing."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.clock import Clock, WallClock
from samd_edge.retraction import Retraction
from samd_edge.sources import Item, Source, SourceError, SourceURL, open_source
from samd_edge.sources.surroundings import Surroundings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SourceStatus:
    """What is known of one source; times are the wall's."""

    name: str
    readings: int = 0
    rejected: int = 0
    last_at: datetime | None = None
    ended: bool = False
    error: str | None = None


class Sources:
    """The readings of several sources, as they come. Each is asked for its next item only after its last one
    was taken over. One that fails or ends leaves the others going; when none is left, the iteration ends.
    """

    def __init__(
        self, named: Sequence[tuple[str, Source]], *, wall: Callable[[], datetime], clock: Clock
    ) -> None:
        self.clock = clock
        self.status = [SourceStatus(name) for name, _ in named]
        self._sources = [source for _, source in named]
        self._wall = wall

    def history(self) -> Iterator[Reading]:
        return chain.from_iterable(source.history() for source in self._sources)

    async def __aiter__(self) -> AsyncIterator[Item]:
        if len(self._sources) == 1:
            only = self.status[0]
            try:
                async for item in self._sources[0]:
                    self._count(only, item)
                    yield item
            except Exception as error:
                only.error = f"{type(error).__name__}: {error}"
                raise
            finally:
                only.ended = True
            return
        arrived: asyncio.Queue[tuple[Item, asyncio.Event] | None] = asyncio.Queue()
        pumps = [
            asyncio.create_task(self._pump(source, status, arrived), name=f"source {status.name}")
            for source, status in zip(self._sources, self.status, strict=True)
        ]
        try:
            left = len(pumps)
            while left:
                got = await arrived.get()
                if got is None:
                    left -= 1
                    continue
                item, taken = got
                yield item
                taken.set()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self,
        source: Source,
        status: SourceStatus,
        arrived: asyncio.Queue[tuple[Item, asyncio.Event] | None],
    ) -> None:
        try:
            async for item in source:
                self._count(status, item)
                taken = asyncio.Event()
                arrived.put_nowait((item, taken))
                await taken.wait()
        except Exception as error:  # noqa: BLE001  (whatever a source dies of, the others go on)
            status.error = f"{type(error).__name__}: {error}"
            log.error("source %s failed (%s); the others go on", status.name, status.error)
        else:
            log.warning("source %s ended after %d readings", status.name, status.readings)
        status.ended = True
        arrived.put_nowait(None)

    def _count(self, status: SourceStatus, item: Item) -> None:
        if isinstance(item, Rejection):
            status.rejected += 1
            return
        readings = len(item.instead) if isinstance(item, Retraction) else 1
        status.readings += readings
        if readings:
            status.last_at = self._wall()

    async def aclose(self) -> None:
        for source in self._sources:
            with contextlib.suppress(asyncio.CancelledError):
                await source.aclose()


def open_sources(urls: Sequence[SourceURL], around: Surroundings) -> Sources:
    """Open them all, or none. Raises SourceError or DataError; several only where all keep the wall's time:
    a recording that is played faster cannot stand beside live readings."""
    for number, url in enumerate(urls):
        if url in urls[:number]:
            # two clients of one name would throw each other out, and every reading would come twice
            raise SourceError(f"source {url.text!r}: is given twice; once is enough")
    # Named without its options, which may hold a record number: a name stands in the log.
    opened = [(url.text.partition("?")[0], open_source(url, around=around)) for url in urls]
    if len(opened) == 1:
        return Sources(opened, wall=around.wall, clock=opened[0][1].clock)
    for name, source in opened:
        if not isinstance(source.clock, WallClock):
            raise SourceError(
                f"source {name!r}: keeps a time of its own and cannot be combined with others; give it alone"
            )
    return Sources(opened, wall=around.wall, clock=WallClock(around.wall))
