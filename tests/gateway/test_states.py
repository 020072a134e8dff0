"""The state of a device, to the second, with the time as an argument."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_gateway.states import (
    Contact,
    Deaf,
    Order,
    Policy,
    data_age_s,
    derive,
    heard,
    next_change,
    supersedes,
)

POLICY = Policy(stale_after=3.0, offline_after=10.0)
ALIVE = Contact(reported="online", reported_at=90.0, last_heard=100.0, online_since=90.0, interval_s=10.0)


@pytest.mark.parametrize(
    ("now", "state", "since"),
    [
        (100.0, "online", 90.0),
        (129.999, "online", 90.0),
        (130.0, "stale", 130.0),
        (199.999, "stale", 130.0),
        (200.0, "offline", 200.0),
        (1e9, "offline", 200.0),
    ],
)
def test_silence(now: float, state: str, since: float) -> None:
    derived = derive(ALIVE, now, POLICY)
    assert (derived.state, derived.since) == (state, since)
    assert derived.reason


def test_never_heard_of_is_unknown() -> None:
    assert derive(Contact(), 5.0, POLICY).state == "unknown"


def test_a_retained_birth_alone_is_unknown() -> None:
    """It was sent at an unknown time: the device may be gone for days."""
    derived = derive(Contact(reported="online", reported_at=5.0), 6.0, POLICY)
    assert (derived.state, derived.since) == ("unknown", 5.0)


def test_a_will_is_offline_at_once_however_fresh_the_last_message() -> None:
    gone = msgspec.structs.replace(ALIVE, reported="offline", reported_at=101.0)
    assert derive(gone, 101.0, POLICY) == derive(gone, 1e6, POLICY)
    assert (derive(gone, 101.0, POLICY).state, derive(gone, 101.0, POLICY).since) == ("offline", 101.0)


def test_without_broker_nothing_is_online() -> None:
    derived = derive(ALIVE, 105.0, POLICY, deaf=Deaf(since=104.0))
    assert (derived.state, derived.since) == ("stale", 104.0)
    assert "broker" in derived.reason


@pytest.mark.parametrize(
    ("now", "state", "since"),
    [
        (250.0, "stale", 104.0),  # nobody listened: whether it is silent is not known
        (1e6, "stale", 104.0),
    ],
)
def test_what_nobody_listened_to_is_no_silence(now: float, state: str, since: float) -> None:
    derived = derive(ALIVE, now, POLICY, deaf=Deaf(since=104.0))
    assert (derived.state, derived.since) == (state, since)


@pytest.mark.parametrize(
    ("now", "state", "since"),
    [
        (1000.0, "stale", 130.0),  # not heard for long, and listened to only since 1,000
        (1099.9, "stale", 130.0),
        (1100.0, "offline", 1100.0),
    ],
)
def test_after_a_time_without_listening_a_full_span_of_silence_is_needed(
    now: float, state: str, since: float
) -> None:
    derived = derive(ALIVE, now, POLICY, deaf=Deaf(since=110.0, until=1000.0))
    assert (derived.state, derived.since) == (state, since)


def test_who_was_offline_before_nobody_listened_stays_offline_since_then() -> None:
    for deaf in (Deaf(since=201.0), Deaf(since=201.0, until=5000.0)):
        derived = derive(ALIVE, 5001.0, POLICY, deaf=deaf)
        assert (derived.state, derived.since) == ("offline", 200.0)


@given(st.floats(0, 400), st.floats(0, 400), st.floats(0, 400), st.booleans())
def test_the_next_change_is_when_the_state_changes(now: float, begin: float, span: float, over: bool) -> None:
    """Up to that moment nothing changes, and at it something does."""
    deaf = Deaf(since=begin, until=min(begin + span, now) if over and begin + span <= now else None)
    if deaf.until is None and begin > now:
        deaf = None
    at = next_change(ALIVE, now, POLICY, deaf=deaf)
    here = derive(ALIVE, now, POLICY, deaf=deaf)
    if at == math.inf:
        assert derive(ALIVE, 1e9, POLICY, deaf=deaf) == here
    else:
        assert derive(ALIVE, (now + at) / 2, POLICY, deaf=deaf) == here
        assert derive(ALIVE, at, POLICY, deaf=deaf) != here


def test_a_sleeping_device_is_not_online() -> None:
    asleep = msgspec.structs.replace(ALIVE, reported="sleeping")
    assert derive(asleep, 101.0, POLICY).state == "stale"
    assert "sleeps" in derive(asleep, 101.0, POLICY).reason


@pytest.mark.parametrize("claimed", [1e12, math.inf, math.nan])
def test_no_device_can_claim_never_to_become_stale(claimed: float) -> None:
    contact = msgspec.structs.replace(ALIVE, interval_s=claimed)
    assert derive(contact, 100.0 + 600.0 * 10, POLICY).state == "offline"


def test_without_an_interval_ten_seconds_are_assumed() -> None:
    contact = msgspec.structs.replace(ALIVE, interval_s=None)
    assert derive(contact, 129.9, POLICY).state == "online"
    assert derive(contact, 130.0, POLICY).state == "stale"


def test_online_since_begins_anew_after_silence_only() -> None:
    assert heard(ALIVE, 129.0, POLICY).online_since == 90.0
    assert heard(ALIVE, 130.0, POLICY).online_since == 130.0
    assert heard(Contact(), 7.0, POLICY) == Contact(last_heard=7.0, online_since=7.0)


def test_a_clock_that_steps_back_does_not_unhear() -> None:
    assert heard(ALIVE, 50.0, POLICY).last_heard == 100.0


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_states_only_get_worse_with_silence(first: float, later: float) -> None:
    order = ("online", "stale", "offline")
    one, two = sorted((first, later))
    before, after = derive(ALIVE, 100 + one, POLICY).state, derive(ALIVE, 100 + two, POLICY).state
    assert order.index(before) <= order.index(after)


@pytest.mark.parametrize(("stale", "offline"), [(0.5, 10), (3, 3), (5, 3), (3, math.inf)])
def test_a_policy_that_makes_no_sense_is_refused(stale: float, offline: float) -> None:
    with pytest.raises(ValueError, match="heartbeat intervals"):
        Policy(stale_after=stale, offline_after=offline)


def test_data_age_is_apart_from_the_state_and_never_younger_than_the_reading() -> None:
    assert data_age_s(4.0, 100.0, 110.0) == 14.0
    assert data_age_s(-5.0, 100.0, 90.0) == 0.0
    assert data_age_s(4.0, 100.0, 110.0, observed_at=50.0) == 60.0  # it waited in an outbox
    assert data_age_s(4.0, 100.0, 110.0, observed_at=500.0) == 14.0  # a clock ahead makes nothing fresh


def order(
    boot: int, connection: int, seq: int, *, offline: bool = False, boot_id: str | None = None
) -> Order:
    return Order(boot=boot, connection=connection, seq=seq, boot_id=boot_id or f"b{boot}", offline=offline)


@pytest.mark.parametrize(
    ("new", "old", "known", "expected"),
    [
        (order(1, 1, 2), None, False, True),
        # the will of a connection ends that connection, though its seq is lower: it was written at connect
        (order(1, 1, 1, offline=True), order(1, 1, 2), True, True),
        # a will that overtakes a later birth is dropped
        (order(1, 1, 1, offline=True), order(1, 2, 9), True, False),
        (order(1, 9, 1, offline=True), order(2, 1, 2), True, False),
        (order(1, 2, 9), order(1, 1, 1, offline=True), True, True),
        (order(2, 1, 2), order(1, 7, 90, offline=True), False, True),
        # within a connection, changes by seq; after its end nothing
        (order(1, 1, 5), order(1, 1, 4), True, True),
        (order(1, 1, 4), order(1, 1, 5), True, False),
        (order(1, 1, 9), order(1, 1, 1, offline=True), True, False),
        # an earlier boot is of the past; set up anew under an id never seen, it is not
        (order(1, 1, 1), order(5, 1, 1), True, False),
        (order(1, 1, 1, boot_id="new"), order(5, 1, 1), False, True),
        (order(1, 1, 1, boot_id="new", offline=True), order(5, 1, 1), False, False),
        (order(5, 1, 1, boot_id="new"), order(5, 3, 1), False, True),
    ],
)
def test_order_of_state_messages(new: Order, old: Order | None, known: bool, expected: bool) -> None:
    assert supersedes(new, old, known_boot=known) is expected
