"""The database over HTTP: how large it is, how long what is kept, and what is due to go."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from sqlalchemy import Connection, func, select, text

from samd_gateway import migrations, retention, schema
from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.answers import Answer
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented
from samd_gateway.queries import at

AT_MOST_S = 5.0
"""So long a request prunes; who asks again goes on."""

Days = Annotated[int, Field(ge=2, le=36_500)]


class RetentionBody(BaseModel):
    """Days that rows are kept; null is for ever. Two at the least: a message may be a day on its way."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "messages_days": 30,
                    "assessments_days": 30,
                    "assessment_hours_days": 400,
                    "alerts_days": None,
                    "health_days": 7,
                    "health_hours_days": 90,
                    "commands_days": 30,
                    "audit_days": None,
                }
            ]
        },
    )

    messages_days: Days = Field(30, description="Messages but assessments and alerts")
    assessments_days: Days = Field(30, description="Single assessments; then they are counted by the hour")
    assessment_hours_days: Days | None = Field(400, description="Hours of assessments")
    alerts_days: Days | None = Field(None, description="Cleared alerts with their history")
    health_days: Days = Field(7, description="Health by five minutes; then by the hour")
    health_hours_days: Days | None = Field(90, description="Hours of health")
    commands_days: Days = Field(30, description="Commands but those of runs")
    audit_days: Days | None = Field(None, description="The audit")


class TableOut(Answer):
    """A table and how many rows it has."""

    name: str
    rows: int


class PrunedOut(Answer):
    """What the retention last took: rows by what they were."""

    at: datetime
    rows: dict[str, int]


class DatabaseOut(Answer):
    """The database that the gateway writes to. `free_bytes` is room within the file that is used again."""

    backend: Literal["sqlite", "postgresql"]
    revision: str
    newest_revision: str
    size_bytes: int
    free_bytes: int
    oldest_message: datetime | None
    tables: list[TableOut]
    pruned: PrunedOut | None


class PruneRequest(BaseModel):
    """With `preview`, nothing goes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"preview": True}]})

    preview: StrictBool = True


class PruneOut(Answer):
    """Rows that went, or that would go, by what they are; `complete`: nothing more is due."""

    preview: bool
    rows: dict[str, int]
    complete: bool


def size(connection: Connection) -> tuple[int, int]:
    """Bytes of the database, with its log, and how many of them are free."""
    if connection.dialect.name == "postgresql":
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0), 0
    page = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    path = Path(connection.engine.url.database or "")
    parts = (path, path.with_name(f"{path.name}-wal"))
    return sum(part.stat().st_size for part in parts if part.exists()), page * free


def info(database: schema.Database) -> DatabaseOut:
    """What there is to tell of a database."""
    pruned = database.meta("pruned")
    with database.read() as connection:
        bytes_, free = size(connection)
        received = schema.messages.c.received_at
        kinds = connection.scalar(select(func.min(received)))
        tables = [
            TableOut(name=name, rows=connection.scalar(select(func.count()).select_from(table)) or 0)
            for name, table in sorted(schema.metadata.tables.items())
        ]
        return DatabaseOut(
            backend="postgresql" if connection.dialect.name == "postgresql" else "sqlite",
            revision=str(migrations.revision(connection)),
            newest_revision=migrations.HEAD,
            size_bytes=bytes_,
            free_bytes=free,
            oldest_message=None if kinds is None else at(kinds),
            tables=tables,
            pruned=None if pruned is None else PrunedOut(at=at(pruned["at"]), rows=pruned["rows"]),
        )


def router(gateway: Gateway) -> APIRouter:
    """The routes of the database and its retention."""
    api = APIRouter(tags=["database"])

    @api.get("/api/database", responses=documented(401, 403, 503))
    def database(_actor: Annotated[Actor, Depends(needs("read"))]) -> DatabaseOut:
        """Size, rows by table, and what the retention last took."""
        return info(gateway.database)

    @api.post("/api/database/prune", responses=documented(401, 403, 422, 503))
    def prune(request: PruneRequest, actor: Annotated[Actor, Depends(needs("settings"))]) -> PruneOut:
        """Let go what is due, for a few seconds; by itself that happens every ten minutes."""
        if request.preview:
            with gateway.database.read() as connection:
                due = retention.preview(connection, gateway.now())
            return PruneOut(preview=True, rows=due, complete=not any(due.values()))
        taken, complete = gateway.retention.prune(most_s=AT_MOST_S)
        if any(taken.values()):
            with gateway.database.write() as connection:
                now = gateway.now()
                audit.record(connection, actor, "database.prune", "database", now=now, after=taken)
        return PruneOut(preview=False, rows=taken, complete=complete)

    @api.get("/api/settings/retention", responses=documented(401, 403, 503))
    def kept(_actor: Annotated[Actor, Depends(needs("read"))]) -> RetentionBody:
        """How long what is kept."""
        with gateway.database.read() as connection:
            return RetentionBody(**msgspec.structs.asdict(retention.get(connection)))

    @api.put("/api/settings/retention", responses=documented(401, 403, 422, 503))
    def keep(body: RetentionBody, actor: Annotated[Actor, Depends(needs("settings"))]) -> RetentionBody:
        """Set how long what is kept; from the next look on it goes by that."""
        value = retention.Retention(**body.model_dump())
        with gateway.database.write() as connection:
            retention.put(connection, value, actor=actor, now=gateway.now())
        return body

    return api
