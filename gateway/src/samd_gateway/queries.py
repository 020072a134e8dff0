"""From the tables to the answers of the API. Reads only; the time is an argument."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, desc, select

from samd_gateway import schema
from samd_gateway.answers import (
    AlertOut,
    AssessmentOut,
    DeviceOut,
    FactOut,
    FactsOut,
    HeartbeatOut,
    ResultOut,
    ServerOut,
    TrainingOut,
)
from samd_gateway.facts import Fact, Facts, facts
from samd_gateway.intake import Item
from samd_gateway.latest_rows import latest_row
from samd_gateway.roster import Known
from samd_gateway.states import Deaf, Policy, data_age_s
from samd_protocol.messages import ServerState

AT_ONCE = 500
"""More devices than this are not asked for by name: then the whole table is read."""


def rows(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    """The result of a query, each row a dictionary by column name."""
    return [dict(row) for row in connection.execute(query).mappings()]


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _data(row: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(row["body"])
    data.pop("type", None)
    return data


def devices(
    connection: Connection,
    known: Mapping[str, Known],
    now: float,
    policy: Policy,
    *,
    deaf: Deaf | None = None,
) -> list[DeviceOut]:
    """These devices of the roster, sorted by name, each with the latest of each kind that it sent."""
    newest = select(schema.latest)
    if len(known) <= AT_ONCE:
        newest = newest.where(schema.latest.c.device.in_(known))
    kinds: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows(connection, newest):
        kinds.setdefault(row["device"], {})[row["kind"]] = row
    return [_device(known[name], kinds.get(name, {}), now, policy, deaf) for name in sorted(known)]


def _device(
    known: Known, latest: Mapping[str, dict[str, Any]], now: float, policy: Policy, deaf: Deaf | None
) -> DeviceOut:
    assessment = _assessment(latest.get("assessment"), now)
    alert, heartbeat, training = latest.get("alert"), latest.get("heartbeat"), latest.get("training")
    return DeviceOut(
        name=known.name,
        state=known.state.state,
        reason=known.state.reason,
        since=moment(known.state.since),
        reported=known.reported,
        last_heard=moment(known.last_heard),
        silent_s=None if known.last_heard is None else max(now - known.last_heard, 0.0),
        data_age_s=None if assessment is None else assessment.age_s,
        facts=facts_out(facts(known, now, policy, deaf=deaf)),
        client_version=known.client_version,
        model_version=known.model_version,
        boot_id=known.boot_id,
        clock_offset_s=known.clock_offset_s,
        clock_synced=known.clock_synced,
        certificate_expires_at=moment(known.certificate_expires_at),
        flagged=known.flagged,
        flagged_at=moment(known.flagged_at),
        assessment=assessment,
        alert=None if alert is None else alert_out(alert),
        heartbeat=None
        if heartbeat is None
        else HeartbeatOut(received_at=at(heartbeat["received_at"]), **_data(heartbeat)),
        training=None
        if training is None
        else TrainingOut(received_at=at(training["received_at"]), **_data(training)),
    )


def facts_out(found: Facts) -> FactsOut:
    """The four facts as the API shows them."""

    def out(fact: Fact) -> FactOut:
        return FactOut(status=fact.status, at=moment(fact.at), age_s=fact.age_s, reason=fact.reason)

    return FactsOut(
        last_will=out(found.last_will),
        heartbeat=out(found.heartbeat),
        data=out(found.data),
        source=out(found.source),
    )


def _assessment(row: dict[str, Any] | None, now: float) -> AssessmentOut | None:
    if row is None:
        return None
    data = _data(row)
    observed = datetime.fromisoformat(data["observed_at"]).timestamp() if row["synced"] else None
    age = data_age_s(data["reading_age_s"], row["received_at"], now, observed_at=observed)
    return AssessmentOut(received_at=at(row["received_at"]), age_s=age, **data)


def newest_out(item: Item, now: float) -> AssessmentOut | TrainingOut:
    """A message as the newest of its kind, as it will be read from the tables."""
    row = latest_row(item)
    if item.kind == "assessment" and (found := _assessment(row, now)) is not None:
        return found
    return TrainingOut(received_at=at(row["received_at"]), **_data(row))


def alert_out(row: Mapping[str, Any]) -> AlertOut:
    """A row of `latest` or `messages` that holds an alert."""
    return AlertOut(device=row["device"], received_at=at(row["received_at"]), **_data(row))


def results(
    connection: Connection, device: str, *, command: str | None = None, limit: int = 100
) -> list[ResultOut]:
    """The commands sent to a device, the latest first, with their answers."""
    table = schema.commands
    query = select(table).where(table.c.device == device).order_by(desc(table.c.issued_at)).limit(limit)
    if command is not None:
        query = query.where(table.c.id == command)
    return [
        ResultOut(
            command=row["id"],
            device=row["device"],
            type=row["type"],
            issued_at=at(row["issued_at"]),
            expires_at=at(row["expires_at"]),
            status=row["status"],
            reason=row["reason"],
            detail=json.loads(row["detail"]) if row["detail"] else {},
            answered_at=moment(row["answered_at"]),
        )
        for row in rows(connection, query)
    ]


def _latest_of(connection: Connection, device: str, kind: str) -> dict[str, Any] | None:
    table = schema.latest
    query = select(table).where(table.c.device == device, table.c.kind == kind)
    return next(iter(rows(connection, query)), None)


def server_state(connection: Connection) -> ServerState | None:
    """The server's last word."""
    row = _latest_of(connection, "server", "server.state")
    return None if row is None else msgspec.json.decode(row["body"], type=ServerState)


def server(connection: Connection) -> ServerOut:
    """The server as the API shows it."""
    row = _latest_of(connection, "server", "server.state")
    status = _latest_of(connection, "server", "run.status")
    run = None if status is None else _data(status)
    if row is None:
        return ServerOut(
            status="unknown",
            reason="never heard of; start it: samd-server run",
            version=None,
            model_version=None,
            graph_sha256=None,
            task=None,
            methods=[],
            since=None,
            run=run,
        )
    data = _data(row)
    reason = (
        "its birth message is the last word"
        if data["status"] == "online"
        else "its last will or goodbye was received"
    )
    # an older server says nothing of methods
    said = {"methods": []} | data
    return ServerOut(reason=reason, since=at(row["received_at"]), run=run, **said)
