"""A run as the API shows it: where it stands, whom it waits for and why, every round so far.

Reads only; the time is an argument.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, desc, select

from samd_gateway import runs_table, schema
from samd_gateway.admission import verdict
from samd_gateway.answers import AwaitedOut, RefusalOut, RoundOut, RunOut
from samd_gateway.queries import at, moment, rows, server_state
from samd_gateway.states import DeviceState
from samd_protocol.messages import RunSpec, RunStatus


def run(
    connection: Connection,
    name: str,
    now: float,
    states: Mapping[str, DeviceState],
    *,
    link_down_since: float | None = None,
) -> RunOut | None:
    """One run with all that is known of it; `states` of the devices says why one is awaited."""
    row = runs_table.row(connection, name)
    return None if row is None else _run(connection, row, now, states, link_down_since)


def runs(
    connection: Connection,
    now: float,
    states: Mapping[str, DeviceState],
    *,
    link_down_since: float | None = None,
    limit: int = 50,
) -> list[RunOut]:
    """The latest runs first."""
    table = schema.runs
    found = rows(connection, select(table).order_by(desc(table.c.created_at)).limit(limit))
    return [_run(connection, row, now, states, link_down_since) for row in found]


def _run(
    connection: Connection,
    row: Mapping[str, Any],
    now: float,
    states: Mapping[str, DeviceState],
    link_down_since: float | None,
) -> RunOut:
    spec = msgspec.json.decode(row["spec"], type=RunSpec)
    status = RunStatus(run=row["id"], phase="preparing", rounds=spec.rounds, quorum=spec.quorum)
    if row["status"]:
        status = msgspec.json.decode(row["status"], type=RunStatus)
    found = runs_table.answers(connection, row["id"])
    ended = row["state"] in runs_table.TERMINAL
    awaited = [] if ended else _awaited(connection, row, found, status, states)
    history = schema.rounds
    rounds = rows(connection, select(history).where(history.c.run == row["id"]).order_by(history.c.round))
    return RunOut(
        id=row["id"],
        state=row["state"],
        reason=row["reason"],
        waiting=None
        if ended
        else _waiting(
            connection, row, spec, status, awaited=awaited, now=now, link_down_since=link_down_since
        ),
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
                started_at=at(each["started_at"]),
                updated_at=at(each["updated_at"]),
                **json.loads(each["body"]),
            )
            for each in rounds
        ],
        start_version=row["start_version"],
        model_version=row["model_version"],
        released=row["released"],
        created_at=at(row["created_at"]),
        handed_over_at=moment(row["handed_over_at"]),
        stop_requested_at=moment(row["stop_requested_at"]),
        updated_at=at(row["updated_at"]),
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
    *,
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
