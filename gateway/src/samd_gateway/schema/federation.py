"""Runs with their participants and rounds, schedules, the leases, and which gateways share the database."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, String, Table, Text

from samd_gateway.schema.base import identity, metadata

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("spec", Text, nullable=False),
    Column("graph_sha256", String(64), nullable=False),
    Column("start_version", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("quorum_at", Float),
    Column("handed_over_at", Float),
    Column("ordered_at", Float),
    Column("stop_requested_at", Float),
    Column("updated_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("status", Text),
    Column("model_version", BigInteger),
    Column("released", Boolean, nullable=False, default=False),
    Column("reason", Text),
)

participants = Table(
    "participants",
    metadata,
    Column("run", String(64), primary_key=True),
    Column("device", String(80), primary_key=True),
    Column("command", String(64), nullable=False),
    Column("admitted", Boolean, nullable=False, default=False),
    Column("told", Boolean, nullable=False, default=False),  # that its part has ended
)

rounds = Table(
    "rounds",
    metadata,
    Column("run", String(64), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("started_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("body", Text, nullable=False),
)

# One run at a time: whoever inserts the row holds the lease, until the run has ended.
lease = Table(
    "lease",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("run", String(64), nullable=False),
    Column("taken_at", Float, nullable=False),
)

# Who does what one gateway alone may do; a holder that does not renew it loses it at `expires_at`.
leaders = Table(
    "leaders",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("taken_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

gateways = Table(
    "gateways",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("instance", String(32), nullable=False),  # of the running process
    Column("version", String(32), nullable=False),
    Column("address", String(255)),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(120), nullable=False),
    Column("cron", String(120), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("quiet", Text, nullable=False),  # JSON list of "HH:MM-HH:MM"
    Column("spec", Text, nullable=False),  # JSON of a RunSpec
    Column("devices", Text),  # JSON list, null for all that are online
    Column("tag", String(64)),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("next_at", Float),
    Column("last_at", Float),
    Column("last_run", String(64)),
    Column("last_outcome", Text),
)

# What was asked of the server: which model is to be the released one.
releases = Table(
    "releases",
    metadata,
    identity(),
    Column("at", Float, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("task", String(64), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("action", String(16), nullable=False),  # release, rollback
    Column("order", String(64), nullable=False, unique=True),  # the message's id
    Column("status", String(16)),  # done, rejected; null until the server has answered
    Column("reason", Text),
    Column("answered_at", Float),
)
