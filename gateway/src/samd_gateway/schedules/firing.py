"""Begins the runs that are due, on the gateway that leads.

That a schedule was due and the run that it began are written in one transaction, which first makes sure that
nobody else was faster: killed at any point, it is begun once by whoever leads then, or it shows why not.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import schema
from samd_gateway.access.actor import Actor
from samd_gateway.errors import ConflictError, GatewayError, UnavailableError, UsageError
from samd_gateway.queries import rows
from samd_gateway.schedules.service import timing_of
from samd_gateway.schedules.times import next_time
from samd_gateway.schema import Database
from samd_protocol.messages import RunSpec

log = logging.getLogger(__name__)

GRACE_S = 900.0
"""A run that could not begin for so long (no gateway, no broker) is not begun any more."""
PATIENCE_S = 120.0
"""So long it waits for devices and the server to come online: after a restart none is yet."""
LOOK_S = 5.0
AGAIN_S = 1.0

table = schema.schedules


class Begin(Protocol):
    """What `Coordinator.begin` is."""

    def __call__(
        self,
        spec: RunSpec,
        devices: Sequence[str] | None,
        actor: Actor,
        *,
        also: Callable[[Connection, str], None] | None = None,
    ) -> str: ...


class GoneError(Exception):
    """Another gateway was faster, or the schedule was changed at this moment."""


class Firing:
    """The thread. `step` is one look."""

    def __init__(
        self,
        database: Database,
        begin: Begin,
        *,
        online: Callable[[], Mapping[str, str]],
        leading: Callable[[], bool],
        now: Callable[[], float] = time.time,
        look_s: float = LOOK_S,
    ) -> None:
        """`online` gives each known device's derived state."""
        self._database = database
        self._begin = begin
        self._online = online
        self._leading = leading
        self._now = now
        self._look_s = look_s
        self._tried: dict[tuple[str, float], float] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="schedules", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(5.0)

    def poke(self) -> None:
        """A schedule was changed."""
        self._wake.set()

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if self._stopping:
                return
            wait_s = self._look_s
            if self._leading():
                try:
                    wait_s = self.step()
                except SQLAlchemyError as error:
                    log.error("schedules: the database cannot be used (%s)", type(error).__name__)
            self._wake.wait(min(max(wait_s, 0.01), self._look_s))

    def step(self) -> float:
        """Begin what is due; returns the seconds until the next is."""
        now = self._now()
        with self._database.read() as connection:
            due = rows(
                connection,
                select(table)
                .where(table.c.enabled, table.c.next_at <= now)
                .order_by(table.c.next_at, table.c.id),
            )
        for row in due:
            if self._fire(row, now):
                break  # there is one run at a time: who was due first begins first
        keys = {(row["id"], row["next_at"]) for row in due}
        self._tried = {key: at for key, at in self._tried.items() if key in keys}
        with self._database.read() as connection:
            soonest = connection.scalar(
                select(table.c.next_at)
                .where(table.c.enabled, table.c.next_at > now)
                .order_by(table.c.next_at)
            )
        wait_s = self._look_s if soonest is None else float(soonest) - self._now()
        return min(wait_s, AGAIN_S) if due else wait_s

    def _fire(self, row: Mapping[str, Any], now: float) -> bool:
        """Whether it waits."""
        late = now - row["next_at"] > GRACE_S
        if late:
            waited = row["last_outcome"] or ""
            why = waited if waited.startswith("waiting: ") else "no gateway was there to begin it"
            self._note(row, now, f"missed: {why.removeprefix('waiting: ')}")
            return False
        spec = msgspec.json.decode(row["spec"], type=RunSpec)

        def claim(connection: Connection, run: str) -> None:
            self._advance(connection, row, now, last_run=run, last_outcome="started")

        try:
            devices = self._devices(row)
            actor = Actor(name=f"schedule:{row['id']}", role="operator", via="system")
            run = self._begin(spec, devices, actor, also=claim)
        except GoneError:
            return False
        except UnavailableError as error:
            self._wait(row, str(error))
            return True
        except ConflictError as error:
            first = self._tried.setdefault((row["id"], row["next_at"]), now)
            if not error.extra and 0.0 <= now - first < PATIENCE_S:
                self._wait(row, str(error))
                return True
            self._note(row, now, f"not started: {error}")
        except GatewayError as error:
            self._note(row, now, f"not started: {error}")
        else:
            log.info("schedule %s began %s", row["id"], run)
        return False

    def _devices(self, row: Mapping[str, Any]) -> list[str] | None:
        if row["devices"] is not None:
            named: list[str] = json.loads(row["devices"])
            return named
        if row["tag"] is None:
            return None
        tags = schema.tags
        with self._database.read() as connection:
            tagged = list(connection.scalars(select(tags.c.device).where(tags.c.tag == row["tag"])))
        states = self._online()
        found = sorted(device for device in tagged if states.get(device) == "online")
        if not found:
            raise ConflictError(f"no device with the tag {row['tag']!r} is online")
        return found

    def _advance(self, connection: Connection, row: Mapping[str, Any], now: float, **values: Any) -> None:
        """On to the next time, if nobody else has done so."""
        try:
            following: float | None = next_time(timing_of(row), now)
        except UsageError as error:
            following = None
            values["last_outcome"] = f"{values['last_outcome']}; not due again: {error}"
        found = connection.execute(
            table.update()
            .where(table.c.id == row["id"], table.c.enabled, table.c.next_at == row["next_at"])
            .values(next_at=following, last_at=row["next_at"], **values)
        )
        if found.rowcount != 1:
            raise GoneError

    def _note(self, row: Mapping[str, Any], now: float, outcome: str) -> None:
        log.warning("schedule %s: %s", row["id"], outcome)
        try:
            with self._database.write() as connection:
                self._advance(connection, row, now, last_run=None, last_outcome=outcome)
        except GoneError:
            return

    def _wait(self, row: Mapping[str, Any], why: str) -> None:
        """Still due: tried again until it is too late."""
        outcome = f"waiting: {why}"
        if row["last_outcome"] == outcome:
            return
        with self._database.write() as connection:
            connection.execute(
                table.update()
                .where(table.c.id == row["id"], table.c.next_at == row["next_at"])
                .values(last_outcome=outcome)
            )
