"""When an alert is raised, escalated and cleared: every move, with exact numbers."""

from datetime import UTC, datetime

import pytest

from samd_edge.alerts import AlertState, Seen, ended, step

AT = datetime(2026, 1, 1, tzinfo=UTC)


def seen(low: int, high: int | None = None, **points: int) -> Seen:
    return Seen(low=low, high=low if high is None else high, points=points or {"spo2": low}, observed_at=AT)


def moves(*totals: Seen) -> list[tuple[str, int] | None]:
    state, names, out = AlertState(), iter("abcdefgh"), []
    for total in totals:
        state, message = step(state, total, lambda: next(names))
        out.append(None if message is None else (message.state, message.severity))
    return out


@pytest.mark.parametrize(("total", "severity"), [(0, None), (4, None), (5, 2), (6, 2), (7, 3), (20, 3)])
def test_raised_at_class_two(total: int, severity: int | None) -> None:
    assert moves(seen(total)) == [None if severity is None else ("raised", severity)]


def test_a_whole_course() -> None:
    course = moves(*(seen(total) for total in (3, 5, 6, 7, 9, 6, 7, 5, 4, 0, 8, 1)))
    assert course == [
        None,
        ("raised", 2),
        None,
        ("escalated", 3),
        None,
        None,
        ("escalated", 3),
        None,
        ("cleared", 1),
        None,
        ("raised", 3),
        ("cleared", 1),
    ]


def test_what_is_only_possible_never_rings() -> None:
    assert moves(seen(4, 20)) == [None]


def test_one_alert_keeps_its_id_and_the_next_has_another() -> None:
    names = iter("ab")
    state, first = step(AlertState(), seen(5), lambda: next(names))
    state, second = step(state, seen(7), lambda: next(names))
    state, third = step(state, seen(0), lambda: next(names))
    assert state == AlertState()
    _, fourth = step(state, seen(5), lambda: next(names))
    assert [message.alert_id for message in (first, second, third, fourth) if message] == ["a", "a", "a", "b"]


def test_a_probe_that_falls_off_clears_nothing() -> None:
    ill = seen(6, 11, spo2=3, respiratory_rate=3)
    without_probe = seen(3, 14, respiratory_rate=3)
    breathing_well = seen(0, 11, respiratory_rate=0)
    assert moves(ill, without_probe) == [("raised", 2), None], "3 points held of the missing probe, and 3"
    assert moves(ill, without_probe, breathing_well) == [("raised", 2), None, ("cleared", 1)]
    assert moves(ill, seen(0, 20, none=0)) == [("raised", 2), None], "nothing known is not fine"


def test_with_the_admission_an_alert_ends() -> None:
    message = ended(AlertState("a", 3, {"spo2": 3, "heart_rate": 2}), AT)
    assert (message.state, message.severity, message.news2_low, message.news2_high) == ("cleared", 3, 5, 20)
