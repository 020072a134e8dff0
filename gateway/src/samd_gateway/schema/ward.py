"""Patients by pseudonym, alerts with all that became of them, and who is told of them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from samd_gateway.schema.base import identity, metadata

# `id` is the pseudonym that the wire carries as `admission`; never a name or a record number.
admissions = Table(
    "admissions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("device", String(80), nullable=False, index=True),
    Column("bed", String(64), nullable=False, default=""),
    Column("ward", String(64), nullable=False, default=""),
    Column("spo2_scale", Integer, nullable=False, default=1),
    Column("monitoring_interval_s", Float),
    Column("consent_to_training", Boolean, nullable=False, default=False),
    Column("admitted_at", Float, nullable=False),
    Column("admitted_by", String(64), nullable=False),
    Column("command", String(64)),  # whose result says whether the device took it
    Column("state", String(16), nullable=False, default="pending"),  # pending, active, refused, ended
    Column("reason", Text),  # why it was refused, or ended without the device's word
    Column("discharged_at", Float),
    Column("discharged_by", String(64)),
    Column("discharge_command", String(64)),
    # The device's own order of messages: those between its two answers are of this patient, and no others.
    Column("boot", BigInteger),
    Column("seq", BigInteger),
    Column("end_boot", BigInteger),
    Column("end_seq", BigInteger),
)

# A bed holds one patient.
Index(
    "admissions_one_open",
    admissions.c.device,
    unique=True,
    sqlite_where=admissions.c.state.in_(("pending", "active")),
    postgresql_where=admissions.c.state.in_(("pending", "active")),
)

# One row an alert, from raised to cleared; `kind`: `severity` (by a device) or `silence` (by a gateway).
alerts = Table(
    "alerts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("device", String(80), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("source_id", String(64)),  # the device's own id of it
    Column("state", String(16), nullable=False),  # active, cleared
    Column("severity", Integer),
    Column("peak", Integer),
    Column("possible", Integer),
    Column("news2_low", Integer),
    Column("news2_high", Integer),
    Column("reason", Text),
    Column("observed_at", Float),
    Column("raised_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("cleared_at", Float),
    Column("acknowledged_at", Float),
    Column("acknowledged_by", String(64)),
    Column("note", Text),
    Column("paused_until", Float),
    Column("paused_by", String(64)),
    Column("pause_reason", Text),
    Column("step", Integer, nullable=False, default=0),  # of the escalation ladder
    Column("step_at", Float),
    Column("waiting_since", Float),  # from when the ladder counts; null while nobody need come
    Column("boot", BigInteger, nullable=False, default=-1),  # of the device's message that it follows
    Column("seq", BigInteger, nullable=False, default=-1),
    UniqueConstraint("device", "kind", "source_id", name="alerts_once"),
    Index("alerts_by_state", "state", "raised_at"),
    Index("alerts_by_device", "device", "raised_at"),
)

# Never two open ones of a kind on one device, whoever writes.
Index(
    "alerts_one_open",
    alerts.c.device,
    alerts.c.kind,
    unique=True,
    sqlite_where=alerts.c.state == "active",
    postgresql_where=alerts.c.state == "active",
)

alert_changes = Table(
    "alert_changes",
    metadata,
    identity(),
    Column("alert", String(64), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("change", String(24), nullable=False),
    Column("detail", Text, nullable=False, default="{}"),  # JSON
)

channels = Table(
    "channels",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),  # webhook, email, mqtt
    Column("config", Text, nullable=False),  # JSON; secrets are named by their file, never held here
    Column("enabled", Boolean, nullable=False, default=True),
    Column("min_severity", Integer, nullable=False, default=0),
    Column("step", Integer, nullable=False, default=0),  # of the ladder from which on it is told
    Column("created_at", Float, nullable=False),
)

# The outbox of notifications; the constraint is what makes each state of an alert told once to each channel.
notifications = Table(
    "notifications",
    metadata,
    identity(),
    Column("alert", String(64), nullable=False),
    Column("event", String(40), nullable=False),
    Column("channel", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # pending, delivered, given-up
    Column("body", Text, nullable=False),  # JSON, as it is delivered
    Column("attempts", Integer, nullable=False, default=0),
    Column("created_at", Float, nullable=False),
    Column("next_at", Float, nullable=False),
    Column("delivered_at", Float),
    Column("error", Text),
    UniqueConstraint("alert", "event", "channel", name="notified_once"),
    Index("notifications_due", "state", "next_at"),
)
