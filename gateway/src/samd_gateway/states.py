"""The state of a device, derived from when this gateway heard from it, by this gateway's own clock.

Pure functions of what is on record and of the time. A device's own time never enters: its clock may be wrong
or scaled. How old its data are is another question, answered apart (`data_age_s`): a device may be online
with readings that are hours old.
"""

import math
from typing import Literal

import msgspec

DeviceStatus = Literal["online", "stale", "offline", "unknown"]

DEFAULT_INTERVAL_S = 10.0
"""Assumed between heartbeats until the device has said how often it sends them."""

SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 0.05, 600.0
"""An interval beyond these is cut: no device may say of itself that it never becomes stale."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """After how many heartbeat intervals of silence a device is stale, and after how many offline."""

    stale_after: float = 3.0
    offline_after: float = 10.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.stale_after < self.offline_after or not math.isfinite(self.offline_after):
            raise ValueError(
                f"stale after {self.stale_after} and offline after {self.offline_after} heartbeat intervals: "
                "the first must be at least 1, and the second larger"
            )


class Contact(msgspec.Struct, frozen=True, kw_only=True):
    """What is on record of one device. Times in seconds since 1970 by the gateway's clock.

    `last_heard` is None while only retained messages are known: those were sent at an unknown time.
    """

    reported: Literal["online", "sleeping", "updating", "offline"] | None = None
    reported_at: float | None = None
    last_heard: float | None = None
    online_since: float | None = None
    interval_s: float | None = None


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """A state with its reason, and since when it holds (None: not known)."""

    state: DeviceStatus
    reason: str
    since: float | None


def interval(contact: Contact) -> float:
    """Seconds between heartbeats, within the limits that this gateway believes."""
    if contact.interval_s is None or not math.isfinite(contact.interval_s):
        return DEFAULT_INTERVAL_S
    return min(max(contact.interval_s, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)


def derive(
    contact: Contact, now: float, policy: Policy, *, link_down_since: float | None = None
) -> DeviceState:
    """The state at `now`. With the broker lost (`link_down_since`) nothing is called online."""
    if contact.reported == "offline":
        return DeviceState(
            state="offline", reason="its last will or its goodbye was received", since=contact.reported_at
        )
    if contact.last_heard is None:
        if contact.reported is None:
            return DeviceState(state="unknown", reason="never heard of", since=None)
        return DeviceState(
            state="unknown",
            reason="only a retained message is known, of unknown age",
            since=contact.reported_at,
        )
    every = interval(contact)
    stale_at = contact.last_heard + policy.stale_after * every
    offline_at = contact.last_heard + policy.offline_after * every
    if now >= offline_at:
        return DeviceState(
            state="offline",
            reason=f"nothing heard for more than {policy.offline_after:g} heartbeat intervals of {every:g} s",
            since=offline_at,
        )
    if now >= stale_at:
        return DeviceState(
            state="stale",
            reason=f"nothing heard for more than {policy.stale_after:g} heartbeat intervals of {every:g} s",
            since=stale_at,
        )
    if link_down_since is not None:
        return DeviceState(state="stale", reason="this gateway has lost the broker", since=link_down_since)
    if contact.reported == "sleeping":
        return DeviceState(state="stale", reason="it sleeps, by its own word", since=contact.reported_at)
    reason = "heard within its heartbeat interval"
    if contact.last_heard + every < now:
        reason = f"a heartbeat is late, but not yet {policy.stale_after:g} intervals"
    if contact.reported == "updating":
        reason = "it updates itself, by its own word"
    if contact.reported is None:
        reason = "heard, though its birth message is not known"
    return DeviceState(state="online", reason=reason, since=contact.online_since)


def heard(contact: Contact, now: float, policy: Policy) -> Contact:
    """The record after a live message (not a retained one) that was received at `now`."""
    before = derive(contact, now, policy)
    online_since = contact.online_since
    if before.state != "online" or online_since is None:
        online_since = now
    return msgspec.structs.replace(
        contact, last_heard=max(now, contact.last_heard or now), online_since=online_since
    )


def data_age_s(
    reading_age_s: float, received_at: float, now: float, *, observed_at: float | None = None
) -> float:
    """Seconds since the reading behind an assessment.

    Its age when the device sent it plus the time since it arrived here, by this gateway's clock. Where the
    device's clock is synchronised, `observed_at` may make it older (a message that waited in an outbox), and
    never younger.
    """
    age = max(reading_age_s, 0.0) + max(now - received_at, 0.0)
    return age if observed_at is None else max(age, now - observed_at)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Where a device's `up/state` stands: the boot, the connection within it, the message within that."""

    boot: int
    connection: int
    seq: int
    boot_id: str
    offline: bool


def supersedes(new: Order, old: Order | None, *, known_boot: bool) -> bool:
    """Whether a state message replaces the one on record.

    A will is written when the device connects, so its `seq` says nothing of when it was sent: it counts for
    its own connection and is dropped after a birth of a later one. Within a connection the end is the end.
    A lower boot counter is of the past, except in a birth under a `boot_id` that was never seen: then the
    device was set up anew, and counts from one again.
    """
    if old is None:
        return True
    if new.boot_id != old.boot_id and new.boot <= old.boot:
        return not new.offline and not known_boot
    if (new.boot, new.connection) != (old.boot, old.connection):
        return (new.boot, new.connection) > (old.boot, old.connection)
    if new.offline or old.offline:
        return new.offline and not old.offline
    return new.seq > old.seq
