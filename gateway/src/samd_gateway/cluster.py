"""Which gateways share a database, and which of them leads.

A gateway says every second that it is alive (table `gateways`), and the leader renews its lease (table
`leaders`). A lease that is not renewed ends, and another gateway takes it: what one alone may do (runs,
schedules, the ladder of alerts, notifications, retention) asks `leading` first. The leader itself believes in
its lease only until a moment before it ends, by a clock that nobody sets, so that there are never two.

On a database of its own, in its locked data folder, a gateway is alone and leads for as long as it runs.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from samd_gateway import schema
from samd_gateway.errors import UsageError
from samd_gateway.schema import Database
from samd_protocol.topics import valid_name

log = logging.getLogger(__name__)

LEADER = "gateway"
LEASE_S = 5.0
MARGIN_S = 1.0
"""The leader stops so long before its lease ends: what it has begun by then is finished under it."""
RENEW_S = 1.0
ALONE_RENEW_S = 2.0


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway on the database, as of its last sign of life."""

    name: str
    instance: str
    version: str
    address: str | None
    started_at: float
    seen_at: float
    live: bool
    leading: bool


def check_share(share: str | None, database_url: str | None) -> None:
    """Raises UsageError for a group whose gateways could not share."""
    if share is None:
        return
    if not valid_name(share):
        raise UsageError(f"--share {share!r}: use letters, digits, dots, dashes and underscores")
    if database_url is None:
        raise UsageError(
            "--share: gateways that share messages need one database; name it by SAMD_DATABASE_URL, such as "
            "postgresql+psycopg://USER@HOST/NAME"
        )


def clock(connection: Connection, now: float) -> float:
    """The one clock of all who share the database: its own, or this machine's for a file on it."""
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or now)
    return now


def live(seen_at: float, now: float) -> bool:
    """Whether a sign of life is recent; one from the future is of a clock that was set back."""
    return abs(now - seen_at) < LEASE_S


def members(connection: Connection, now: float) -> list[Member]:
    """Every gateway that was ever on the database, by name."""
    at = clock(connection, now)
    lease = _lease(connection)
    rows = connection.execute(select(schema.gateways).order_by(schema.gateways.c.name)).mappings()
    return [
        Member(
            **row,
            live=live(row["seen_at"], at),
            leading=lease is not None and lease["holder"] == row["instance"] and _holds(lease, at),
        )
        for row in rows
    ]


def _lease(connection: Connection) -> Mapping[str, Any] | None:
    table = schema.leaders
    row = connection.execute(select(table).where(table.c.name == LEADER)).mappings().first()
    return None if row is None else dict(row)


def _holds(lease: Mapping[str, Any], at: float) -> bool:
    # further ahead than any lease is given: of a clock that was set back
    return 0.0 < float(lease["expires_at"]) - at <= LEASE_S


class Cluster:
    """This gateway among those of its database. `join` raises, the thread does not."""

    def __init__(
        self,
        database: Database,
        name: str,
        folder: str,
        *,
        version: str,
        address: str | None = None,
        alone: bool,
        changed: Callable[[bool], None] = lambda leading: None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder` is the id of the locked data folder; `alone`: no other gateway can open this database."""
        self._database = database
        self.name = name
        self.instance = f"{folder}-{secrets.token_hex(6)}"
        self._folder = folder
        self._version = version
        self._address = address
        self.alone = alone
        self._changed = changed
        self._now = now
        self._monotonic = monotonic
        self._until = float("-inf")
        self._told: bool | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self.problem: str | None = None
        """What is wrong with this gateway's name; None while all is well."""

    @property
    def leading(self) -> bool:
        """Whether this gateway may now do what one alone may do."""
        return self.alone or self._monotonic() < self._until

    # beginning and end

    def join(self) -> None:
        """Put this gateway on record, and lead if nobody does. Raises UsageError while another live gateway
        has its name."""
        before = self._record()
        if before is not None and not self._was_ours(before) and not self.alone:
            self._watch_other(before)
        with self._database.write() as connection:
            at = clock(connection, self._now())
            table = schema.gateways
            connection.execute(table.delete().where(table.c.name == self.name))
            connection.execute(
                table.insert().values(
                    name=self.name,
                    instance=self.instance,
                    version=self._version[:32],
                    address=self._address,
                    started_at=at,
                    seen_at=at,
                )
            )
        self.renew()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Leave: another may lead at once. The name stays on record, for the heir of what may wait at the
        broker."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)
        self._until = float("-inf")
        try:
            with self._database.write() as connection:
                leaders, table = schema.leaders, schema.gateways
                connection.execute(leaders.delete().where(leaders.c.holder == self.instance))
                connection.execute(
                    table.update()
                    .where(table.c.instance == self.instance)
                    .values(seen_at=table.c.seen_at - LEASE_S)
                )
        except SQLAlchemyError:
            log.warning("the database does not know that this gateway leaves; its lease ends by itself")

    def _record(self) -> Mapping[str, Any] | None:
        table = schema.gateways
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.name == self.name)).mappings().first()
        return None if row is None else dict(row)

    def _was_ours(self, row: Mapping[str, Any]) -> bool:
        return str(row["instance"]).startswith(f"{self._folder}-")

    def _watch_other(self, before: Mapping[str, Any]) -> None:
        """One that was killed gives no more signs of life; wait for the next one of a live one."""
        with self._database.read() as connection:
            at = clock(connection, self._now())
        if not live(before["seen_at"], at):
            return
        deadline = self._monotonic() + LEASE_S
        while self._monotonic() < deadline and not self._stopping.wait(0.2):
            row = self._record()
            if row is None or row["instance"] != before["instance"]:
                return
            if row["seen_at"] != before["seen_at"]:
                where = f" at {row['address']}" if row["address"] else ""
                raise UsageError(
                    f"--name {self.name}: another gateway of that name runs on this database{where}; "
                    "give each its own --name"
                )

    # the thread

    def _run(self) -> None:
        while True:
            self._tell()
            if self._stopping.wait(ALONE_RENEW_S if self.alone else RENEW_S):
                return
            self.renew()

    def _tell(self) -> None:
        if self._told != self.leading:
            self._told = self.leading
            if not self.alone:
                log.info("this gateway %s", "leads" if self._told else "follows")
            self._changed(self._told)

    def renew(self) -> None:
        began = self._monotonic()
        try:
            with self._database.write() as connection:
                at = clock(connection, self._now())
                mine = self._seen(connection, at)
                holds = mine and self._take(connection, at)
        except (SQLAlchemyError, OSError) as error:
            if not self.alone:
                log.warning("the lease cannot be renewed (%s)", type(error).__name__)
        else:
            self._until = began + LEASE_S - MARGIN_S if holds else float("-inf")

    def _seen(self, connection: Connection, at: float) -> bool:
        """A sign of life; False when another process has taken this gateway's name."""
        table = schema.gateways
        found = connection.execute(
            table.update()
            .where(table.c.name == self.name, table.c.instance == self.instance)
            .values(seen_at=at)
        )
        if found.rowcount == 1:
            self.problem = None
            return True
        other = connection.execute(select(table).where(table.c.name == self.name)).mappings().first()
        if other is None:
            # the database was restored or pruned meanwhile
            connection.execute(
                table.insert().values(
                    name=self.name,
                    instance=self.instance,
                    version=self._version[:32],
                    address=self._address,
                    started_at=at,
                    seen_at=at,
                )
            )
            return True
        self.problem = (
            f"another gateway named {self.name} runs on this database; stop one of the two, or give it "
            "another --name"
        )
        return False

    def _take(self, connection: Connection, at: float) -> bool:
        table = schema.leaders
        lease = _lease(connection)
        if lease is None:
            try:
                with connection.begin_nested():
                    connection.execute(
                        table.insert().values(
                            name=LEADER, holder=self.instance, taken_at=at, expires_at=at + LEASE_S
                        )
                    )
            except IntegrityError:
                return False
            return True
        ours = lease["holder"] == self.instance
        if not (ours or self.alone or self._was_ours({"instance": lease["holder"]}) or not _holds(lease, at)):
            return False
        values: dict[str, Any] = {"holder": self.instance, "expires_at": at + LEASE_S}
        if not ours:
            values["taken_at"] = at
        # only if nobody else was faster
        found = connection.execute(
            table.update()
            .where(
                table.c.name == LEADER,
                table.c.holder == lease["holder"],
                table.c.expires_at == lease["expires_at"],
            )
            .values(**values)
        )
        return found.rowcount == 1
