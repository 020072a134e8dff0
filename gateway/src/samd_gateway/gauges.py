"""What the metrics tell of the database: open alerts, notifications that wait, runs that go on, its size."""

from sqlalchemy import Connection, func, select, text

from samd_gateway import runs_table, schema
from samd_gateway.metrics import Metrics


def measure(connection: Connection, metrics: Metrics) -> None:
    """Read and set."""
    alerts = schema.alerts
    unacknowledged = alerts.c.acknowledged_at.is_(None)
    for label, condition in (("no", unacknowledged), ("yes", ~unacknowledged)):
        count = select(func.count()).select_from(alerts).where(alerts.c.state == "active", condition)
        metrics.alerts.labels(label).set(connection.scalar(count) or 0)
    waiting = schema.notifications
    count = select(func.count()).select_from(waiting).where(waiting.c.state == "pending")
    metrics.notifications_pending.set(connection.scalar(count) or 0)
    runs = schema.runs
    count = select(func.count()).select_from(runs).where(runs.c.state.not_in(runs_table.TERMINAL))
    metrics.runs_active.set(connection.scalar(count) or 0)
    metrics.database_bytes.set(size(connection))


def size(connection: Connection) -> int:
    """Bytes of the database; of SQLite, without the log of the latest writes."""
    if connection.dialect.name == "postgresql":
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
    return int(pages * (connection.exec_driver_sql("PRAGMA page_size").scalar() or 0))
