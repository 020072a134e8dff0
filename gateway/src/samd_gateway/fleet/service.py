"""The fleet as people work with it: pages, tags, saved views, and actions on many devices.

Each change takes an actor and is audited in its own transaction.
"""

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
from samd_gateway.dispatch import Dispatch
from samd_gateway.errors import ForbiddenError, NotFoundError, UsageError
from samd_gateway.fleet import table as pages
from samd_gateway.fleet.actions import Action, Configure, Retag, command_of, name_of, problem
from samd_gateway.fleet.answers import FleetPage, PlannedOut, PlanOut, ViewOut
from samd_gateway.fleet.configuration import Configurator
from samd_gateway.fleet.query import FleetQuery
from samd_gateway.queries import rows
from samd_gateway.schema import Database
from samd_gateway.states import DeviceState

AT_MOST_DEVICES = 20_000
AT_MOST_VIEWS = 200
NOTHING: Mapping[str, int] = {}


class Fleet:
    """One for each gateway. Raises GatewayError of the kind that fits."""

    def __init__(
        self,
        database: Database,
        dispatch: Dispatch,
        configurator: Configurator,
        *,
        states: Callable[[], Mapping[str, DeviceState]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._dispatch = dispatch
        self._configurator = configurator
        self._states = states
        self._now = now

    def page(self, query: FleetQuery) -> FleetPage:
        """One page of the devices that match."""
        with self._database.read() as connection:
            return pages.page(connection, query, self._states(), self._now())

    def matching(self, query: FleetQuery) -> list[str]:
        """The names of all that match."""
        with self._database.read() as connection:
            return pages.names(connection, query, self._states(), self._now())

    # tags

    def tags(self) -> dict[str, int]:
        """Each tag with the number of its devices."""
        table = schema.tags
        query = select(table.c.tag, func.count()).group_by(table.c.tag).order_by(table.c.tag)
        with self._database.read() as connection:
            return {tag: count for tag, count in connection.execute(query).tuples()}  # noqa: C416 - typed

    def retag(self, actor: Actor, devices: Sequence[str], action: Retag) -> int:
        """Add and remove tags of devices; returns how many pairs came or went."""
        actor.need("fleet")
        known = self._known(devices)
        with self._database.write() as connection:
            changed = self._retag(connection, known, action)
            self._audit(connection, actor, action, known)
        return changed

    def _retag(self, connection: Connection, devices: Sequence[str], action: Retag) -> int:
        table = schema.tags
        pairs = {
            (device, tag)
            for device, tag in connection.execute(select(table.c.device, table.c.tag))
            if tag in {*action.add, *action.remove}
        }
        wanted = {(device, tag) for device in devices for tag in action.add} - {
            (device, tag) for device in devices for tag in action.remove
        }
        new = sorted(wanted - pairs)
        if new:
            connection.execute(table.insert(), [{"device": device, "tag": tag} for device, tag in new])
        gone = pairs & {(device, tag) for device in devices for tag in action.remove}
        for tag in action.remove:
            mine = [device for device, each in gone if each == tag]
            connection.execute(table.delete().where(table.c.tag == tag, table.c.device.in_(mine)))
        return len(new) + len(gone)

    # saved views

    def views(self, actor: Actor) -> list[ViewOut]:
        """The actor's own and the shared ones, by name."""
        table = schema.views
        query = select(table).where((table.c.owner == actor.name) | table.c.shared).order_by(table.c.name)
        with self._database.read() as connection:
            return [_view(row) for row in rows(connection, query)]

    def save_view(self, actor: Actor, name: str, query: FleetQuery, *, shared: bool) -> ViewOut:
        """Keep a filter under a name; the actor's own of that name is replaced."""
        actor.need("fleet" if shared else "read")
        if not 1 <= len(name) <= 120 or not name.isprintable():
            raise UsageError("name: 1 to 120 characters on one line")
        kept = msgspec.to_builtins(msgspec.structs.replace(query, after=None))
        table = schema.views
        row: dict[str, Any] = {
            "id": secrets.token_hex(8),
            "name": name,
            "owner": actor.name,
            "shared": shared,
            "query": json.dumps(kept),
            "created_at": self._now(),
        }
        with self._database.write() as connection:
            mine = (table.c.owner == actor.name) & (table.c.name == name)
            before = next(iter(rows(connection, select(table).where(mine))), None)
            if before is None:
                count = connection.scalar(
                    select(func.count()).select_from(table).where(table.c.owner == actor.name)
                )
                if (count or 0) >= AT_MOST_VIEWS:
                    raise UsageError(f"{AT_MOST_VIEWS} views are kept at most; delete one first")
            connection.execute(table.delete().where(mine))
            connection.execute(table.insert().values(row))
            audit.record(
                connection,
                actor,
                "view.save",
                f"view/{row['id']}",
                now=self._now(),
                before=None if before is None else _view(before).model_dump(),
                after=_view(row).model_dump(),
            )
        return _view(row)

    def delete_view(self, actor: Actor, view: str) -> None:
        """Forget a filter: one's own, or as an admin any."""
        table = schema.views
        with self._database.write() as connection:
            row = next(iter(rows(connection, select(table).where(table.c.id == view))), None)
            if row is None:
                raise NotFoundError(f"no view {view[:16]!r} here")
            if row["owner"] != actor.name and not actor.may("settings"):
                raise ForbiddenError(f"this view is {row['owner']}'s; only they or an admin may delete it")
            connection.execute(table.delete().where(table.c.id == view))
            audit.record(
                connection,
                actor,
                "view.delete",
                f"view/{view}",
                now=self._now(),
                before=_view(row).model_dump(),
            )

    # many devices at once

    def plan(self, action: Action, devices: Sequence[str]) -> PlanOut:
        """What the action would do, device by device; nothing is done."""
        states = self._states()
        known = self._known(devices)
        planned = [
            PlannedOut(device=name, state=states[name].state, problem=problem(action, states[name]))
            for name in known
        ]
        return PlanOut(
            action=name_of(action),
            devices=planned,
            reachable=sum(each.problem is None for each in planned),
        )

    def execute(self, actor: Actor, action: Action, devices: Sequence[str], ttl_s: float = 300.0) -> str:
        """Do it; returns the id of the job, whose results come in as the devices answer."""
        actor.need("fleet")
        known = self._known(devices)
        job = secrets.token_hex(8)

        def write(
            connection: Connection, commands: Mapping[str, str], versions: Mapping[str, int] = NOTHING
        ) -> None:
            connection.execute(
                schema.jobs.insert().values(
                    id=job,
                    action=name_of(action),
                    body=msgspec.json.encode(action).decode(),
                    actor=actor.name,
                    created_at=self._now(),
                    devices=len(known),
                )
            )
            connection.execute(
                schema.job_devices.insert(),
                [
                    {
                        "job": job,
                        "device": name,
                        "command": commands.get(name),
                        "version": versions.get(name),
                    }
                    for name in known
                ],
            )
            self._audit(connection, actor, action, known, job)

        body = command_of(action)
        if body is not None:
            self._dispatch.send(dict.fromkeys(known, body), ttl_s, also=write)
            return job
        if isinstance(action, Configure):
            self._configurator.configure(
                action, known, also=lambda connection, versions: write(connection, {}, versions)
            )
            return job
        assert isinstance(action, Retag)  # noqa: S101 - nothing else sends no command
        with self._database.write() as connection:
            self._retag(connection, known, action)
            write(connection, {})
        return job

    def _audit(
        self,
        connection: Connection,
        actor: Actor,
        action: Action,
        devices: Sequence[str],
        job: str | None = None,
    ) -> None:
        target = f"device/{devices[0]}" if len(devices) == 1 else f"job/{job or 'tags'}"
        audit.record(
            connection,
            actor,
            f"fleet.{name_of(action)}",
            target,
            now=self._now(),
            after=msgspec.to_builtins(action) | {"devices": list(devices)},
        )

    def _known(self, devices: Sequence[str]) -> list[str]:
        """The devices, each once, sorted. Raises UsageError, NotFoundError."""
        names = sorted(set(devices))
        if not names:
            raise UsageError("devices: name at least one")
        if len(names) > AT_MOST_DEVICES:
            raise UsageError(f"devices: {AT_MOST_DEVICES} at most at once")
        states = self._states()
        unknown = [name for name in names if name not in states]
        if unknown:
            raise NotFoundError(
                f"no device {unknown[0][:64]!r} is known here"
                + (f", nor {len(unknown) - 1} more of those named" if len(unknown) > 1 else "")
                + "; GET /api/fleet lists them"
            )
        return names


def _view(row: Mapping[str, Any]) -> ViewOut:
    return ViewOut(
        id=row["id"],
        name=row["name"],
        owner=row["owner"],
        shared=row["shared"],
        query=json.loads(row["query"]),
    )
