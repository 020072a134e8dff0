"""The score of the last day as a line: for each patient a ring of spans, each with the worst that it held.

Two bytes a span, so that the lines of a whole hospital fit into a few megabytes.
"""

import threading
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
    """One patient's ring. `last` is the number of the newest span; `after` the place among the device's
    messages, `(boot, seq)`, behind which they are of this patient."""

    __slots__ = ("after", "last", "ring")

    def __init__(self, after: tuple[int, int] = (-1, -1)) -> None:
        self.after = after
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

    def add(self, device: str, place: tuple[int, int], at: float, score: Score) -> None:
        """A new assessment. Of a device whose line nobody has asked for yet it is left to the loading."""
        with self._lock:
            line = self._lines.get(device)
            if line is not None and place > line.after:
                line.add(at, score.low, score.high)

    def load(self, connection: Connection, device: str, after: tuple[int, int], now: float) -> None:
        """Read the last day of a device's messages behind that place, where that was not done. With another
        place another patient lies there, and nothing is left of the line before."""
        with self._lock:
            line = self._lines.get(device)
            if line is not None and line.after == after:
                return
            # before reading: what is committed meanwhile is added too, and counts once anyway
            line = self._lines[device] = Line(after)
        table = schema.messages
        query = (
            select(table.c.boot, table.c.seq, table.c.received_at, table.c.body)
            .where(
                table.c.device == device,
                table.c.kind == "assessment",
                table.c.received_at > now - DAY_S,
            )
            .order_by(table.c.received_at.desc())
            .limit(AT_ONCE)
        )
        for boot, seq, received_at, body in connection.execute(query):
            if (boot, seq) > after:
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
