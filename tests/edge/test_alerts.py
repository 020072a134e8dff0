"""When an alert is raised, escalated, de-escalated and cleared: every move, with exact numbers."""

from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_edge.alerts import AlertState, Policy, Seen, ended, step, waiting

AT = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE = Policy(hysteresis=0, min_dwell_s=0, urgent_refractory_s=0, ward_refractory_s=0)


def seen(low: int, high: int | None = None, *, minute: float = 0, **points: int) -> Seen:
    return Seen(
        low=low,
        high=low if high is None else high,
        points=points or {"spo2": min(low, 2), "heart_rate": low - min(low, 2)},
        at=AT + timedelta(minutes=minute),
        observed_at=AT,
    )


def moves(*totals: Seen, policy: Policy = AT_ONCE) -> list[tuple[str, int] | None]:
    state, names, out = AlertState(), count(), []
    for total in totals:
        state, message = step(state, total, lambda: str(next(names)), policy)
        out.append(None if message is None else (message.state, message.severity))
    return out


def course(policy: Policy, *totals: tuple[float, int]) -> list[tuple[float, str, int]]:
    """The messages of a course of (minute, total), each with its minute."""
    steps = moves(*(seen(total, minute=minute) for minute, total in totals), policy=policy)
    return [(minute, *move) for (minute, _), move in zip(totals, steps, strict=True) if move is not None]


@pytest.mark.parametrize(("total", "severity"), [(0, None), (4, None), (5, 2), (6, 2), (7, 3), (20, 3)])
def test_raised_at_the_thresholds_of_the_chart(total: int, severity: int | None) -> None:
    assert moves(seen(total)) == [None if severity is None else ("raised", severity)]
    assert moves(seen(total), policy=Policy()) == moves(seen(total)), "no policy holds back the first alert"


def test_a_whole_course_without_hysteresis() -> None:
    totals = (3, 5, 6, 7, 9, 6, 7, 5, 4, 0, 8, 1)
    assert moves(*(seen(total) for total in totals)) == [
        None,
        ("raised", 2),
        None,
        ("escalated", 3),
        None,
        ("deescalated", 2),
        ("escalated", 3),
        ("deescalated", 2),
        ("cleared", 1),
        None,
        ("raised", 3),
        ("cleared", 1),
    ]


def test_going_down_takes_a_point_of_hysteresis_and_ten_minutes() -> None:
    policy = Policy()
    assert course(policy, (0, 7), (1, 6), (60, 6)) == [(0, "raised", 3)], "6 is within the hysteresis of 7"
    assert course(policy, (0, 7), (1, 5), (10.9, 5), (11, 5)) == [(0, "raised", 3), (11, "deescalated", 2)]
    assert course(policy, (0, 5), (1, 4), (60, 4)) == [(0, "raised", 2)], "4 is within the hysteresis of 5"
    assert course(policy, (0, 5), (1, 3), (11, 2)) == [(0, "raised", 2), (11, "cleared", 1)]
    assert course(policy, (0, 7), (1, 0), (11, 0)) == [(0, "raised", 3), (11, "cleared", 0)]


def test_the_dwell_begins_anew_when_the_patient_gets_worse_again() -> None:
    assert course(Policy(), (0, 7), (1, 5), (9, 7), (10, 5), (19, 5), (20, 5)) == [
        (0, "raised", 3),
        (20, "deescalated", 2),
    ]


def test_it_goes_down_to_the_worst_that_was_held_meanwhile() -> None:
    assert course(Policy(), (0, 8), (1, 2), (5, 5), (11, 2)) == [(0, "raised", 3), (11, "deescalated", 2)]


def test_a_level_that_has_ended_keeps_silent_for_its_refractory_time_and_then_rings() -> None:
    policy = Policy(min_dwell_s=60, urgent_refractory_s=1800)
    ill_again = course(policy, (0, 5), (1, 0), (2, 0), (3, 5), (31.9, 5), (32, 5))
    assert ill_again == [(0, "raised", 2), (2, "cleared", 0), (32, "raised", 2)]
    assert course(policy, (0, 5), (1, 0), (2, 0), (3, 5), (30, 0), (40, 0)) == ill_again[:2]
    worse = course(policy, (0, 5), (1, 0), (2, 0), (3, 7))
    assert worse == [(0, "raised", 2), (2, "cleared", 0), (3, "raised", 3)], "a higher level is not held up"


def test_an_emergency_that_must_keep_silent_still_rings_as_urgent() -> None:
    policy = Policy(min_dwell_s=0, urgent_refractory_s=0, emergency_refractory_s=600)
    assert course(policy, (0, 7), (1, 0), (2, 8), (10.9, 8), (11, 8)) == [
        (0, "raised", 3),
        (1, "cleared", 0),
        (2, "raised", 2),
        (11, "escalated", 3),
    ]


def test_a_single_three_rings_where_the_ward_says_so() -> None:
    single = seen(3, spo2=3)
    assert moves(single) == [None]
    low_medium = Policy(raise_at="low-medium", min_dwell_s=0, hysteresis=0)
    assert moves(single, seen(4, spo2=3), seen(2, spo2=2), policy=low_medium) == [
        ("raised", 1),
        None,
        ("cleared", 1),
    ]
    assert moves(seen(6), seen(7), policy=Policy(raise_at="high")) == [None, ("raised", 3)]


def test_what_is_only_possible_never_rings_and_is_shown() -> None:
    assert moves(seen(4, 20)) == [None]
    _, message = step(AlertState(), seen(5, 9), lambda: "a", Policy())
    assert message is not None
    assert (message.severity, message.possible, message.news2_low, message.news2_high) == (2, 3, 5, 9)


def test_one_alert_keeps_its_id_and_the_next_has_another() -> None:
    names = iter("ab")
    state, messages = AlertState(), []
    for total in (5, 7, 0, 5):
        state, message = step(state, seen(total), lambda: next(names), AT_ONCE)
        messages.append(message)
    assert [message.alert_id for message in messages if message] == ["a", "a", "a", "b"]


def test_a_probe_that_falls_off_clears_nothing() -> None:
    ill = seen(6, 11, spo2=3, respiratory_rate=3)
    without_probe = seen(3, 14, respiratory_rate=3)
    breathing_well = seen(0, 11, respiratory_rate=0)
    assert moves(ill, without_probe) == [("raised", 2), None], "3 points held of the missing probe, and 3"
    assert moves(ill, without_probe, breathing_well) == [("raised", 2), None, ("cleared", 1)]
    assert moves(ill, seen(0, 20, none=0)) == [("raised", 2), None], "nothing known is not fine"


def test_it_says_what_it_waits_for() -> None:
    policy = Policy()
    state, _ = step(AlertState(), seen(7), lambda: "a", policy)
    assert waiting(state, seen(7), policy) is None
    better = seen(5, minute=1)
    state, _ = step(state, better, lambda: "a", policy)
    assert waiting(state, seen(5, minute=4), policy) == "goes down to level 2 in 7 min if it stays like this"
    state, _ = step(state, seen(0, minute=11), lambda: "a", policy)
    state, _ = step(state, seen(0, minute=12), lambda: "a", policy)
    assert waiting(state, seen(0, minute=13), policy) == "is cleared in 9 min if it stays like this"
    state, _ = step(state, seen(0, minute=22), lambda: "a", policy)
    assert not state.active
    assert waiting(state, seen(5, minute=23), policy) == "level 2 keeps silent for another 29 min"


def test_with_the_admission_an_alert_ends() -> None:
    message = ended(AlertState("a", 3, {"spo2": 3, "heart_rate": 2}), AT)
    assert (message.state, message.severity, message.news2_low, message.news2_high) == ("cleared", 3, 5, 20)


def test_the_state_survives_the_store() -> None:
    state, _ = step(AlertState(), seen(7), lambda: "a", Policy())
    state, _ = step(state, seen(0, minute=1), lambda: "a", Policy())
    written = msgspec.json.encode(msgspec.to_builtins(state))
    assert msgspec.convert(msgspec.json.decode(written), AlertState) == state
    first_version = {"alert_id": "a", "severity": 2, "points": {"spo2": 2}}
    assert msgspec.convert(first_version, AlertState).active, "an agent updated during an alert keeps it"


totals = st.lists(
    st.tuples(st.floats(0, 60), st.integers(0, 20)), min_size=1, max_size=40
)  # minutes since the last, total


@given(
    totals,
    st.builds(
        Policy,
        raise_at=st.sampled_from(["low-medium", "medium", "high"]),
        hysteresis=st.integers(0, 4),
        min_dwell_s=st.floats(0, 3600),
        urgent_refractory_s=st.floats(0, 3600),
        emergency_refractory_s=st.floats(0, 600),
    ),
)
def test_no_emergency_is_lost_under_any_policy(steps: list[tuple[float, int]], policy: Policy) -> None:
    state, minute, ill_since = AlertState(), 0.0, None
    for gap, total in steps:
        minute += gap
        state, message = step(state, seen(total, minute=minute), lambda: "a", policy)
        if message is not None and message.state in ("raised", "escalated"):
            assert total >= 5 or policy.raise_at == "low-medium"
        ill_since = None if total < 7 else minute if ill_since is None else ill_since
        if ill_since is not None and (minute - ill_since) * 60 >= policy.emergency_refractory_s:
            assert state.severity == 3, "an emergency is open at the latest after its refractory time"
