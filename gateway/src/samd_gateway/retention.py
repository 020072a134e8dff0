"""How long what is kept: the setting `retention`, what goes by it, and the thread that sees to it.

Rows go in small transactions with a pause after each, so that what comes over the wire never waits long.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, func, select
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import schema, settings
from samd_gateway.access.actor import Actor
from samd_gateway.downsample import HOUR_S, SPAN_S, delete_keys, fold_assessments, fold_health, hour_of
from samd_gateway.schema import Database

log = logging.getLogger(__name__)

KEY = "retention"
DAY_S = 86_400.0
BATCH_ROWS = 2000
BATCH_DEVICES = 500
EVERY_S = 600.0
LONGEST_PAUSE_S = 1.0
SLACK = 0.2
"""Of a SQLite file so much may be free; ingest fills it again."""
GIVEN_BACK_PAGES = 2000

Days = Annotated[int, msgspec.Meta(ge=2, le=36_500)]
"""Two at the least: an assessment may wait in an outbox for one, and must not come twice."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Days that rows are kept; null is for ever. What becomes hours is counted there before it goes."""

    messages_days: Days = 30
    assessments_days: Days = 30
    assessment_hours_days: Days | None = 400
    alerts_days: Days | None = None
    health_days: Days = 7
    health_hours_days: Days | None = 90
    commands_days: Days = 30
    audit_days: Days | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of rows that go. `count` of those due; `step` takes a batch of them, and says how many."""

    name: str
    count: Callable[[Connection], int]
    step: Callable[[Connection], int]


def get(connection: Connection) -> Retention:
    """What is set, or the default."""
    return settings.get(connection, KEY, Retention())


def put(connection: Connection, value: Retention, *, actor: Actor, now: float) -> None:
    """Set, audited. Raises UsageError."""
    settings.put(connection, KEY, value, Retention(), actor=actor, now=now)


# what goes


def rules(retention: Retention, now: float) -> list[Rule]:
    """Every rule that is in force, those first that others rest on."""
    before: dict[str, Any] = {
        name: None if days is None else now - days * DAY_S
        for name, days in msgspec.structs.asdict(retention).items()
    }
    messages, commands, alerts = schema.messages, schema.commands, schema.alerts
    hour = hour_of(before["assessments_days"])  # whole hours move, as far as they are complete
    assessments = (messages.c.kind == "assessment") & (messages.c.received_at < hour)
    fine = (schema.health.c.span_s == SPAN_S) & (schema.health.c.at < hour_of(before["health_days"]))
    found = [
        Rule(
            name="assessments into hours",
            count=lambda connection: _count(connection, messages, assessments),
            step=lambda connection: fold_assessments(connection, hour, BATCH_ROWS),
        ),
        Rule(
            name="health into hours",
            count=lambda connection: _count(connection, schema.health, fine),
            step=lambda connection: fold_health(connection, before["health_days"], BATCH_DEVICES),
        ),
        _kinds(before["messages_days"], ("assessment", "alert")),
        _simple(
            "commands",
            commands,
            commands.c.issued_at < before["commands_days"],
            commands.c.id.not_in(select(schema.participants.c.command)),
        ),
        _simple("bulk actions", schema.jobs, schema.jobs.c.created_at < before["commands_days"]),
        _simple(
            "devices of bulk actions",
            schema.job_devices,
            schema.job_devices.c.job.not_in(select(schema.jobs.c.id)),
        ),
        _simple("sessions", schema.sessions, schema.sessions.c.expires_at < now - DAY_S),
    ]
    if (limit := before["assessment_hours_days"]) is not None:
        table = schema.assessment_hours
        found.append(_simple("hours of assessments", table, table.c.hour < limit))
    if (limit := before["health_hours_days"]) is not None:
        table = schema.health
        found.append(_simple("hours of health", table, table.c.span_s == HOUR_S, table.c.at < limit))
    if (limit := before["alerts_days"]) is not None:
        found.append(_simple("alerts", alerts, alerts.c.state == "cleared", alerts.c.changed_at < limit))
        for name, table in (
            ("changes of alerts", schema.alert_changes),
            ("notifications", schema.notifications),
        ):
            found.append(_simple(name, table, table.c.alert.not_in(select(alerts.c.id))))
        found.append(
            _simple(
                "messages of alerts", messages, messages.c.kind == "alert", messages.c.received_at < limit
            )
        )
    if (limit := before["audit_days"]) is not None:
        found.append(_simple("audit", schema.audit, schema.audit.c.at < limit))
    return found


def _simple(name: str, table: Table, *conditions: ColumnElement[bool]) -> Rule:
    keys = list(table.primary_key)

    def step(connection: Connection) -> int:
        query = select(*keys).where(*conditions).limit(BATCH_ROWS)
        rows = connection.execute(query).all()
        if rows:
            delete_keys(connection, table, rows)
        return len(rows)

    return Rule(name=name, count=lambda connection: _count(connection, table, *conditions), step=step)


def _kinds(before: float, kept: Sequence[str]) -> Rule:
    """Messages but those of the kinds `kept`; kind by kind, as the index lies."""
    table = schema.messages

    def step(connection: Connection) -> int:
        for kind in _every_kind(connection):
            if kind not in kept:
                conditions = (table.c.kind == kind, table.c.received_at < before)
                if done := _simple("messages", table, *conditions).step(connection):
                    return done
        return 0

    def count(connection: Connection) -> int:
        return _count(connection, table, table.c.kind.not_in(kept), table.c.received_at < before)

    return Rule(name="messages", count=count, step=step)


def _every_kind(connection: Connection) -> Iterator[str]:
    """Each kind of message there is: a look into the index for each, instead of at every row."""
    column = schema.messages.c.kind
    kind = connection.scalar(select(func.min(column)))
    while kind is not None:
        yield kind
        kind = connection.scalar(select(func.min(column)).where(column > kind))


def _count(connection: Connection, table: Table, *conditions: ColumnElement[bool]) -> int:
    return connection.scalar(select(func.count()).select_from(table).where(*conditions)) or 0


# doing it


def preview(connection: Connection, now: float) -> dict[str, int]:
    """How many rows would go now, by rule."""
    return {rule.name: rule.count(connection) for rule in rules(get(connection), now)}


def prune(
    database: Database,
    now: float,
    *,
    stop: Callable[[], bool] = lambda: False,
    pause: Callable[[float], Any] = time.sleep,
) -> tuple[dict[str, int], bool]:
    """Take what is due, until nothing is left or `stop` says so; how many rows by rule, and whether all."""
    with database.read() as connection:
        due = rules(get(connection), now)
    taken = {rule.name: 0 for rule in due}
    for rule in due:
        while not stop():
            began = time.perf_counter()
            with database.write() as connection:
                rows = rule.step(connection)
            if not rows:
                break
            taken[rule.name] += rows
            # as long as others had to wait, so that they get half of the time
            pause(min(time.perf_counter() - began, LONGEST_PAUSE_S))
    _give_back(database, stop, pause)
    return taken, not stop()


def _give_back(database: Database, stop: Callable[[], bool], pause: Callable[[float], Any]) -> None:
    """Free pages at the end of a SQLite file go back to the file system; PostgreSQL sees to that itself."""
    if database.engine.dialect.name != "sqlite":
        return
    while not stop():
        began = time.perf_counter()
        with database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            if free < max(GIVEN_BACK_PAGES, pages * SLACK):
                return
            raw: Any = connection.connection.driver_connection  # each page is a row to its driver
            raw.execute(f"PRAGMA incremental_vacuum({GIVEN_BACK_PAGES})").fetchall()
            if connection.exec_driver_sql("PRAGMA freelist_count").scalar_one() >= free:
                return  # a file of the first release, whose free pages are used again and stay
        pause(min(time.perf_counter() - began, LONGEST_PAUSE_S))


class Keeper:
    """Prunes every ten minutes, where `leading` says that this gateway is the one to do so."""

    def __init__(
        self,
        database: Database,
        *,
        leading: Callable[[], bool],
        now: Callable[[], float] = time.time,
        every_s: float = EVERY_S,
    ) -> None:
        self._database = database
        self._leading = leading
        self._now = now
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The transaction that is going on ends first."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def prune(self, *, most_s: float) -> tuple[dict[str, int], bool]:
        """Prune now, for at most about so long; what was taken, and whether nothing is left."""
        ends = time.monotonic() + most_s
        taken, complete = prune(
            self._database,
            self._now(),
            stop=lambda: self._stopping.is_set() or time.monotonic() > ends,
            pause=self._stopping.wait,
        )
        self._note(taken)
        return taken, complete

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                if self._leading():
                    taken, _ = prune(
                        self._database,
                        self._now(),
                        stop=lambda: self._stopping.is_set() or not self._leading(),
                        pause=self._stopping.wait,
                    )
                    self._note(taken)
            except SQLAlchemyError as error:
                log.warning("old rows stay for now: the database cannot be used (%s)", type(error).__name__)

    def _note(self, taken: Mapping[str, int]) -> None:
        rows = {name: count for name, count in taken.items() if count}
        if rows:
            self._database.set_meta("pruned", {"at": self._now(), "rows": rows})
            log.info("retention: %s", ", ".join(f"{count} {name}" for name, count in rows.items()))
