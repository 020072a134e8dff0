"""``sim:?scenario=sepsis&speed=60&seed=0&hours=24&every=5``: an invented patient, from now on.

It needs nothing else: the first source to try. The scenarios, and what happens in them, stand in
``scenarios``; ``sim:`` alone is the one of sepsis. ``speed``: how many times as fast as the wall its hours
pass (default 1). ``every``: seconds of patient time between two values of heart rate, of respiration and of
saturation. After ``hours`` of patient time the source ends.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Final

import msgspec

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.clock import ScaledClock
from samd_edge.sources import SourceError, SourceURL
from samd_edge.sources.invented import Timed
from samd_edge.sources.scenarios import timeline
from samd_edge.sources.surroundings import Surroundings

_TICK_S: Final = 1e-6  # what a wall can tell apart


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See the module."""

    scenario: str = "sepsis"
    speed: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    hours: Annotated[float, msgspec.Meta(gt=0, le=8760)] = 24.0
    every: Annotated[float, msgspec.Meta(ge=0.5, le=900)] = 5.0


class Sim:
    """A timeline on a clock of its own; ``items`` are sent when their time has come."""

    def __init__(
        self,
        items: Iterator[Timed],
        clock: ScaledClock,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.clock = clock
        self._items = items
        self._sleep = sleep

    def history(self) -> Iterator[Reading]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Reading | Rejection]:
        for timed in self._items:
            # Never early, as in a replay: a reading from the future would be left out as unknown.
            while (left := (timed.at - self.clock.now()).total_seconds()) > 0:
                await self._sleep(max(left / self.clock.speed, _TICK_S))
            yield timed.item

    async def aclose(self) -> None:
        self._items = iter(())


def open_source(url: SourceURL, around: Surroundings) -> Sim:
    """Begin the patient's life now. Raises SourceError for an option that is unknown or out of range."""
    settings = url.settings(Settings)
    if url.path:
        raise SourceError(f"source {url.text!r}: takes no path; write sim:?scenario=sepsis&speed=60")
    begun = around.wall()
    try:
        items = timeline(
            settings.scenario, seed=settings.seed, start=begun, hours=settings.hours, every=settings.every
        )
    except SourceError as error:
        raise SourceError(f"source {url.text!r}: {error}") from error
    return Sim(items, ScaledClock(begun, settings.speed, around.wall))
