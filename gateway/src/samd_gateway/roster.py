"""Every device's contact in memory, so that a look at ten thousand of them costs no look at the database.

The table `devices` is the record, and this is a copy of it with the moments at which silence changes a state:
a device is looked at when it was heard or when such a moment has come, never all of them in turn. What a
batch of messages changes is taken in once it is committed; signs of life are written back a second later.
"""

import heapq
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import or_, select

from samd_gateway import schema
from samd_gateway.flags import Flag
from samd_gateway.schema import Database
from samd_gateway.states import Deaf, DeviceState, Policy, derive, next_change, online_since

STATUSES = ("online", "stale", "offline", "unknown")
STEP_S = 1.0
"""By how much this machine's clock may go back before it counts as set back."""
MARGIN_S = 10.0
"""How far the clocks of gateways on one database may lie apart, with the time that a write takes."""
COLUMNS = tuple(schema.devices.columns.keys())


class Known(msgspec.Struct, gc=False, kw_only=True):
    """One device as it is remembered: the columns of its row, and what is derived from them.

    `heartbeat_at`, `source_age_s`: the last heartbeat and how old the last reading of the source was then, by
    the device's word. `last_data`, `data_age_s`: the same of the newest assessment."""

    name: str
    reported: Any = None
    reported_at: float | None = None
    boot: int | None = None
    connection: int | None = None
    seq: int | None = None
    boot_id: str | None = None
    client_version: str | None = None
    model_version: int | None = None
    first_heard: float | None = None
    last_heard: float | None = None
    online_since: float | None = None
    interval_s: float | None = None
    clock_offset_s: float | None = None
    clock_synced: bool | None = None
    certificate_expires_at: float | None = None
    last_data: float | None = None
    flagged: str | None = None
    flagged_at: float | None = None
    heartbeat_at: float | None = None
    source_age_s: float | None = None
    data_age_s: float | None = None
    orders: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    flags: dict[Flag, float] = msgspec.field(default_factory=dict)
    state: DeviceState = DeviceState(state="unknown", reason="never heard of", since=None, code="new")
    wake: float = math.inf
    unwritten: bool = False

    def row(self) -> dict[str, Any]:
        """As a row of the table `devices`."""
        return {name: getattr(self, name) for name in COLUMNS}


class Roster:
    """All devices. Safe to call from any thread."""

    def __init__(
        self,
        database: Database,
        policy: Policy,
        *,
        now: Callable[[], float],
        deaf: Callable[[], Deaf | None] = lambda: None,
    ) -> None:
        """`deaf` says when this gateway could last hear nothing."""
        self._database = database
        self._policy = policy
        self._now = now
        self._deaf = deaf
        self._lock = threading.RLock()
        self._devices: dict[str, Known] = {}
        self._moments: list[tuple[float, str]] = []
        self._counts = dict.fromkeys(STATUSES, 0)
        self._changed: dict[str, None] = {}
        self._unwritten: dict[str, Known] = {}
        self._latest_now = -math.inf
        self._heard_under: Deaf | None = None

    # what others ask

    def states(self) -> Mapping[str, DeviceState]:
        """Each known device's state now, by name."""
        with self._lock:
            self._advance()
            return {name: known.state for name, known in self._devices.items()}

    def state(self, name: str) -> DeviceState | None:
        """One device's state now; None for one that is not known."""
        with self._lock:
            self._advance()
            known = self._devices.get(name)
            return None if known is None else known.state

    def counts(self) -> dict[str, int]:
        """How many devices are online, stale, offline and unknown."""
        with self._lock:
            self._advance()
            return dict(self._counts)

    def known(self, name: str) -> Known | None:
        """What is remembered of a device, as a copy."""
        with self._lock:
            known = self._devices.get(name)
            return None if known is None else msgspec.structs.replace(known)

    def some(self, names: Iterable[str] | None = None) -> dict[str, Known]:
        """Copies of these devices (or of all) with their states now."""
        with self._lock:
            self._advance()
            wanted = self._devices if names is None else names
            found = ((name, self._devices.get(name)) for name in wanted)
            return {name: msgspec.structs.replace(known) for name, known in found if known is not None}

    def flagged(self) -> int:
        """How many devices are limited or not believed in some point."""
        with self._lock:
            return sum(known.flagged is not None for known in self._devices.values())

    def __len__(self) -> int:
        return len(self._devices)

    def __contains__(self, name: object) -> bool:
        return name in self._devices

    # what the database says

    def load(self) -> None:
        """Take in every device on record. Raises SQLAlchemyError."""
        with self._database.read() as connection:
            rows = connection.execute(select(schema.devices)).all()
            latest = schema.latest
            columns = (latest.c.device, latest.c.kind, latest.c.boot, latest.c.seq)
            newest = connection.execute(select(*columns)).all()
            beats = connection.execute(_ages("heartbeat")).all()
            data = connection.execute(_ages("assessment")).all()
        with self._lock:
            for row in rows:
                self._take(row._asdict())
            for name, kind, boot, seq in newest:
                if (known := self._devices.get(name)) is not None:
                    known.orders[kind] = (boot, seq)
            for name, received_at, body in beats:
                if (known := self._devices.get(name)) is not None:
                    known.heartbeat_at, known.source_age_s = received_at, _age(body)
            for name, _, body in data:
                if (known := self._devices.get(name)) is not None:
                    known.data_age_s = _age(body)

    def refresh(self, since: float) -> None:
        """Take in what other gateways wrote about devices since then. Raises SQLAlchemyError."""
        table, at = schema.devices, since - MARGIN_S
        lately = or_(table.c.last_heard >= at, table.c.reported_at >= at, table.c.flagged_at >= at)
        with self._database.read() as connection:
            rows = connection.execute(select(table).where(lately)).all()
            recent = schema.latest.c.received_at >= at
            beats = connection.execute(_ages("heartbeat").where(recent)).all()
            data = connection.execute(_ages("assessment").where(recent)).all()
        with self._lock:
            for row in rows:
                self._take(row._asdict())
            for name, received_at, body in beats:
                known = self._devices.get(name)
                if known is not None and received_at > (known.heartbeat_at or 0.0):
                    known.heartbeat_at, known.source_age_s = received_at, _age(body)
            for name, received_at, body in data:
                known = self._devices.get(name)
                if known is not None and received_at >= (known.last_data or 0.0):
                    known.last_data, known.data_age_s = received_at, _age(body)

    def _take(self, row: dict[str, Any]) -> None:
        """A row of the database; of signs of life the later one counts, which may not be written yet.

        A row as old as what is known here holds nothing newer, and may lack what the heartbeat beside it
        said: without its interval a silent device would count as online again."""
        known = self._devices.get(row["name"])
        if known is not None:
            older = known.last_heard is not None and (row["last_heard"] or 0.0) <= known.last_heard
            for name in LIVE if older else ():
                row[name] = getattr(known, name)
            if row["interval_s"] is None:
                row["interval_s"] = known.interval_s
        if known is not None and known.boot_id != row["boot_id"] and (row["boot"] or 0) <= (known.boot or 0):
            known.orders.clear()  # it was set up anew, as another gateway heard, and counts from one
        self._put(row)

    # what the recorder tells

    def put(self, row: dict[str, Any]) -> None:
        """A row as it was just committed."""
        with self._lock:
            self._put(row)

    def _put(self, row: dict[str, Any]) -> None:
        name = row["name"]
        known = self._devices.get(name)
        if known is None:
            known = self._devices[name] = Known(name=name)
            self._counts[known.state.state] += 1
            self._changed[name] = None
        for key, value in row.items():
            setattr(known, key, value)
        self._derive(known, self._now())

    def get(self, name: str) -> Known | None:
        """The record itself, for the one writer; the lock is the caller's (`held`)."""
        return self._devices.get(name)

    @property
    def held(self) -> threading.RLock:
        return self._lock

    def heard(self, known: Known, at: float) -> None:
        """A live message of this device was received at `at`. Under `held`."""
        if known.last_heard is None or at > known.last_heard:
            before = known.online_since
            known.online_since = online_since(known, at, self._policy)
            known.last_heard = at
            if known.first_heard is None:
                known.first_heard = at
            steady = known.state.state == "online" and known.state.code != "late"
            if not steady or known.online_since != before:
                self._derive(known, self._now())
        known.unwritten = True
        self._unwritten[known.name] = known

    def derive(self, known: Known) -> None:
        """Something else of it changed. Under `held`."""
        self._derive(known, self._now())

    def note(self, known: Known) -> None:
        """It changed in a point that is not of its state but is shown. Under `held`."""
        self._changed[known.name] = None
        known.unwritten = True
        self._unwritten[known.name] = known

    def take_unwritten(self, most: int) -> list[dict[str, Any]]:
        """Rows whose latest signs of life are not in the table yet; `give_back` them if they cannot be."""
        with self._lock:
            rows = []
            for name in list(self._unwritten)[:most]:
                known = self._unwritten.pop(name)
                known.unwritten = False
                rows.append(known.row())
            return rows

    def give_back(self, rows: Iterable[Mapping[str, Any]]) -> None:
        with self._lock:
            for row in rows:
                known = self._devices.get(row["name"])
                if known is not None:
                    known.unwritten = True
                    self._unwritten[known.name] = known

    @property
    def unwritten(self) -> int:
        return len(self._unwritten)

    # what time does

    def take_changed(self) -> list[str]:
        """The devices whose state changed, or that are new, since the last call."""
        with self._lock:
            self._advance()
            names = list(self._changed)
            self._changed.clear()
            return names

    def next_moment(self) -> float:
        """When silence changes a state next, at the earliest."""
        with self._lock:
            return self._moments[0][0] if self._moments else math.inf

    def _advance(self) -> None:
        now = self._now()
        deaf = self._deaf()
        stepped_back = now < self._latest_now - STEP_S
        self._latest_now = now
        if stepped_back:
            # what was heard "in the future" was heard by now at the latest, or its silence would go unseen
            for known in self._devices.values():
                if known.last_heard is not None:
                    known.last_heard = min(known.last_heard, now)
        if stepped_back or deaf != self._heard_under:
            self._heard_under = deaf
            self._moments.clear()
            for known in self._devices.values():
                known.wake = math.inf
                self._derive(known, now)
        while self._moments and self._moments[0][0] <= now:
            at, name = heapq.heappop(self._moments)
            known = self._devices[name]
            if known.wake == at:
                known.wake = math.inf
                self._derive(known, now)

    def _derive(self, known: Known, now: float) -> None:
        deaf = self._heard_under
        before, after = known.state, derive(known, now, self._policy, deaf=deaf)
        if before != after:
            known.state = after
            if before.state != after.state:
                self._counts[before.state] -= 1
                self._counts[after.state] += 1
            if before.state != after.state or _told(before) != _told(after):
                self._changed[known.name] = None
        at = next_change(known, now, self._policy, deaf=deaf)
        # a later moment needs no new entry: the earlier one will find that nothing has come about yet
        if at < known.wake:
            known.wake = at
            heapq.heappush(self._moments, (at, known.name))


LIVE = (
    "first_heard",
    "last_heard",
    "online_since",
    "interval_s",
    "clock_offset_s",
    "clock_synced",
    "certificate_expires_at",
    "last_data",
    "model_version",
    "flagged",
    "flagged_at",
)
"""What any message may change, not only a birth or a will."""


def _told(state: DeviceState) -> str:
    """What is told as a change: a late heartbeat alone is not."""
    return "online" if state.code == "late" else state.code


def _ages(kind: str) -> Any:
    table = schema.latest
    return select(table.c.device, table.c.received_at, table.c.body).where(table.c.kind == kind)


class _Aged(msgspec.Struct):
    reading_age_s: float | None = None


_aged = msgspec.json.Decoder(_Aged)


def _age(body: str) -> float | None:
    return _aged.decode(body).reading_age_s
