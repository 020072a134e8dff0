"""What an alert policy would have done: recordings through the assessor and the alerts, in patient time.

A patient is judged at each reading, and in between when a value becomes too old, as the agent does with its
tick of a minute. ``judge`` gives all judgements of one stay, which do not depend on the policy; ``tally``
runs one policy over them. Alerts act on the rule alone, so no model is needed.

A **stay** is a run of readings without a pause of more than twelve hours: after that nothing is known any
more, and a device would have been given to somebody else. It lasts from its first reading to its last one;
patient-days are the sum of that. Each begins without an alert. One that is open at its end is neither cleared
nor forgotten: it is counted as open.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from samd_data.carry import CARRY_SECONDS
from samd_data.plausibility import Rejection
from samd_data.reading import COLUMNS, Reading
from samd_edge import alerts
from samd_edge.alerts import AlertState, Change, Policy, Seen
from samd_edge.artefacts import ArtefactPolicy
from samd_edge.assessment import Assessor

PAUSE: Final = timedelta(seconds=max(CARRY_SECONDS.values()))
"""A longer pause without readings ends a stay."""

TICK: Final = timedelta(seconds=60)
HIGH: Final = 3
"""The level of a total of 7 or more."""

Item = tuple[datetime, Reading | Rejection]


def stays(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items of one patient, oldest first, cut where nothing came for too long."""
    stay: list[Item] = []
    for item in items:
        if stay and item[0] - stay[-1][0] > PAUSE:
            yield stay
            stay = []
        stay.append(item)
    if stay:
        yield stay


def judge(
    stay: Sequence[Item], *, spo2_scale: Literal[1, 2] = 1, artefacts: ArtefactPolicy | None = None
) -> list[Seen]:
    """What the alerts see of a stay, oldest first: at each reading, and at the tick after a value expired."""
    assessor = Assessor(spo2_scale=spo2_scale, artefacts=artefacts)
    found: list[Seen] = []
    for at, item in stay:
        if found:
            found.extend(_aged(assessor, found[0].at, found[-1].at, at))
        if isinstance(item, Rejection):
            assessor.flag(item.column, item.kind, item.reason, at)
        else:
            assessor.take(item)
        found.append(_seen(assessor, at))
    return found


def _aged(assessor: Assessor, start: datetime, last: datetime, until: datetime) -> Iterator[Seen]:
    """The judgements between two readings at which something has become too old."""
    while True:
        held = [(column, assessor.latest(column)) for column in COLUMNS]
        ends = [at[0] + timedelta(seconds=CARRY_SECONDS[column]) for column, at in held if at is not None]
        valid = [end for end in ends if end >= last]  # up to and including this age
        if not valid:
            return
        last = _tick_after(start, min(valid))
        if last >= until:
            return
        yield _seen(assessor, last)


def _tick_after(start: datetime, moment: datetime) -> datetime:
    return start + TICK * (math.floor((moment - start) / TICK) + 1)


def _seen(assessor: Assessor, at: datetime) -> Seen:
    score = assessor.assess(at).news2
    return Seen(low=score.low, high=score.high, points=score.points, at=at, observed_at=at)


@dataclass(slots=True)
class Tally:
    """What happened under one policy. Times in seconds of patient time.

    ``changes``: how often, by change and level: the level reached, and of a cleared alert the one it had.
    ``in_alert_s``: by level. ``delays_s``: of each time that the certain total reached 7 while no alert of
    level 3 was open, how long until one was. ``unanswered``: how often it fell, or the stay ended, before.
    """

    patients: int = 0
    silent_patients: int = 0
    stays: int = 0
    observed_s: float = 0.0
    changes: Counter[tuple[Change, int]] = field(default_factory=Counter)
    in_alert_s: dict[int, float] = field(default_factory=lambda: dict.fromkeys((1, 2, 3), 0.0))
    longest_s: float = 0.0
    open_at_end: int = 0
    delays_s: list[float] = field(default_factory=list)
    unanswered: int = 0

    def add_patient(self, stays_seen: Iterable[Sequence[Seen]], policy: Policy) -> None:
        """One more patient: each stay as ``judge`` gives it."""
        before = self.raised
        for seen in stays_seen:
            _Run(self, policy).stay(seen)
        self.patients += 1
        self.silent_patients += self.raised == before

    @property
    def raised(self) -> int:
        """How many alerts there were."""
        return sum(count for (change, _), count in self.changes.items() if change == "raised")


class _Run:
    """One policy over one stay."""

    def __init__(self, tally: Tally, policy: Policy) -> None:
        self._tally = tally
        self._policy = policy
        self._state = AlertState()
        self._at: datetime | None = None
        self._opened: datetime | None = None
        self._high_since: datetime | None = None  # the total has reached 7, and no alert of level 3 is open
        self._high = False

    def stay(self, seen: Sequence[Seen]) -> None:
        for index, now in enumerate(seen):
            self._step(now)
            if index + 1 < len(seen):
                self._wait(now, seen[0].at, seen[index + 1].at)
        self._tally.stays += 1
        self._tally.observed_s += (seen[-1].at - seen[0].at).total_seconds()
        self._tally.unanswered += self._high_since is not None
        if self._opened is not None:
            self._tally.open_at_end += 1
            self._ends(seen[-1].at)

    def _wait(self, now: Seen, start: datetime, until: datetime) -> None:
        """Tick by minutes while the alert waits for time alone to pass; else nothing can happen."""
        tick = _tick_after(start, now.at)
        while tick < until and alerts.waiting(self._state, now, self._policy) is not None:
            now = msgspec.structs.replace(now, at=tick, observed_at=tick)
            self._step(now)
            tick += TICK

    def _step(self, now: Seen) -> None:
        tally, before = self._tally, self._state
        if self._at is not None and before.active:
            tally.in_alert_s[before.severity] += (now.at - self._at).total_seconds()
        self._at = now.at
        self._state, message = alerts.step(before, now, lambda: "alert", self._policy)
        if message is not None:
            level = before.severity if message.state == "cleared" else self._state.severity
            tally.changes[message.state, level] += 1
            if message.state == "raised":
                self._opened = now.at
            elif message.state == "cleared":
                self._ends(now.at)
        self._watch(now, before)

    def _watch(self, now: Seen, before: AlertState) -> None:
        """How long a certain total of 7 is without an alert of its level."""
        high = now.low >= alerts.THRESHOLDS[HIGH]
        if high and not self._high and before.severity < HIGH:
            self._high_since = now.at
        self._high = high
        if self._high_since is None:
            return
        if self._state.severity >= HIGH:
            self._tally.delays_s.append((now.at - self._high_since).total_seconds())
            self._high_since = None
        elif not high:
            self._tally.unanswered += 1
            self._high_since = None

    def _ends(self, at: datetime) -> None:
        assert self._opened is not None  # noqa: S101  (only an open alert ends)
        self._tally.longest_s = max(self._tally.longest_s, (at - self._opened).total_seconds())
        self._opened = None
