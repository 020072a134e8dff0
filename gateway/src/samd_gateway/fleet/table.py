"""A page of the fleet, read from the tables. The filter looks at the narrow rows of all devices, and only the
devices of the page are read whole: with ten thousand that is what makes it quick.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.fleet.answers import FleetPage, FleetRow
from samd_gateway.fleet.query import FleetQuery, matches, ordered, page_of
from samd_gateway.queries import moment, rows
from samd_gateway.states import DeviceState

UNKNOWN = DeviceState(state="unknown", reason="never heard of", since=None)


def page(
    connection: Connection, query: FleetQuery, states: Mapping[str, DeviceState], now: float
) -> FleetPage:
    """The devices that match, of the page that is asked for. Raises UsageError for a key that is none."""
    found, counts = matching(connection, query, states, now)
    names, following = page_of(ordered(found, _with_unknown(found, states), query), query)
    return FleetPage(
        rows=_rows(connection, names, states, now),
        next=following,
        total=len(found),
        counts={state: counts.get(state, 0) for state in ("online", "stale", "offline", "unknown")},
    )


def names(
    connection: Connection, query: FleetQuery, states: Mapping[str, DeviceState], now: float
) -> list[str]:
    """The names of all that match, on whatever page, in order."""
    found, _ = matching(connection, query, states, now)
    return [each.name for each in ordered(found, _with_unknown(found, states), query)]


def matching(
    connection: Connection, query: FleetQuery, states: Mapping[str, DeviceState], now: float
) -> tuple[list[Mapping[str, Any]], Counter[str]]:
    """The rows that match, and how many of each state match but for the filter by state."""
    table = schema.devices
    columns = (
        table.c.name,
        table.c.client_version,
        table.c.model_version,
        table.c.last_heard,
        table.c.last_data,
        table.c.clock_offset_s,
        table.c.clock_synced,
        table.c.certificate_expires_at,
        table.c.flagged,
    )
    tags, beds = _tags(connection), _beds(connection)
    found: list[Mapping[str, Any]] = []
    counts: Counter[str] = Counter()
    for row in rows(connection, select(*columns)):
        name = row["name"]
        if not matches(row, tags.get(name, ()), beds.get(name), query, now):
            continue
        state = states.get(name, UNKNOWN).state
        counts[state] += 1
        if not query.states or state in query.states:
            found.append(row)
    return found, counts


def _with_unknown(
    found: list[Mapping[str, Any]], states: Mapping[str, DeviceState]
) -> Mapping[str, DeviceState]:
    """The states, also of a device that came into the table since they were read."""
    missing = {row["name"]: UNKNOWN for row in found if row["name"] not in states}
    return states if not missing else {**states, **missing}


def _rows(
    connection: Connection, names: list[str], states: Mapping[str, DeviceState], now: float
) -> list[FleetRow]:
    table, latest = schema.devices, schema.latest
    devices = {row["name"]: row for row in rows(connection, select(table).where(table.c.name.in_(names)))}
    beating = select(latest).where(latest.c.kind == "heartbeat", latest.c.device.in_(names))
    beats = {row["device"]: row for row in rows(connection, beating)}
    tags, beds = _tags(connection, names), _beds(connection)
    return [
        _row(devices[name], beats.get(name), states.get(name, UNKNOWN), now).model_copy(
            update={"tags": tags.get(name, []), "bed": beds.get(name)}
        )
        for name in names
    ]


def _row(row: Mapping[str, Any], beat: Mapping[str, Any] | None, state: DeviceState, now: float) -> FleetRow:
    body: dict[str, Any] = {} if beat is None else json.loads(beat["body"])
    age = body.get("reading_age_s")
    if age is not None and beat is not None:
        age += max(now - beat["received_at"], 0.0)
    return FleetRow(
        name=row["name"],
        state=state.state,
        reason=state.reason,
        since=moment(state.since),
        tags=[],
        bed=None,
        client_version=row["client_version"],
        model_version=row["model_version"],
        last_heard=moment(row["last_heard"]),
        silent_s=None if row["last_heard"] is None else max(now - row["last_heard"], 0.0),
        heartbeat_at=None if beat is None else moment(beat["received_at"]),
        last_data=moment(row["last_data"]),
        reading_age_s=age,
        clock_offset_s=row["clock_offset_s"],
        clock_synced=row["clock_synced"],
        certificate_expires_at=moment(row["certificate_expires_at"]),
        flagged=row["flagged"],
        **{name: body.get(name) for name in _OF_HEARTBEAT},
    )


_OF_HEARTBEAT = (
    "outbox_depth",
    "dead_letters",
    "memory_available_mb",
    "resident_mb",
    "disk_free_mb",
    "temperature_c",
    "load_1m",
    "uptime_s",
)


def _tags(connection: Connection, names: list[str] | None = None) -> dict[str, list[str]]:
    table = schema.tags
    query = select(table).order_by(table.c.tag)
    if names is not None:
        query = query.where(table.c.device.in_(names))
    found: dict[str, list[str]] = {}
    for device, tag in connection.execute(query):
        found.setdefault(device, []).append(tag)
    return found


def _beds(connection: Connection) -> dict[str, str]:
    table = schema.admissions
    query = select(table.c.device, table.c.bed).where(table.c.discharged_at.is_(None), table.c.bed != "")
    return {device: bed for device, bed in connection.execute(query).tuples()}  # noqa: C416 - typed
