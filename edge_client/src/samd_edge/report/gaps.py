"""When nothing was read for longer than allowed, and how long each judgement stood.

Allowed is the shorter of two: what the chart asks for at that score, and ``USUAL_TIMES`` the usual interval
of this admission's readings, at least ``CONTINUOUS_S``. The chart's 12 h at a score of 0 are meant for a
nurse's round: a monitor that sent every few seconds and falls silent leaves a gap long before.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from samd_data.carry import CARRY_SECONDS
from samd_data.response import INTERVAL_AT_0_SECONDS, INTERVAL_SECONDS
from samd_edge.report.record import History, Run

CONTINUOUS_S: Final = 900.0
"""Where the chart asks for monitoring without a break, a break is longer than this."""

USUAL_TIMES: Final = 10.0
"""So many times the usual interval of the readings is a break, also where the chart allows a longer one."""

UNJUDGED_S: Final = INTERVAL_SECONDS["low"] or 0.0
"""Where nothing was judged: the interval of a total of 1 to 4."""

STANDS_S: Final = min(CARRY_SECONDS.values())
"""A judgement stands until the next one, and no longer than the shortest-lived value that it was made of."""


@dataclass(frozen=True, slots=True)
class Gap:
    """No reading with a sign that counts between ``start`` and ``end``, longer than ``allowed_s``. ``start``
    may lie before the period, and is None when nothing was ever read before."""

    start: float | None
    end: float
    allowed_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """A judgement and the stretch, within the period, for which it stood."""

    start: float
    end: float
    run: Run


def held(history: History) -> list[Held]:
    """The judgements with the stretches for which they stood, oldest first; there may be holes between."""
    found: list[Held] = []
    for number, run in enumerate(history.runs, start=1):
        end = history.runs[number].start if number < len(history.runs) else history.until
        start, stop = max(history.since, run.start), min(end, run.last + STANDS_S, history.until)
        if stop > start or (stop == start == run.start):
            found.append(Held(start, stop, run))
    return found


def gaps(history: History) -> list[Gap]:
    """Stretches without a reading that counts, longer than allowed when they began; also the one from the
    last such reading to the end of the period."""
    times = list(history.read_at)
    first = history.since if history.before is None else history.before
    edges = [first, *times, history.until]
    stands = held(history)
    found: list[Gap] = []
    place = 0
    for number, (start, end) in enumerate(pairwise(edges)):
        if end <= history.since:
            continue
        while place + 1 < len(stands) and stands[place + 1].start <= start:
            place += 1
        current = stands[place] if stands and stands[place].start <= max(start, history.since) else None
        allowed = _allowed_s(history, current, start)
        if end - start > allowed:
            unknown = number == 0 and history.before is None
            found.append(Gap(None if unknown else start, end, allowed))
    return found


def class_times(history: History) -> dict[str, float]:
    """Seconds for which each severity stood: "0" to "3"; "open" where it was none or worse, "unjudged"."""
    times = dict.fromkeys(("0", "1", "2", "3", "open", "unjudged"), 0.0)
    for each in held(history):
        run = each.run
        name = "open" if run.severity == 0 and run.possible > 0 else str(run.severity)
        times[name] += each.end - each.start
    times["unjudged"] = max(0.0, history.until - history.since - sum(times.values()))
    return times


def _allowed_s(history: History, current: Held | None, at: float) -> float:
    allowed: float | None
    if current is None or current.end < min(at, history.until):
        allowed = UNJUDGED_S
    elif current.run.low == 0:
        allowed = INTERVAL_AT_0_SECONDS
    else:
        allowed = INTERVAL_SECONDS[current.run.band]
        allowed = CONTINUOUS_S if allowed is None else allowed
    if history.monitoring_interval_s is not None:
        allowed = min(allowed, history.monitoring_interval_s)
    if history.usual_s is not None:
        allowed = min(allowed, max(CONTINUOUS_S, USUAL_TIMES * history.usual_s))
    return allowed
