"""Channels kept, shown, removed and tried; each change is audited, and no secret is ever shown."""

import base64
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError

from samd_gateway import schema
from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.alerts.answers import ChannelOut, NotificationOut
from samd_gateway.alerts.channel import (
    SECRETS,
    Channel,
    Webhook,
    channels,
    of_row,
    parse,
    secret_path,
)
from samd_gateway.alerts.delivery import DeliveryError, Notice
from samd_gateway.alerts.notifier import Notifier, encoded
from samd_gateway.alerts.webhook import PREFIX
from samd_gateway.errors import ConflictError, NotFoundError, UnavailableError, UsageError
from samd_gateway.queries import at, moment, rows
from samd_gateway.schema import Database

AT_MOST = 100
TABLE = schema.channels
OUTBOX = schema.notifications


class ChannelDesk:
    """What people do about channels. `folder` is the gateway's own."""

    def __init__(
        self,
        database: Database,
        notifier: Notifier,
        folder: Path,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._folder = folder
        self._now = now

    def all(self) -> list[ChannelOut]:
        """Every channel, with what waits for it and whether it fails."""
        with self._database.read() as connection:
            return [_answer(connection, channel) for channel in channels(connection)]

    def get(self, name: str) -> ChannelOut:
        """One channel. Raises NotFoundError."""
        with self._database.read() as connection:
            return _answer(connection, _find(connection, name))

    def put(
        self,
        actor: Actor,
        name: str,
        *,
        kind: str,
        config: Mapping[str, Any],
        enabled: bool = True,
        min_severity: int = 0,
        step: int = 0,
        new: bool = False,
    ) -> ChannelOut:
        """Set a channel up, or change it; with `new` it must not be there yet. For a webhook whose key is not
        there one is drawn."""
        actor.need("settings")
        parsed = parse(name, kind, config)
        if not 0 <= min_severity <= 3 or not 0 <= step <= 8:
            raise UsageError("min_severity is 0 to 3, and step 0 to 8")
        if isinstance(parsed, Webhook):
            draw_key(self._folder, parsed.secret)
        now = self._now()
        values = {
            "kind": kind,
            "config": msgspec.json.encode(parsed).decode(),
            "enabled": enabled,
            "min_severity": min_severity,
            "step": step,
        }
        with self._database.write() as connection:
            before = next(iter(rows(connection, select(TABLE).where(TABLE.c.name == name))), None)
            if before is not None and new:
                raise ConflictError(f"channel {name} is there already; change it, or choose another name")
            count = connection.scalar(select(func.count()).select_from(TABLE)) or 0
            if before is None and count >= AT_MOST:
                raise ConflictError(f"there are {AT_MOST} channels already; remove one first")
            if before is None:
                try:
                    connection.execute(TABLE.insert().values(name=name, created_at=now, **values))
                except IntegrityError as error:
                    raise ConflictError(f"channel {name} was added by somebody else just now") from error
            else:
                connection.execute(TABLE.update().where(TABLE.c.name == name).values(**values))
            audit.record(
                connection,
                actor,
                "channel.add" if before is None else "channel.change",
                f"channel/{name}",
                now=now,
                before=None if before is None else {key: before[key] for key in values},
                after=values,
            )
            return _answer(connection, _find(connection, name))

    def remove(self, actor: Actor, name: str) -> None:
        """Remove a channel; what still waits for it is given up. Raises NotFoundError."""
        actor.need("settings")
        now = self._now()
        with self._database.write() as connection:
            channel = _find(connection, name)
            connection.execute(TABLE.delete().where(TABLE.c.name == name))
            connection.execute(
                OUTBOX.update()
                .where(OUTBOX.c.channel == name, OUTBOX.c.state == "pending")
                .values(state="given-up", error="the channel was removed")
            )
            audit.record(
                connection,
                actor,
                "channel.remove",
                f"channel/{name}",
                now=now,
                before={"kind": channel.kind, "config": msgspec.to_builtins(channel.config)},
            )

    def test(self, actor: Actor, name: str) -> str | None:
        """Send a notice that says that it is a test. Returns a remark, if there is one; raises
        UnavailableError with the reason when it cannot be delivered."""
        actor.need("settings")
        with self._database.read() as connection:
            channel = _find(connection, name)
        now = self._now()
        notice = Notice(
            id=0,
            key=f"msg_{secrets.token_hex(16)}",
            body=encoded(
                {
                    "type": "alert.test",
                    "timestamp": at(now).isoformat(),
                    "data": {
                        "alert": "test",
                        "device": "test",
                        "kind": "severity",
                        "state": "active",
                        "severity": 0,
                        "step": 0,
                        "acknowledged": False,
                        "raised_at": at(now).isoformat(),
                    },
                }
            ),
        )
        failed = None
        try:
            remark = self._notifier.try_now(channel, notice)
        except DeliveryError as error:
            failed, remark = error, None
        with self._database.write() as connection:
            after = {"delivered": failed is None, "error": None if failed is None else str(failed)[:300]}
            audit.record(connection, actor, "channel.test", f"channel/{name}", now=now, after=after)
        if failed is not None:
            raise UnavailableError(f"channel {name}: {failed}") from failed
        return remark

    def notifications(
        self, *, state: str | None = None, channel: str | None = None, limit: int = 100
    ) -> list[NotificationOut]:
        """What stands in the outbox, the latest first."""
        query = select(OUTBOX).order_by(OUTBOX.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(OUTBOX.c.state == state)
        if channel is not None:
            query = query.where(OUTBOX.c.channel == channel)
        with self._database.read() as connection:
            return [notification(row) for row in rows(connection, query)]


def draw_key(folder: Path, file: str) -> bool:
    """Write a key for a webhook where none is; whether one was written."""
    path = secret_path(folder, file)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = PREFIX + base64.b64encode(secrets.token_bytes(32)).decode() + "\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise UsageError(f"{SECRETS}/{file}: cannot be written ({error.strerror})") from error
    with os.fdopen(handle, "w") as written:
        written.write(text)
    return True


def of_alert(connection: Connection, alert: str) -> list[NotificationOut]:
    """Who was told of an alert, the oldest first."""
    query = select(OUTBOX).where(OUTBOX.c.alert == alert).order_by(OUTBOX.c.id).limit(1000)
    return [notification(row) for row in rows(connection, query)]


def notification(row: Mapping[str, Any]) -> NotificationOut:
    """A row of the outbox as the API shows it."""
    return NotificationOut(
        id=row["id"],
        alert=row["alert"],
        event=row["event"],
        channel=row["channel"],
        state=row["state"],
        attempts=row["attempts"],
        created_at=at(row["created_at"]),
        next_at=at(row["next_at"]) if row["state"] == "pending" else None,
        delivered_at=moment(row["delivered_at"]),
        error=row["error"],
    )


def _find(connection: Connection, name: str) -> Channel:
    row = next(iter(rows(connection, select(TABLE).where(TABLE.c.name == name))), None)
    if row is None:
        raise NotFoundError(f"no channel {name[:64]!r} here; GET /api/channels lists them")
    return of_row(row)


def _answer(connection: Connection, channel: Channel) -> ChannelOut:
    waiting = OUTBOX.c.channel == channel.name
    pending = connection.scalar(
        select(func.count()).select_from(OUTBOX).where(waiting, OUTBOX.c.state == "pending")
    )
    failing = connection.scalar(
        select(OUTBOX.c.error)
        .where(waiting, OUTBOX.c.state != "delivered", OUTBOX.c.error.is_not(None))
        .order_by(OUTBOX.c.id.desc())
        .limit(1)
    )
    return ChannelOut(
        name=channel.name,
        kind=channel.kind,
        enabled=channel.enabled,
        min_severity=channel.min_severity,
        step=channel.step,
        config=msgspec.to_builtins(channel.config),
        created_at=at(channel.created_at),
        pending=int(pending or 0),
        failing=failing,
    )
