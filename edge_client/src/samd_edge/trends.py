"""The last day of one patient in memory, a point a minute: what the local view draws as trend lines.

The store holds everything; to read and decode a day of it each second would cost more than judging does.
"""

from collections import deque
from datetime import datetime, timedelta
from typing import Final

from samd_data.reading import VITALS, Reading

KEEP: Final = timedelta(hours=24)
STEP: Final = timedelta(minutes=1)


class Trends:
    """Per sign the last value of each minute, of the score the worst. Times are the patient's."""

    def __init__(self) -> None:
        self._signs: dict[str, deque[tuple[datetime, float]]] = {field: deque() for field in VITALS}
        self._scores: deque[tuple[datetime, int, int, int]] = deque()

    def strike(self, field: str, at: datetime) -> None:
        """Take a value off its line: it was wrong. The scores stand as they were shown."""
        line = self._signs.get(field)
        if line is not None:
            kept = [point for point in line if point[0] != at]
            line.clear()
            line.extend(kept)

    def take(self, reading: Reading) -> None:
        """Add what was accepted of a reading."""
        for field, line in self._signs.items():
            value = getattr(reading, field)
            if value is None:
                continue
            at = reading.observed_at - timedelta(seconds=reading.ages.get(field, 0.0))
            if line and at < line[-1][0]:
                continue  # it came late: the line is drawn already
            if len(line) > 1 and at - line[-2][0] < STEP:
                line.pop()
            line.append((at, value))
            while at - line[0][0] > KEEP:
                line.popleft()

    def score(self, at: datetime, low: int, high: int, severity: int) -> None:
        """Add a judgement: both ends of NEWS2 and the severity."""
        line = self._scores
        if line and at < line[-1][0]:
            return
        if len(line) > 1 and at - line[-2][0] < STEP:
            _, last_low, last_high, last_severity = line.pop()
            low, high, severity = max(low, last_low), max(high, last_high), max(severity, last_severity)
        line.append((at, low, high, severity))
        while at - line[0][0] > KEEP:
            line.popleft()

    def sign(self, field: str, now: datetime, since: datetime) -> list[tuple[float, float]]:
        """(seconds before now, value) of a sign, oldest first."""
        return [
            ((now - at).total_seconds(), value) for at, value in self._signs.get(field, ()) if at >= since
        ]

    def scores(self, now: datetime, since: datetime) -> list[tuple[float, int, int, int]]:
        """(seconds before now, low, high, severity), oldest first."""
        return [
            ((now - at).total_seconds(), low, high, severity)
            for at, low, high, severity in self._scores
            if at >= since
        ]
