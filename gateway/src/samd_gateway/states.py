"""The state of a device, derived from when this gateway heard from it, by this gateway's own clock.

Pure functions of what is on record and of the time. A device's own time never enters: its clock may be wrong
or scaled. How old its data are is another question, answered apart (`data_age_s`): a device may be online
with readings that are hours old.

Silence is what was listened to and not heard. While this gateway was away, or its broker was, nobody listened
(`Deaf`): a device that was not known to be silent before that time is given a full span of it afterwards.
"""

import math
from typing import Literal, Protocol

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


class Heard(Protocol):
    """What a state is derived from: a `Contact`, or any record with its fields."""

    @property
    def reported(self) -> Literal["online", "sleeping", "updating", "offline"] | None: ...
    @property
    def reported_at(self) -> float | None: ...
    @property
    def last_heard(self) -> float | None: ...
    @property
    def online_since(self) -> float | None: ...
    @property
    def interval_s(self) -> float | None: ...


class Deaf(msgspec.Struct, frozen=True, kw_only=True):
    """The latest time in which this gateway could hear nothing; `until` is None while it lasts."""

    since: float
    until: float | None = None
    reason: str = "this gateway has lost the broker"


StateCode = Literal[
    "online", "late", "updating", "no-birth", "quiet", "silent", "asleep", "deaf", "will", "new"
]


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """A state with its reason, and since when it holds (None: not known). `code` names the reason in a word
    that does not change with its numbers."""

    state: DeviceStatus
    reason: str
    since: float | None
    code: StateCode | Literal[""] = ""


def interval(contact: Heard) -> float:
    """Seconds between heartbeats, within the limits that this gateway believes."""
    if contact.interval_s is None or not math.isfinite(contact.interval_s):
        return DEFAULT_INTERVAL_S
    return min(max(contact.interval_s, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)


LATE_AFTER = 1.5
"""Intervals after which a heartbeat is called late; a device's own timer and the network need some room."""


def _offline_at(last_heard: float, every: float, policy: Policy, deaf: Deaf | None) -> float:
    """When silence becomes `offline`."""
    at = last_heard + policy.offline_after * every
    if deaf is None or at <= deaf.since:
        return at
    if deaf.until is None:
        return math.inf
    return at if last_heard >= deaf.until else deaf.until + policy.offline_after * every


def derive(contact: Heard, now: float, policy: Policy, *, deaf: Deaf | None = None) -> DeviceState:
    """The state at `now`. While this gateway can hear nothing, nothing is called online."""
    if contact.reported == "offline":
        return DeviceState(
            state="offline",
            reason="its last will or its goodbye was received",
            since=contact.reported_at,
            code="will",
        )
    if contact.last_heard is None:
        if contact.reported is None:
            return DeviceState(state="unknown", reason="never heard of", since=None, code="new")
        return DeviceState(
            state="unknown",
            reason="only a retained message is known, of unknown age",
            since=contact.reported_at,
            code="new",
        )
    every = interval(contact)
    offline_at = _offline_at(contact.last_heard, every, policy, deaf)
    if now >= offline_at:
        return DeviceState(
            state="offline",
            reason=f"nothing heard for more than {policy.offline_after:g} heartbeat intervals of {every:g} s",
            since=offline_at,
            code="silent",
        )
    if deaf is not None and deaf.until is None:
        return DeviceState(state="stale", reason=deaf.reason, since=deaf.since, code="deaf")
    stale_at = contact.last_heard + policy.stale_after * every
    if now >= stale_at:
        if deaf is not None and deaf.until is not None and contact.last_heard < deaf.until:
            reason = f"not yet heard again since this gateway listens again ({deaf.reason})"
        else:
            reason = f"nothing heard for more than {policy.stale_after:g} heartbeat intervals of {every:g} s"
        return DeviceState(state="stale", reason=reason, since=stale_at, code="quiet")
    if contact.reported == "sleeping":
        return DeviceState(
            state="stale", reason="it sleeps, by its own word", since=contact.reported_at, code="asleep"
        )
    reason, code = "heard within its heartbeat interval", "online"
    if now >= contact.last_heard + min(LATE_AFTER, policy.stale_after) * every:
        reason, code = f"a heartbeat is late, but not yet {policy.stale_after:g} intervals", "late"
    if contact.reported == "updating":
        reason, code = "it updates itself, by its own word", "updating"
    if contact.reported is None:
        reason, code = "heard, though its birth message is not known", "no-birth"
    return DeviceState(state="online", reason=reason, since=contact.online_since, code=code)  # type: ignore[arg-type]


def next_change(contact: Heard, now: float, policy: Policy, *, deaf: Deaf | None = None) -> float:
    """When silence alone changes the state next; infinity where it does not."""
    if contact.reported == "offline" or contact.last_heard is None:
        return math.inf
    every = interval(contact)
    offline_at = _offline_at(contact.last_heard, every, policy, deaf)
    moments = [offline_at]
    if deaf is None or deaf.until is not None:
        moments.append(contact.last_heard + policy.stale_after * every)
        if contact.reported == "online":
            moments.append(contact.last_heard + min(LATE_AFTER, policy.stale_after) * every)
    return min((moment for moment in moments if moment > now), default=math.inf)


def online_since(contact: Heard, at: float, policy: Policy) -> float:
    """Since when a device is online that was heard at `at`: as on record, unless it had fallen silent."""
    if (
        contact.online_since is None
        or contact.last_heard is None
        or contact.reported in ("offline", "sleeping")
    ):
        return at
    silent = at >= contact.last_heard + policy.stale_after * interval(contact)
    return at if silent else contact.online_since


def heard(contact: Contact, now: float, policy: Policy) -> Contact:
    """The record after a live message (not a retained one) that was received at `now`."""
    return msgspec.structs.replace(
        contact,
        last_heard=max(now, contact.last_heard or now),
        online_since=online_since(contact, now, policy),
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
