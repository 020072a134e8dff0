"""From the tables to the answers of the API. Reads only; the time is an argument."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, desc, select

from samd_gateway import runs_table, schema
from samd_gateway.admission import verdict
from samd_gateway.answers import (
    AlertOut,
    AssessmentOut,
    AwaitedOut,
    DeviceOut,
    HeartbeatOut,
    RefusalOut,
    ResultOut,
    RoundOut,
    RunOut,
    ServerOut,
    TrainingOut,
)
from samd_gateway.recorder import contact_of
from samd_gateway.states import DeviceState, Policy, data_age_s, derive
from samd_protocol.messages import RunSpec, RunStatus, ServerState


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _data(row: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(row["body"])
    data.pop("type", None)
    return data


def device_states(
    connection: Connection, now: float, policy: Policy, *, link_down_since: float | None = None
) -> dict[str, DeviceState]:
    """Each known device's derived state."""
    rows = connection.execute(select(schema.devices).order_by(schema.devices.c.name)).mappings()
    return {
        row["name"]: derive(contact_of(row), now, policy, link_down_since=link_down_since) for row in rows
    }


def devices(
    connection: Connection,
    now: float,
    policy: Policy,
    *,
    link_down_since: float | None = None,
    names: Sequence[str] | None = None,
) -> list[DeviceOut]:
    """The devices (or those of `names`), sorted by name, each with the latest of each kind that it sent."""
    table, latest = schema.devices, schema.latest
    query, newest = select(table).order_by(table.c.name), select(latest)
    if names is not None:
        query, newest = query.where(table.c.name.in_(names)), newest.where(latest.c.device.in_(names))
    kinds: dict[str, dict[str, RowMapping]] = {}
    for row in connection.execute(newest).mappings():
        kinds.setdefault(row["device"], {})[row["kind"]] = row
    found = connection.execute(query).mappings()
    return [_device(row, kinds.get(row["name"], {}), now, policy, link_down_since) for row in found]


def _device(
    row: RowMapping,
    latest: Mapping[str, RowMapping],
    now: float,
    policy: Policy,
    link_down_since: float | None,
) -> DeviceOut:
    state = derive(contact_of(row), now, policy, link_down_since=link_down_since)
    assessment = _assessment(latest.get("assessment"), now)
    alert, heartbeat, training = latest.get("alert"), latest.get("heartbeat"), latest.get("training")
    return DeviceOut(
        name=row["name"],
        state=state.state,
        reason=state.reason,
        since=moment(state.since),
        reported=row["reported"],
        last_heard=moment(row["last_heard"]),
        silent_s=None if row["last_heard"] is None else max(now - row["last_heard"], 0.0),
        data_age_s=None if assessment is None else assessment.age_s,
        client_version=row["client_version"],
        model_version=row["model_version"],
        boot_id=row["boot_id"],
        assessment=assessment,
        alert=None if alert is None else alert_out(alert),
        heartbeat=None
        if heartbeat is None
        else HeartbeatOut(received_at=_at(heartbeat["received_at"]), **_filled(heartbeat)),
        training=None
        if training is None
        else TrainingOut(received_at=_at(training["received_at"]), **_filled(training)),
    )


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """The body, which was encoded from a typed message and so holds every field of it."""
    return _data(row)


def _assessment(row: RowMapping | None, now: float) -> AssessmentOut | None:
    if row is None:
        return None
    data = _data(row)
    observed = datetime.fromisoformat(data["observed_at"]).timestamp() if row["synced"] else None
    age = data_age_s(data["reading_age_s"], row["received_at"], now, observed_at=observed)
    return AssessmentOut(received_at=_at(row["received_at"]), age_s=age, **data)


def alert_out(row: Mapping[str, Any]) -> AlertOut:
    """A row of `latest` or `messages` that holds an alert."""
    return AlertOut(device=row["device"], received_at=_at(row["received_at"]), **_data(row))


def alerts(connection: Connection, *, history: bool = False, limit: int = 200) -> list[AlertOut]:
    """The open alerts, worst first; with `history` every change, the latest first."""
    if history:
        table = schema.messages
        query = select(table).where(table.c.kind == "alert").order_by(desc(table.c.received_at)).limit(limit)
        return [alert_out(row) for row in connection.execute(query).mappings()]
    newest = select(schema.latest).where(schema.latest.c.kind == "alert")
    found = [alert_out(row) for row in connection.execute(newest).mappings()]
    still = [alert for alert in found if alert.state != "cleared"]
    return sorted(still, key=lambda alert: (-alert.severity, alert.received_at, alert.device))[:limit]


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
            issued_at=_at(row["issued_at"]),
            expires_at=_at(row["expires_at"]),
            status=row["status"],
            reason=row["reason"],
            detail=json.loads(row["detail"]) if row["detail"] else {},
            answered_at=moment(row["answered_at"]),
        )
        for row in connection.execute(query).mappings()
    ]


def _latest_of(connection: Connection, device: str, kind: str) -> RowMapping | None:
    table = schema.latest
    query = select(table).where(table.c.device == device, table.c.kind == kind)
    return connection.execute(query).mappings().first()


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
            since=None,
            run=run,
        )
    data = _data(row)
    reason = (
        "its birth message is the last word"
        if data["status"] == "online"
        else "its last will or goodbye was received"
    )
    return ServerOut(reason=reason, since=_at(row["received_at"]), run=run, **data)


def run(
    connection: Connection, name: str, now: float, policy: Policy, *, link_down_since: float | None = None
) -> RunOut | None:
    """One run with all that is known of it."""
    row = runs_table.row(connection, name)
    return None if row is None else _run(connection, row, now, policy, link_down_since)


def runs(
    connection: Connection,
    now: float,
    policy: Policy,
    *,
    link_down_since: float | None = None,
    limit: int = 50,
) -> list[RunOut]:
    """The latest runs first."""
    table = schema.runs
    rows = connection.execute(select(table).order_by(desc(table.c.created_at)).limit(limit)).mappings().all()
    return [_run(connection, dict(row), now, policy, link_down_since) for row in rows]


def _run(
    connection: Connection, row: Mapping[str, Any], now: float, policy: Policy, link_down_since: float | None
) -> RunOut:
    spec = msgspec.json.decode(row["spec"], type=RunSpec)
    status = RunStatus(run=row["id"], phase="preparing", rounds=spec.rounds, quorum=spec.quorum)
    if row["status"]:
        status = msgspec.json.decode(row["status"], type=RunStatus)
    found = runs_table.answers(connection, row["id"])
    states = device_states(connection, now, policy, link_down_since=link_down_since)
    ended = row["state"] in runs_table.TERMINAL
    awaited = [] if ended else _awaited(connection, row, found, status, states)
    history = schema.rounds
    rounds = connection.execute(
        select(history).where(history.c.run == row["id"]).order_by(history.c.round)
    ).mappings()
    return RunOut(
        id=row["id"],
        state=row["state"],
        reason=row["reason"],
        waiting=None if ended else _waiting(connection, row, spec, status, awaited, now, link_down_since),
        spec=msgspec.to_builtins(spec),
        quorum=spec.quorum,
        asked=[each["device"] for each in found],
        accepted=[each["device"] for each in found if verdict(each["status"]) == "accepted"],
        rejected=[
            RefusalOut(device=each["device"], reason=each["reason"])
            for each in found
            if verdict(each["status"]) == "rejected"
        ],
        admitted=[each["device"] for each in found if each["admitted"]],
        awaited=awaited,
        awaited_counts={} if ended else status.awaited,
        round=status.round,
        rounds=status.rounds or spec.rounds,
        replies=status.replies,
        dropped=status.dropped,
        metrics=status.metrics,
        history=[
            RoundOut(
                round=each["round"],
                started_at=_at(each["started_at"]),
                updated_at=_at(each["updated_at"]),
                **json.loads(each["body"]),
            )
            for each in rounds
        ],
        start_version=row["start_version"],
        model_version=row["model_version"],
        released=row["released"],
        created_at=_at(row["created_at"]),
        handed_over_at=moment(row["handed_over_at"]),
        stop_requested_at=moment(row["stop_requested_at"]),
        updated_at=_at(row["updated_at"]),
        finished_at=moment(row["finished_at"]),
    )


def _awaited(
    connection: Connection,
    row: Mapping[str, Any],
    found: list[dict[str, Any]],
    status: RunStatus,
    states: Mapping[str, DeviceState],
) -> list[AwaitedOut]:
    """Whom the run waits for, and why, as far as the gateway knows: in admission those without an answer, in
    training those that have not said that this round's update is sent."""

    def because(device: str, otherwise: str) -> str:
        state = states.get(device)
        if state is None:
            return "unknown to this gateway"
        return otherwise if state.state == "online" else f"{state.state}: {state.reason}"

    if row["state"] == "admitting":
        silent = [each["device"] for each in found if each["status"] is None]
        return [AwaitedOut(device=device, reason=because(device, "no answer yet")) for device in silent]
    if row["state"] not in ("training", "evaluating"):
        return []
    admitted = [each["device"] for each in found if each["admitted"]]
    table = schema.latest
    query = select(table.c.device, table.c.body).where(
        table.c.kind == "training", table.c.device.in_(admitted)
    )
    words = {device: json.loads(body) for device, body in connection.execute(query)}
    awaited = []
    for device in admitted:
        word = words.get(device)
        here = word is not None and word["run"] == status.run and word["round"] == status.round
        if word is not None and here and word["phase"] == "sent":
            continue
        doing = word["phase"] if word is not None and here else "has not begun this round"
        if word is not None and here and word["error"]:
            doing = f"{word['phase']}: {word['error']}"
        awaited.append(AwaitedOut(device=device, reason=because(device, doing)))
    return awaited


def _waiting(
    connection: Connection,
    row: Mapping[str, Any],
    spec: RunSpec,
    status: RunStatus,
    awaited: Sequence[AwaitedOut],
    now: float,
    link_down_since: float | None,
) -> str | None:
    """What keeps the run, in one sentence; the gravest cause first."""
    if link_down_since is not None:
        return "this gateway has lost the broker; the run goes on when it is back"
    word = server_state(connection)
    if row["state"] != "admitting" and (word is None or word.status == "offline"):
        return "the server is offline; the run goes on from its last closed round when it is back"
    if row["stop_requested_at"] is not None:
        return "the server has been told to stop"
    if row["state"] == "admitting":
        left = max(row["created_at"] + spec.admission_deadline_s - now, 0.0)
        return f"{len(awaited)} devices have not answered; the admission ends in {left:.1f} s"
    if row["state"] == "handed-over":
        return "the server has the order and has not answered yet"
    if row["state"] == "paused":
        return status.reason or "the run is paused"
    if status.awaited:
        counts = ", ".join(f"{reason} ({count})" for reason, count in sorted(status.awaited.items()))
        return f"devices: {counts}; {status.replies} of {spec.quorum} needed have replied"
    return None
