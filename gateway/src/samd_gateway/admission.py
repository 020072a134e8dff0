"""Which run may begin, with whom, and until when to wait. Pure functions of the answers and of the time."""

from collections import Counter
from typing import Literal

import msgspec

GRACE_S = 0.5
"""Seconds that silent devices get once the quorum is reached. They answer within a second or hardly at all;
ten devices on one busy machine should all take part, and a run should not wait for one that is gone."""

Verdict = Literal["accepted", "rejected"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one asked device said; None while it is silent."""

    device: str
    verdict: Verdict | None = None
    reason: str | None = None
    answered_at: float | None = None


class Wait(msgspec.Struct, frozen=True):
    """Not yet; look again at the time `until`, or when an answer comes."""

    until: float


class HandOver(msgspec.Struct, frozen=True):
    """Give the run to the server with these devices, sorted."""

    devices: list[str]


class Fail(msgspec.Struct, frozen=True):
    """The quorum cannot be reached."""

    reason: str


def verdict(status: str | None) -> Verdict | None:
    """What the status of a result means for admission."""
    if status is None:
        return None
    return "accepted" if status in ("accepted", "done") else "rejected"


def decide(
    answers: list[Answer],
    *,
    quorum: int,
    started_at: float,
    deadline_s: float,
    now: float,
    grace_s: float = GRACE_S,
) -> Wait | HandOver | Fail:
    """Hand over once every asked device has answered, or `grace_s` after the quorum was reached, or at the
    deadline; fail as soon as the quorum is out of reach, at the latest at the deadline."""
    deadline = started_at + deadline_s
    accepted = sorted(
        (answer for answer in answers if answer.verdict == "accepted"),
        key=lambda answer: answer.answered_at or 0.0,
    )
    silent = [answer for answer in answers if answer.verdict is None]
    if len(accepted) >= quorum:
        reached_at = accepted[quorum - 1].answered_at or started_at
        until = min(reached_at + grace_s, deadline)
        if silent and now < until:
            return Wait(until)
        return HandOver(sorted(answer.device for answer in accepted))
    if now >= deadline or len(accepted) + len(silent) < quorum:
        return Fail(explain(answers, quorum, deadline_s))
    return Wait(deadline)


def explain(answers: list[Answer], quorum: int, deadline_s: float) -> str:
    """Why too few take part, in one sentence."""
    accepted = sum(answer.verdict == "accepted" for answer in answers)
    silent = sum(answer.verdict is None for answer in answers)
    reasons = Counter(
        answer.reason or "no reason given" for answer in answers if answer.verdict == "rejected"
    )
    parts = [f"{accepted} of {len(answers)} asked devices accepted, {quorum} are needed"]
    if reasons:
        parts.append(
            "rejected: " + ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items()))
        )
    if silent:
        parts.append(f"no answer within {deadline_s:g} s: {silent}")
    return "; ".join(parts)
