"""When a device that should report does not: raised once, and cleared when it is heard again.

A device should report when it was heard before, or when a patient is admitted on it. Silent is one of which
nothing is heard, and one that lives while its source does not: heartbeats tell the age of the last reading.
While this gateway itself can hear nothing, nobody is judged (`states.Deaf`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.alerts import store
from samd_gateway.alerts.follow import cleared
from samd_gateway.alerts.rules import Silence
from samd_gateway.intake import Item
from samd_gateway.roster import Known
from samd_gateway.states import DeviceState
from samd_gateway.tables import span
from samd_gateway.ward import admissions
from samd_protocol.messages import Assessment

SYSTEM = "system"
AT_ONCE = 500
"""So many alerts are written in one transaction at most; the rest a second later."""
WITHOUT_PATIENT = 1
"""The severity of a silent device on which nobody is known to be."""


class Last(msgspec.Struct, frozen=True):
    """What of the last assessment counts here."""

    severity: int
    continuous: bool


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one device. `source_at`: when its newest reading was taken, by our clock."""

    state: DeviceState
    was_heard: bool
    admitted: bool
    source_at: float | None = None
    last: Last | None = None


class Silent(msgspec.Struct, frozen=True):
    """Why an alert is due, and with which severity."""

    reason: str
    severity: int


Finding = Silent | Literal["heard"] | None
"""None: it cannot be told, so what is open stays open, and nothing is raised."""


def judge(facts: Facts, now: float, rules: Silence) -> Finding:
    """What is to be said of one device. Pure."""
    state = facts.state
    if state.code == "deaf" or not (facts.was_heard or facts.admitted):
        return None
    patient = facts.admitted or facts.source_at is not None
    severity = max(rules.severity, 0 if facts.last is None else facts.last.severity)
    severity = severity if patient else WITHOUT_PATIENT
    if state.code == "asleep" and not facts.admitted:
        return "heard"
    if state.state != "online":
        if state.since is not None and now - state.since < rules.after_s:
            return None
        return Silent(f"its device is {state.state}: {state.reason}", severity)
    if not patient or facts.source_at is None:
        return "heard"
    continuous = facts.last is not None and facts.last.continuous
    limit_s = min(rules.reading_age_s, rules.continuous_age_s) if continuous else rules.reading_age_s
    if now - facts.source_at <= limit_s:
        return "heard"
    return Silent(f"its device lives, but has had no reading for more than {span(limit_s)}", severity)


class Watch:
    """Compares what is known of the devices with the silence alerts that are open."""

    def __init__(self, devices: Callable[[], Mapping[str, Known]]) -> None:
        """`devices` gives what the roster knows."""
        self._devices = devices
        self._last: dict[str, Last] = {}
        self._read_until = 0.0

    def committed(self, items: Sequence[Item]) -> None:
        """Remember what the newest assessments said."""
        for item in items:
            if item.kind == "assessment" and isinstance(item.envelope.data, Assessment):
                told = item.envelope.data
                self._last[item.sender] = Last(told.rule_severity, told.next_due_at is None)

    def load(self, connection: Connection, now: float) -> None:
        """The same of what other gateways have taken in, and of what came before this one was started."""
        table = schema.latest
        query = select(table.c.device, table.c.received_at, table.c.body).where(
            table.c.kind == "assessment", table.c.received_at >= self._read_until - 60.0
        )
        decoder = msgspec.json.Decoder(_Judged)
        for device, _, body in connection.execute(query):
            told = decoder.decode(body)
            self._last[device] = Last(told.rule_severity, told.next_due_at is None)
        self._read_until = now

    def look(self, connection: Connection, now: float, rules: Silence) -> tuple[dict[str, Silent], list[str]]:
        """Which devices to raise an alert for, and whose alert to clear. Reads only."""
        admitted = {
            device: row
            for device, row in admissions.open_ones(connection).items()
            if row["state"] == "active"
        }
        table = schema.alerts
        query = select(table.c.device).where(table.c.kind == "silence", table.c.state == "active")
        silent = set(connection.scalars(query))
        due: dict[str, Silent] = {}
        over = []
        known = self._devices()
        for device, one in known.items():
            finding = judge(self._facts(one, device in admitted), now, rules)
            if isinstance(finding, Silent) and device not in silent:
                due[device] = finding
            elif finding == "heard" and device in silent:
                over.append(device)
        if not rules.enabled:
            return {}, sorted(silent)
        living = {device: known[device] for device in due if known[device].state.state == "online"}
        for again in self._read_again(connection, living, admitted):
            if not isinstance(judge(again.facts, now, rules), Silent):
                del due[again.device]
        return due, over

    def _facts(self, one: Known, admitted: bool, source_at: float | None = None) -> Facts:
        if source_at is None and one.heartbeat_at is not None and one.source_age_s is not None:
            source_at = one.heartbeat_at - one.source_age_s
        return Facts(
            state=one.state,
            was_heard=one.first_heard is not None,
            admitted=admitted,
            source_at=source_at,
            last=self._last.get(one.name),
        )

    def _read_again(
        self, connection: Connection, living: Mapping[str, Known], admitted: Collection[str]
    ) -> Iterator["_Again"]:
        """Another gateway may have taken in a later heartbeat of a device that lives: what that one said."""
        table = schema.latest
        query = select(table.c.device, table.c.received_at, table.c.body).where(
            table.c.kind == "heartbeat", table.c.device.in_(living)
        )
        for device, received_at, body in connection.execute(query) if living else ():
            age_s, one = msgspec.json.decode(body, type=_Beat).reading_age_s, living[device]
            if age_s is not None and (one.heartbeat_at or 0.0) < received_at:
                yield _Again(device, self._facts(one, device in admitted, received_at - age_s))


def raise_all(connection: Connection, due: Mapping[str, Silent], now: float) -> list[dict[str, Any]]:
    """Write the alerts that are due, but where one is open already; the rows that are new."""
    devices = sorted(due)[:AT_ONCE]
    store.lock(connection, devices)
    rows = []
    for device in devices:
        if store.open_of(connection, device, "silence") is not None:
            continue
        found = due[device]
        values = {
            "state": "active",
            "severity": found.severity,
            "peak": found.severity,
            "reason": found.reason,
            "raised_at": now,
            "changed_at": now,
            "waiting_since": now,
        }
        rows.append(
            store.add(
                connection,
                device=device,
                kind="silence",
                source_id=f"{now:.6f}",
                values=values,
                actor=SYSTEM,
                change="raised",
                event="raised",
                now=now,
            )
        )
    return rows


def clear_all(connection: Connection, devices: Sequence[str], now: float) -> list[dict[str, Any]]:
    """Clear the open silence alerts of devices that were heard again; the rows as they are now."""
    devices = sorted(devices)[:AT_ONCE]
    store.lock(connection, devices)
    rows = []
    for device in devices:
        row = store.open_of(connection, device, "silence")
        if row is None:
            continue
        rows.append(
            store.change(
                connection, row, cleared(now), actor=SYSTEM, change="cleared", event="cleared", now=now
            )
        )
    return rows


class _Again(msgspec.Struct, frozen=True):
    device: str
    facts: Facts


class _Judged(msgspec.Struct, frozen=True):
    rule_severity: int
    next_due_at: str | None = None


class _Beat(msgspec.Struct, frozen=True):
    reading_age_s: float | None = None
