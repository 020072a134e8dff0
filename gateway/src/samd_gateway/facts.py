"""The four facts that are one word in `state`, apart: whether its end was told, whether it was heard, how old
the data are that it sent, and how old the last reading of its source is. Each with its reason; pure.

A device may be heard every second while its monitor has been silent for hours, and its data may be fresh in a
message that was sent before its connection broke: none of the four stands for another.
"""

import math
from typing import Literal

import msgspec

from samd_gateway.roster import Known
from samd_gateway.states import Deaf, Policy, interval

FactStatus = Literal["ok", "late", "lost", "unknown"]

DATA_LATE_S, DATA_LOST_S = 900.0, 3600.0
"""Readings of a monitor come every few minutes at the least; those of a person's round may be hours apart,
which the ward judges by the chart (`overdue`). Here only: is it what is now, or not."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One fact: how it stands, since when (or of when) it is known, how many seconds ago that was, and
    why."""

    status: FactStatus
    at: float | None
    age_s: float | None
    reason: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    last_will: Fact
    heartbeat: Fact
    data: Fact
    source: Fact


def facts(known: Known, now: float, policy: Policy, *, deaf: Deaf | None = None) -> Facts:
    """The four facts of a device."""
    return Facts(
        last_will=_will(known, now),
        heartbeat=_heartbeat(known, now, policy, deaf),
        data=_aged(
            known.last_data, known.data_age_s, now, "assessment", none="it has not sent an assessment yet"
        ),
        source=_source(known, now),
    )


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else max(now - at, 0.0)


def _will(known: Known, now: float) -> Fact:
    at, age = known.reported_at, _age(known.reported_at, now)
    if known.reported is None:
        return Fact(status="unknown", at=at, age_s=age, reason="neither birth nor will is known")
    if known.reported == "offline":
        return Fact(status="lost", at=at, age_s=age, reason="its will or its goodbye is its last word")
    return Fact(status="ok", at=at, age_s=age, reason=f"its last word is {known.reported!r}")


def _heartbeat(known: Known, now: float, policy: Policy, deaf: Deaf | None) -> Fact:
    at, age = known.heartbeat_at, _age(known.heartbeat_at, now)
    if at is None or age is None:
        return Fact(status="unknown", at=None, age_s=None, reason="no heartbeat was heard yet")
    every = interval(known)
    beats = age / every
    if deaf is not None and (deaf.until is None or at < deaf.until) and beats >= policy.stale_after:
        return Fact(status="late", at=at, age_s=age, reason=f"none heard since: {deaf.reason}")
    if beats >= policy.offline_after:
        return Fact(status="lost", at=at, age_s=age, reason=f"{math.floor(beats)} of {every:g} s are missing")
    if beats >= policy.stale_after:
        return Fact(status="late", at=at, age_s=age, reason=f"{math.floor(beats)} of {every:g} s are missing")
    return Fact(status="ok", at=at, age_s=age, reason=f"one every {every:g} s")


def _aged(at: float | None, age_then: float | None, now: float, what: str, *, none: str) -> Fact:
    """`age_then`: of the reading, when it was told of."""
    if at is None or age_then is None or not math.isfinite(age_then):
        return Fact(status="unknown", at=at, age_s=None, reason=none)
    age = max(age_then, 0.0) + max(now - at, 0.0)
    status: FactStatus = "ok" if age < DATA_LATE_S else "late" if age < DATA_LOST_S else "lost"
    return Fact(
        status=status, at=at, age_s=age, reason=f"the reading behind its last {what} is {_span(age)} old"
    )


def _source(known: Known, now: float) -> Fact:
    if known.heartbeat_at is not None and known.source_age_s is None:
        return Fact(
            status="unknown",
            at=None,
            age_s=None,
            reason="it has no reading of its source yet, by its own word",
        )
    return _aged(known.heartbeat_at, known.source_age_s, now, "heartbeat", none="no heartbeat was heard yet")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
