"""The tables, by subject, and how a database is opened. Times are seconds since 1970, UTC, by the gateway's
clock. Everything else reads and writes through the names given here.
"""

from samd_gateway.schema.base import metadata
from samd_gateway.schema.database import Database, open_database
from samd_gateway.schema.federation import (
    gateways,
    leaders,
    lease,
    participants,
    releases,
    rounds,
    runs,
    schedules,
)
from samd_gateway.schema.fleet import assessment_hours, desired, health, job_devices, jobs, tags, views
from samd_gateway.schema.people import audit, login_failures, sessions, settings, tokens, users
from samd_gateway.schema.ward import admissions, alert_changes, alerts, channels, notifications
from samd_gateway.schema.wire import boots, commands, devices, latest, messages, meta

__all__ = [
    "Database",
    "admissions",
    "alert_changes",
    "alerts",
    "assessment_hours",
    "audit",
    "boots",
    "channels",
    "commands",
    "desired",
    "devices",
    "gateways",
    "health",
    "job_devices",
    "jobs",
    "latest",
    "leaders",
    "lease",
    "login_failures",
    "messages",
    "meta",
    "metadata",
    "notifications",
    "open_database",
    "participants",
    "releases",
    "rounds",
    "runs",
    "schedules",
    "sessions",
    "settings",
    "tags",
    "tokens",
    "users",
    "views",
]
