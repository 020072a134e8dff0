"""What can be exported: how each kind is read from its table, and what a record of it holds."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Column, Select, select

from samd_gateway import schema
from samd_gateway.states import DeviceState

Kind = Literal["assessments", "hours", "alerts", "devices", "health", "audit"]
SIGNS = (
    "respiratory_rate",
    "spo2",
    "supplemental_oxygen",
    "systolic_bp",
    "heart_rate",
    "consciousness",
    "temperature",
)
Record = dict[str, Any]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """How a kind is read: a query, the columns that it is read in the order of, and which is its time."""

    query: Select[Any]
    order: Sequence[Column[Any]]
    time: Column[Any] | None
    device: Column[Any] | None
    record: Callable[[Mapping[str, Any]], Record]
    columns: Sequence[str]


def moment(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _times(row: Mapping[str, Any]) -> Record:
    """A row with its times as text, and nothing of the gateway's own bookkeeping."""
    hidden = ("step_at", "waiting_since", "boot", "seq", "connection", "boot_id")
    return {
        name: moment(value) if name in TIMES else value for name, value in row.items() if name not in hidden
    }


TIMES = frozenset(
    {
        "at",
        "hour",
        "observed_at",
        "raised_at",
        "changed_at",
        "cleared_at",
        "acknowledged_at",
        "paused_until",
        "first_heard",
        "last_heard",
        "last_data",
        "online_since",
        "reported_at",
        "certificate_expires_at",
        "flagged_at",
    }
)


def _assessment(row: Mapping[str, Any]) -> Record:
    data = json.loads(row["body"])
    data.pop("type", None)
    return {
        "device": row["device"],
        "id": row["id"],
        "admission": row["admission"],
        "received_at": moment(row["received_at"]),
        "sent_at": moment(row["sent_at"]),
        **data,
    }


def _audit(row: Mapping[str, Any]) -> Record:
    pictures = {name: None if row[name] is None else json.loads(row[name]) for name in ("before", "after")}
    return _times(row) | pictures


def _device(states: Mapping[str, DeviceState]) -> Callable[[Mapping[str, Any]], Record]:
    def record(row: Mapping[str, Any]) -> Record:
        state = states.get(row["name"])
        derived = {
            "name": row["name"],
            "state": "unknown" if state is None else state.state,
            "reason": None if state is None else state.reason,
            "since": None if state is None else moment(state.since),
        }
        return derived | {name: value for name, value in _times(row).items() if name not in derived}

    return record


ASSESSMENT_COLUMNS = (
    *("device", "id", "admission", "received_at", "sent_at", "observed_at"),
    *("news2_total", "news2_low", "news2_high", "news2_band"),
    *(f"news2_points_{name}" for name in SIGNS),
    *("rule_severity", "rule_severity_possible", "severity", "disagreement"),
    *("model_severity", "model_version", "model_personal"),
    *(f"model_probabilities_{number}" for number in range(4)),
    *("deterioration_asked_at", "deterioration_horizon_h", "deterioration_probability"),
    *("deterioration_calibration", "deterioration_version", "deterioration_reason"),
    *("missing", "stale", "artefacts", "due", "next_due_at", "reading_age_s"),
    *(f"signs_{name}" for name in (*SIGNS, "diastolic_bp")),
)


def source_of(kind: Kind, states: Mapping[str, DeviceState]) -> Source:
    if kind == "assessments":
        table = schema.messages
        columns = ("device", "id", "boot", "seq", "received_at", "sent_at", "body")
        return Source(
            query=select(*(table.c[name] for name in columns)).where(table.c.kind == "assessment"),
            order=(table.c.received_at, table.c.device, table.c.id),
            time=table.c.received_at,
            device=table.c.device,
            record=_assessment,
            columns=ASSESSMENT_COLUMNS,
        )
    if kind == "devices":
        table = schema.devices
        record = _device(states)
        empty = dict.fromkeys(column.name for column in table.columns)
        return Source(
            query=select(table),
            order=(table.c.name,),
            time=None,
            device=table.c.name,
            record=record,
            columns=tuple(record(empty | {"name": ""})),
        )
    table, order, time = {
        "hours": (schema.assessment_hours, ("device", "hour"), "hour"),
        "alerts": (schema.alerts, ("raised_at", "id"), "raised_at"),
        "health": (schema.health, ("device", "at", "span_s"), "at"),
        "audit": (schema.audit, ("id",), "at"),
    }[kind]
    return Source(
        query=select(table),
        order=tuple(table.c[name] for name in order),
        time=table.c[time],
        device=table.c.get("device"),
        record=_audit if kind == "audit" else _times,
        columns=tuple(_times(dict.fromkeys(column.name for column in table.columns))),
    )
