"""The score of the last day as a line: for each device a ring of spans, each with the worst that it held.

Two bytes a span, so that the lines of a whole hospital fit into a few megabytes.
"""

import threading
from collections.abc import Iterable
from datetime import datetime

import msgspec
from sqlalchemy import Connection, select

from samd_gateway import schema

DAY_S = 86_400.0
SPANS = 48
SPAN_S = DAY_S / SPANS
EMPTY = 255
AT_ONCE = 20_000
"""So many messages of one device are read at most for its line: about one in four seconds of a day."""


class Score(msgspec.Struct, frozen=True):
    """The part of a NEWS2 score that a line is drawn of."""

    low: int
    high: int


class Scored(msgspec.Struct, frozen=True):
    """The part of an assessment that a line is drawn of; the rest is not decoded."""

    news2: Score
    observed_at: datetime


decoder = msgspec.json.Decoder(Scored)


class Line:
    """One device's ring. `last` is the number of the newest span."""

    __slots__ = ("last", "ring")

    def __init__(self) -> None:
        self.ring = bytearray([EMPTY]) * (2 * SPANS)
        self.last = 0

    def add(self, at: float, low: int, high: int) -> None:
        """Take in a score; one that is older than the ring is left out."""
        number = int(at // SPAN_S)
        if number > self.last:
            for between in range(max(self.last + 1, number - SPANS + 1), number + 1):
                self._clear(between)
            self.last = number
        if number <= self.last - SPANS:
            return
        place = 2 * (number % SPANS)
        for offset, value in ((0, low), (1, high)):
            held = self.ring[place + offset]
            if held == EMPTY or value > held:
                self.ring[place + offset] = min(max(value, 0), EMPTY - 1)

    def points(self, since: float, until: float) -> list[tuple[float, int, int]]:
        """(begin of the span, low, high) of each span within these times that holds a score."""
        found = []
        for number in range(self.last - SPANS + 1, self.last + 1):
            begin = number * SPAN_S
            place = 2 * (number % SPANS)
            if self.ring[place] != EMPTY and begin + SPAN_S > since and begin <= until:
                found.append((begin, self.ring[place], self.ring[place + 1]))
        return found

    def _clear(self, number: int) -> None:
        place = 2 * (number % SPANS)
        self.ring[place] = self.ring[place + 1] = EMPTY


class Trends:
    """The lines of all devices: loaded from the messages when first asked for, then fed as they come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}

    def add(self, device: str, at: float, low: int, high: int) -> None:
        """A new assessment. Of a device whose line nobody has asked for yet it is left to the loading."""
        with self._lock:
            line = self._lines.get(device)
            if line is not None:
                line.add(at, low, high)

    def known(self, device: str) -> bool:
        return device in self._lines

    def load(self, connection: Connection, devices: Iterable[str], now: float) -> None:
        """Read the last day of these devices from their messages, where that was not done."""
        table = schema.messages
        for device in devices:
            with self._lock:
                if device in self._lines:
                    continue
                # before reading: what is committed meanwhile is added too, and counts once anyway
                line = self._lines[device] = Line()
            query = (
                select(table.c.received_at, table.c.body)
                .where(
                    table.c.device == device,
                    table.c.kind == "assessment",
                    table.c.received_at > now - DAY_S,
                )
                .order_by(table.c.received_at.desc())
                .limit(AT_ONCE)
            )
            for received_at, body in connection.execute(query):
                scored = decoder.decode(body)
                with self._lock:
                    line.add(moment_of(scored, received_at), scored.news2.low, scored.news2.high)

    def points(self, device: str, since: float, until: float) -> list[tuple[float, int, int]]:
        with self._lock:
            line = self._lines.get(device)
            return [] if line is None else line.points(since, until)


def moment_of(scored: Scored, received_at: float) -> float:
    """When it was observed, in seconds since 1970: never later than when it came here."""
    return min(scored.observed_at.timestamp(), received_at)
