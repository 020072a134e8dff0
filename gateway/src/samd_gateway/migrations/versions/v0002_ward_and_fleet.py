"""Accounts, ward, alerts, fleet, schedules; the alerts of the messages that are kept become rows."""

import hashlib
import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    _people()
    _ward()
    _fleet()
    _federation()
    op.create_index("messages_by_device", "messages", ["device", "kind", "received_at"])
    connection = op.get_bind()
    _carry_alerts(connection)
    _carry_last_data(connection)
    # what makes the program of version 1 refuse these tables, which counts in `meta`
    op.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")


def _identity() -> Any:
    """A key that the database counts up; 64 bits, which SQLite counts only in a plain INTEGER."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _unique_where(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=True, sqlite_where=where, postgresql_where=where)


def _people() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("display", sa.String(120), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.Text()),
        sa.Column("subject", sa.String(255)),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("password_changed_at", sa.Float()),
        sa.Column("disabled_at", sa.Float()),
        sa.Column("locale", sa.String(8)),
        sa.Column("theme", sa.String(8)),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("subject"),
    )
    op.create_table(
        "sessions",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("csrf", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("last_seen", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("ix_sessions_user", "sessions", ["user"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float()),
        sa.Column("last_used", sa.Float()),
        sa.Column("revoked_at", sa.Float()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_index("ix_tokens_user", "tokens", ["user"])
    op.create_table(
        "login_failures",
        sa.Column("key", sa.String(160), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.Column("locked_until", sa.Float()),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("updated_by", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "audit",
        sa.Column("id", _identity(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("via", sa.String(16), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.String(160), nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_by_target", "audit", ["target", "at"])
    op.create_index("ix_audit_at", "audit", ["at"])


def _ward() -> None:
    op.create_table(
        "admissions",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("bed", sa.String(64), nullable=False),
        sa.Column("ward", sa.String(64), nullable=False),
        sa.Column("spo2_scale", sa.Integer(), nullable=False),
        sa.Column("monitoring_interval_s", sa.Float()),
        sa.Column("consent_to_training", sa.Boolean(), nullable=False),
        sa.Column("admitted_at", sa.Float(), nullable=False),
        sa.Column("admitted_by", sa.String(64), nullable=False),
        sa.Column("command", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("discharged_at", sa.Float()),
        sa.Column("discharged_by", sa.String(64)),
        sa.Column("discharge_command", sa.String(64)),
        sa.Column("boot", sa.BigInteger()),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("end_boot", sa.BigInteger()),
        sa.Column("end_seq", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_admissions_device", "admissions", ["device"])
    _unique_where("admissions_one_open", "admissions", ["device"], "state IN ('pending', 'active')")
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("source_id", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("severity", sa.Integer()),
        sa.Column("peak", sa.Integer()),
        sa.Column("possible", sa.Integer()),
        sa.Column("news2_low", sa.Integer()),
        sa.Column("news2_high", sa.Integer()),
        sa.Column("reason", sa.Text()),
        sa.Column("observed_at", sa.Float()),
        sa.Column("raised_at", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("cleared_at", sa.Float()),
        sa.Column("acknowledged_at", sa.Float()),
        sa.Column("acknowledged_by", sa.String(64)),
        sa.Column("note", sa.Text()),
        sa.Column("paused_until", sa.Float()),
        sa.Column("paused_by", sa.String(64)),
        sa.Column("pause_reason", sa.Text()),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("step_at", sa.Float()),
        sa.Column("waiting_since", sa.Float()),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device", "kind", "source_id", name="alerts_once"),
    )
    op.create_index("alerts_by_device", "alerts", ["device", "raised_at"])
    op.create_index("alerts_by_state", "alerts", ["state", "raised_at"])
    _unique_where("alerts_one_open", "alerts", ["device", "kind"], "state = 'active'")
    op.create_table(
        "alert_changes",
        sa.Column("id", _identity(), nullable=False),
        sa.Column("alert", sa.String(64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("change", sa.String(24), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_alert_changes_alert", "alert_changes", ["alert"])
    op.create_table(
        "channels",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("min_severity", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "notifications",
        sa.Column("id", _identity(), nullable=False),
        sa.Column("alert", sa.String(64), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("channel", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("delivered_at", sa.Float()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("alert", "event", "channel", name="notified_once"),
    )
    op.create_index("notifications_due", "notifications", ["state", "next_at"])


def _fleet() -> None:
    op.create_table(
        "tags",
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("tag", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("device", "tag"),
    )
    op.create_index("ix_tags_tag", "tags", ["tag"])
    op.create_table(
        "views",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "job_devices",
        sa.Column("job", sa.String(16), nullable=False),
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("command", sa.String(64)),
        sa.Column("version", sa.BigInteger()),
        sa.PrimaryKeyConstraint("job", "device"),
    )
    op.create_table(
        "desired",
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device"),
    )
    op.create_table(
        "health",
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("span_s", sa.Integer(), nullable=False),
        sa.Column("beats", sa.Integer(), nullable=False),
        sa.Column("load_max", sa.Float()),
        sa.Column("memory_min_mb", sa.Float()),
        sa.Column("resident_max_mb", sa.Float()),
        sa.Column("temperature_max_c", sa.Float()),
        sa.Column("disk_min_mb", sa.Float()),
        sa.Column("outbox_max", sa.Integer()),
        sa.Column("reading_age_max_s", sa.Float()),
        sa.PrimaryKeyConstraint("device", "at", "span_s"),
        sqlite_with_rowid=False,
    )
    op.create_index("health_by_time", "health", ["span_s", "at"])
    op.create_table(
        "assessment_hours",
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("hour", sa.Float(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("low_max", sa.Integer()),
        sa.Column("high_max", sa.Integer()),
        sa.Column("severity_max", sa.Integer()),
        sa.Column("model_severity_max", sa.Integer()),
        sa.Column("probability_max", sa.Float()),
        sa.Column("disagreements", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("device", "hour"),
    )
    op.add_column("devices", sa.Column("clock_offset_s", sa.Float()))
    op.add_column("devices", sa.Column("clock_synced", sa.Boolean()))
    op.add_column("devices", sa.Column("certificate_expires_at", sa.Float()))
    op.add_column("devices", sa.Column("last_data", sa.Float()))
    op.add_column("devices", sa.Column("flagged", sa.Text()))
    op.add_column("devices", sa.Column("flagged_at", sa.Float()))


def _federation() -> None:
    op.create_table(
        "leaders",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("taken_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "gateways",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("instance", sa.String(32), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("address", sa.String(255)),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("cron", sa.String(120), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("quiet", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("devices", sa.Text()),
        sa.Column("tag", sa.String(64)),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("next_at", sa.Float()),
        sa.Column("last_at", sa.Float()),
        sa.Column("last_run", sa.String(64)),
        sa.Column("last_outcome", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "releases",
        sa.Column("id", _identity(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("order", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16)),
        sa.Column("reason", sa.Text()),
        sa.Column("answered_at", sa.Float()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("order"),
    )


def _carry_alerts(connection: sa.Connection) -> None:
    """Each alert that devices sent, with what became of it: the messages of alerts are kept for ever."""
    messages, alerts = _table("messages", _MESSAGE), _table("alerts", _ALERT)
    query = sa.select(messages).where(messages.c.kind == "alert")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    opened: dict[str, dict[str, Any]] = {}
    for row in connection.execute(query.order_by("device", "boot", "seq")).mappings():
        device, at, data = row["device"], row["received_at"], json.loads(row["body"])
        alert = found.setdefault((device, data["alert_id"]), _alert(device, data, at))
        if alert["state"] == "cleared":
            continue
        other = opened.setdefault(device, alert)
        if other is not alert and other["state"] == "active":  # a device has one alert at a time
            other |= {"state": "cleared", "changed_at": at, "cleared_at": at, "waiting_since": None}
            other["reason"] = "its device has raised a newer one"
        opened[device] = alert
        cleared = data["state"] == "cleared"
        if data["severity"] > alert["peak"]:
            alert |= {"peak": data["severity"], "waiting_since": at}
        alert |= {
            "state": "cleared" if cleared else "active",
            # at the end its class stays: that of the message is what the patient has come down to
            "severity": alert["severity"] if cleared else data["severity"],
            "possible": data.get("possible"),
            "news2_low": data["news2_low"],
            "news2_high": data["news2_high"],
            "observed_at": datetime.fromisoformat(data["observed_at"]).timestamp(),
            "changed_at": at,
            "boot": row["boot"],
            "seq": row["seq"],
        }
        if cleared:
            alert |= {"cleared_at": at, "waiting_since": None}
    if found:
        connection.execute(alerts.insert(), list(found.values()))


def _alert(device: str, data: dict[str, Any], at: float) -> dict[str, Any]:
    key = f"severity\0{device}\0{data['alert_id']}"
    return {
        "id": hashlib.blake2b(key.encode(), digest_size=10).hexdigest(),
        "device": device,
        "kind": "severity",
        "source_id": data["alert_id"],
        "state": "active",
        "severity": data["severity"],
        "peak": data["severity"],
        "raised_at": at,
        "cleared_at": None,
        "waiting_since": at,
        "reason": None,
        "step": 0,
    }


def _carry_last_data(connection: sa.Connection) -> None:
    """When each device's last assessment came."""
    connection.execute(
        sa.text(
            "UPDATE devices SET last_data = (SELECT received_at FROM latest"
            " WHERE latest.device = devices.name AND latest.kind = 'assessment')"
        )
    )


_MESSAGE = ("device", "kind", "boot", "seq", "received_at", "body")
_ALERT = (
    "id",
    "device",
    "kind",
    "source_id",
    "state",
    "severity",
    "peak",
    "possible",
    "news2_low",
    "news2_high",
    "observed_at",
    "raised_at",
    "changed_at",
    "cleared_at",
    "waiting_since",
    "reason",
    "boot",
    "seq",
    "step",
)


def _table(name: str, columns: tuple[str, ...]) -> sa.TableClause:
    return sa.table(name, *(sa.column(each) for each in columns))
