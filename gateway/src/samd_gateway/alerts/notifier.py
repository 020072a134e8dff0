"""Delivers what stands in the outbox, on the gateway that leads: again and again, until it was taken over.

Each channel is served by itself, so that one that hangs holds up no other. A notice is claimed before it is
sent, so that two gateways never send it at the same time, and marked once it is delivered. Between the two a
gateway may be killed: then the notice is sent a second time, under the same key, by which the receiver knows
it. There is no way to do better over a network.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import schema
from samd_gateway.alerts.channel import Channel, channels
from samd_gateway.alerts.delivery import DeliveryError, Notice, Sender
from samd_gateway.alerts.outbox import key_of
from samd_gateway.queries import rows
from samd_gateway.schema import Database

log = logging.getLogger(__name__)

LOOK_S = 1.0
RETRY_S = (5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)
"""How long after a failed attempt the next one is due; the last one again and again."""
GIVE_UP_S = 3 * 86_400.0
AT_ONCE = 20
"""So many notices are sent to one channel before the others are looked at again."""
TABLE = schema.notifications


def retry_in_s(attempts: int, asked_s: float | None = None) -> float:
    """Seconds until the next attempt after so many; later where the receiver asked for it."""
    return max(RETRY_S[min(attempts, len(RETRY_S)) - 1], asked_s or 0.0)


def claim_s(timeout_s: float) -> float:
    """How long an attempt may take until the notice counts as not sent: connect, hand over, and answer each
    have their time-out."""
    return 4 * timeout_s + 2.0


class Notifier:
    """The worker. `senders` are by the kind of the channel."""

    def __init__(
        self,
        database: Database,
        senders: Mapping[str, Sender],
        *,
        leading: Callable[[], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._senders = senders
        self._leading = leading
        self._now = now
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._serving: dict[str, threading.Thread] = {}
        self._thread = threading.Thread(target=self._run, name="notifications", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def poke(self) -> None:
        """Something may have been put into the outbox."""
        self._wake.set()

    def stop(self) -> None:
        """End; what is being sent at this moment is sent again later, under the same key."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)
        with self._lock:
            serving = list(self._serving.values())
        for thread in serving:
            thread.join(1.0)

    def try_now(self, channel: Channel, notice: Notice) -> str | None:
        """One attempt outside of the outbox; returns a remark, if there is one. Raises DeliveryError."""
        try:
            return self._senders[channel.kind].send(channel, notice)
        except DeliveryError:
            raise
        except Exception as error:
            # the last net: whatever a receiver does, its notice is tried again and the others go on
            log.exception("channel %s: an error of this program", channel.name)
            raise DeliveryError(f"an error of this program ({type(error).__name__})") from error

    # the threads

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(LOOK_S)
            self._wake.clear()
            if self._stopping.is_set() or not self._leading():
                continue
            try:
                self._look()
            except SQLAlchemyError as error:
                log.error("notifications cannot be read (%s); trying again", type(error).__name__)

    def _look(self) -> None:
        now = self._now()
        due = select(TABLE.c.channel).where(TABLE.c.state == "pending", TABLE.c.next_at <= now).distinct()
        with self._database.read() as connection:
            names = set(connection.scalars(due))
            known = {channel.name: channel for channel in channels(connection)} if names else {}
        for name in sorted(names - set(known)):
            self._forget(name)
        for name in sorted(names & set(known)):
            with self._lock:
                if name in self._serving:
                    continue
                thread = threading.Thread(
                    target=self._serve, args=(known[name],), name=f"notify {name}", daemon=True
                )
                self._serving[name] = thread
                thread.start()

    def _serve(self, channel: Channel) -> None:
        try:
            for _ in range(AT_ONCE):
                if self._stopping.is_set() or not self._leading() or not self._one(channel):
                    return
            self._wake.set()
        except SQLAlchemyError as error:
            log.error("a notification cannot be marked (%s); it is told again", type(error).__name__)
        finally:
            with self._lock:
                self._serving.pop(channel.name, None)

    def _one(self, channel: Channel) -> bool:
        """One attempt at the oldest notice that is due; False when there is none, or it failed."""
        row = self._claim(channel)
        if row is None:
            return False
        notice = Notice(
            id=row["id"],
            key=key_of(row["alert"], row["event"], row["channel"]),
            body=row["body"].encode(),
        )
        try:
            remark = self.try_now(channel, notice)
        except DeliveryError as error:
            self._failed(row, channel, error)
            return False
        self._delivered(row, remark)
        return True

    def _claim(self, channel: Channel) -> dict[str, Any] | None:
        now = self._now()
        query = (
            select(TABLE)
            .where(TABLE.c.channel == channel.name, TABLE.c.state == "pending", TABLE.c.next_at <= now)
            .order_by(TABLE.c.id)
            .limit(1)
        )
        with self._database.write() as connection:
            row = next(iter(rows(connection, query)), None)
            if row is None:
                return None
            mine = connection.execute(
                TABLE.update()
                .where(
                    TABLE.c.id == row["id"],
                    TABLE.c.state == "pending",
                    TABLE.c.attempts == row["attempts"],
                    TABLE.c.next_at == row["next_at"],
                )
                .values(attempts=row["attempts"] + 1, next_at=now + claim_s(channel.config.timeout_s))
            )
            return row | {"attempts": row["attempts"] + 1} if mine.rowcount == 1 else None

    def _delivered(self, row: Mapping[str, Any], remark: str | None) -> None:
        now = self._now()
        if remark is not None:
            log.warning("channel %s: %s", row["channel"], remark)
        with self._database.write() as connection:
            connection.execute(
                TABLE.update()
                .where(TABLE.c.id == row["id"])
                .values(state="delivered", delivered_at=now, error=remark)
            )
            # the channel works: what failed before need not wait any longer
            connection.execute(
                TABLE.update()
                .where(
                    TABLE.c.channel == row["channel"],
                    TABLE.c.state == "pending",
                    TABLE.c.error.is_not(None),
                    TABLE.c.next_at > now,
                )
                .values(next_at=now)
            )

    def _failed(self, row: Mapping[str, Any], channel: Channel, error: DeliveryError) -> None:
        now = self._now()
        over = now - row["created_at"] >= GIVE_UP_S
        values: dict[str, Any] = {
            "error": str(error)[:300],
            "state": "given-up" if over else "pending",
            "next_at": now + retry_in_s(row["attempts"], error.retry_after_s),
        }
        with self._database.write() as connection:
            connection.execute(TABLE.update().where(TABLE.c.id == row["id"]).values(**values))
        level = logging.ERROR if over else logging.WARNING
        log.log(
            level,
            "channel %s: attempt %d of a notification failed: %s%s",
            channel.name,
            row["attempts"],
            error,
            "; given up" if over else "",
        )

    def _forget(self, name: str) -> None:
        with self._database.write() as connection:
            connection.execute(
                TABLE.update()
                .where(TABLE.c.channel == name, TABLE.c.state == "pending")
                .values(state="given-up", error="the channel was removed")
            )


def encoded(content: Mapping[str, Any]) -> bytes:
    """A body as it stands in the outbox."""
    return msgspec.json.encode(content)
