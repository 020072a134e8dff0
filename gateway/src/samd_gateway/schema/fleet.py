"""The fleet beside its messages: tags, saved views, bulk actions, and the down-sampled past."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text

from samd_gateway.schema.base import metadata

tags = Table(
    "tags",
    metadata,
    Column("device", String(80), primary_key=True),
    Column("tag", String(64), primary_key=True, index=True),
)

views = Table(
    "views",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(120), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("shared", Boolean, nullable=False, default=False),
    Column("query", Text, nullable=False),  # JSON
    Column("created_at", Float, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("action", String(32), nullable=False),
    Column("body", Text, nullable=False),  # JSON
    Column("actor", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("devices", Integer, nullable=False),
)

job_devices = Table(
    "job_devices",
    metadata,
    Column("job", String(16), primary_key=True),
    Column("device", String(80), primary_key=True),
    Column("command", String(64)),  # null for what needs none
    Column("version", BigInteger),  # of the configuration that was asked for
)

# What a device is to be configured as; what it says that it is stands in `latest`.
desired = Table(
    "desired",
    metadata,
    Column("device", String(80), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("body", Text, nullable=False),  # JSON
)

# Heartbeats by spans of time: a day of 10,000 devices would be 86 million rows.
health = Table(
    "health",
    metadata,
    Column("device", String(80), primary_key=True),
    Column("at", Float, primary_key=True),  # begin of the span
    Column("span_s", Integer, primary_key=True),
    Column("beats", Integer, nullable=False),
    Column("load_max", Float),
    Column("memory_min_mb", Float),
    Column("resident_max_mb", Float),
    Column("temperature_max_c", Float),
    Column("disk_min_mb", Float),
    Column("outbox_max", Integer),
    Column("reading_age_max_s", Float),
    Index("health_by_time", "span_s", "at"),
    sqlite_with_rowid=False,  # the key is stored once, not twice
)

# Assessments by hours, for as long as a time line reaches back beyond the messages themselves.
assessment_hours = Table(
    "assessment_hours",
    metadata,
    Column("device", String(80), primary_key=True),
    Column("hour", Float, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("low_max", Integer),
    Column("high_max", Integer),
    Column("severity_max", Integer),
    Column("model_severity_max", Integer),
    Column("probability_max", Float),
    Column("disagreements", Integer, nullable=False, default=0),
)
