"""Schedules as people work with them: each change takes an actor, and is audited in its own transaction."""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from samd_gateway import schema
from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.errors import NotFoundError, UsageError
from samd_gateway.queries import at, moment, rows
from samd_gateway.schedules.answers import ScheduleOut
from samd_gateway.schedules.times import Timing, following, next_time, timing
from samd_gateway.schema import Database
from samd_protocol.messages import RunSpec

AT_MOST = 200
SHOWN = 5

table = schema.schedules


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as someone wants it. `devices` and `tag` exclude each other; without both, all online."""

    name: str
    cron: str
    timezone: str = "UTC"
    quiet: Sequence[str] = ()
    spec: RunSpec = RunSpec()
    devices: Sequence[str] | None = None
    tag: str | None = None
    enabled: bool = True


class Schedules:
    """One for each gateway."""

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], float] = time.time,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called when a schedule may be due earlier than was known."""
        self._database = database
        self._now = now
        self.changed = changed

    def all(self) -> list[ScheduleOut]:
        """Every schedule, the next that is due first, the disabled ones last."""
        with self._database.read() as connection:
            found = rows(
                connection, select(table).order_by(table.c.next_at.is_(None), table.c.next_at, table.c.id)
            )
        now = self._now()
        return [_out(row, now) for row in found]

    def one(self, id_: str) -> ScheduleOut:
        """Raises NotFoundError."""
        with self._database.read() as connection:
            return _out(self._row(connection, id_), self._now())

    def add(self, actor: Actor, wanted: Wanted) -> ScheduleOut:
        """Raises UsageError for a time that is none or never comes, ForbiddenError."""
        actor.need("runs")
        now = self._now()
        values = _values(wanted, now)
        id_ = secrets.token_hex(4)
        with self._database.write() as connection:
            if (connection.scalar(select(func.count()).select_from(table)) or 0) >= AT_MOST:
                raise UsageError(f"there are {AT_MOST} schedules already; remove one first")
            connection.execute(table.insert().values(id=id_, created_at=now, created_by=actor.name, **values))
            row = self._row(connection, id_)
            audit.record(connection, actor, "schedule.add", f"schedule/{id_}", now=now, after=_picture(row))
        self.changed()
        return _out(row, now)

    def change(self, actor: Actor, id_: str, changes: Mapping[str, Any]) -> ScheduleOut:
        """Change fields of `Wanted`. Raises NotFoundError, UsageError, ForbiddenError."""
        actor.need("runs")
        now = self._now()
        with self._database.write() as connection:
            before = self._row(connection, id_)
            wanted = msgspec.structs.replace(_wanted(before), **changes)
            values = _values(wanted, now)
            same = {"cron", "timezone", "quiet", "enabled"}.isdisjoint(changes)
            if same and before["next_at"] is not None:
                values["next_at"] = before["next_at"]  # what is due stays due
            connection.execute(table.update().where(table.c.id == id_).values(**values))
            row = self._row(connection, id_)
            audit.record(
                connection,
                actor,
                "schedule.change",
                f"schedule/{id_}",
                now=now,
                before=_picture(before),
                after=_picture(row),
            )
        self.changed()
        return _out(row, now)

    def remove(self, actor: Actor, id_: str) -> None:
        """Raises NotFoundError, ForbiddenError."""
        actor.need("runs")
        now = self._now()
        with self._database.write() as connection:
            row = self._row(connection, id_)
            connection.execute(table.delete().where(table.c.id == id_))
            before = _picture(row)
            audit.record(connection, actor, "schedule.remove", f"schedule/{id_}", now=now, before=before)

    def _row(self, connection: Connection, id_: str) -> dict[str, Any]:
        found = rows(connection, select(table).where(table.c.id == id_))
        if not found:
            raise NotFoundError(f"no schedule {id_[:16]!r} here; GET /api/schedules lists them")
        return found[0]


def timing_of(row: Mapping[str, Any]) -> Timing:
    """The times of a row, checked once more: a time zone may have gone with the system's data."""
    return timing(row["cron"], row["timezone"], json.loads(row["quiet"]))


def _wanted(row: Mapping[str, Any]) -> Wanted:
    return Wanted(
        name=row["name"],
        cron=row["cron"],
        timezone=row["timezone"],
        quiet=json.loads(row["quiet"]),
        spec=msgspec.json.decode(row["spec"], type=RunSpec),
        devices=None if row["devices"] is None else json.loads(row["devices"]),
        tag=row["tag"],
        enabled=row["enabled"],
    )


def _values(wanted: Wanted, now: float) -> dict[str, Any]:
    """The columns of what is wanted. Raises UsageError."""
    if not wanted.name.strip():
        raise UsageError("name: give the schedule one")
    if wanted.devices is not None and wanted.tag is not None:
        raise UsageError("give either devices or a tag, not both")
    when = timing(wanted.cron, wanted.timezone, wanted.quiet)
    due = next_time(when, now)
    return {
        "name": wanted.name,
        "cron": wanted.cron,
        "timezone": wanted.timezone,
        "quiet": json.dumps(list(wanted.quiet)),
        "spec": msgspec.json.encode(wanted.spec).decode(),
        "devices": None if wanted.devices is None else json.dumps(sorted(set(wanted.devices))),
        "tag": wanted.tag,
        "enabled": wanted.enabled,
        "next_at": due if wanted.enabled else None,
    }


def _picture(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit keeps of a row."""
    names = ("name", "cron", "timezone", "tag", "enabled")
    parsed = {
        name: None if row[name] is None else json.loads(row[name]) for name in ("quiet", "spec", "devices")
    }
    return {name: row[name] for name in names} | parsed


def _out(row: Mapping[str, Any], now: float) -> ScheduleOut:
    shown: list[float] = []
    if row["enabled"]:
        try:
            shown = following(timing_of(row), now, SHOWN)
        except UsageError:
            shown = []  # the next look at it by the leader says what is wrong
    return ScheduleOut(
        id=row["id"],
        name=row["name"],
        cron=row["cron"],
        timezone=row["timezone"],
        quiet=json.loads(row["quiet"]),
        spec=json.loads(row["spec"]),
        devices=None if row["devices"] is None else json.loads(row["devices"]),
        tag=row["tag"],
        enabled=row["enabled"],
        created_at=at(row["created_at"]),
        created_by=row["created_by"],
        next_at=moment(row["next_at"]),
        following=[at(each) for each in shown],
        last_at=moment(row["last_at"]),
        last_run=row["last_run"],
        last_outcome=row["last_outcome"],
    )
