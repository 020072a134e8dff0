"""What other gateways on the database took in, for the pages and the memory of this one.

The table `messages` is read again and again for what came since: each gateway's pages show every patient,
whichever gateway heard of them. A message is told once; what came late into the table is found within
`MARGIN_S`.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import schema, signs
from samd_gateway.intake import Item
from samd_gateway.latest_rows import BY_ORDER
from samd_gateway.recorder import Recorded
from samd_gateway.roster import Roster
from samd_gateway.schema import Database
from samd_protocol import PROTOCOL_VERSION
from samd_protocol.envelope import Envelope
from samd_protocol.messages import Message

log = logging.getLogger(__name__)

LOOK_S = 0.3
MARGIN_S = 3.0
"""Between the arrival of a message and its commit, with the difference of the gateways' clocks."""
AT_ONCE = 2000
ROSTER_EVERY_S = 1.0
KINDS = ("assessment", "training", "alert", "result", "run.status", "server.state")

Key = tuple[str, str]


class Others:
    """The thread. `told` is called with what is new, as the writer does after its own commits."""

    def __init__(
        self,
        database: Database,
        roster: Roster,
        told: Callable[[Recorded], None],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._roster = roster
        self._told = told
        self._now = now
        self._lock = threading.Lock()
        self._seen: dict[Key, None] = {}
        self._times: deque[tuple[float, Key]] = deque()
        self._since = now()
        self._refreshed = now()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="others", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def committed(self, items: Sequence[Item]) -> None:
        """What this gateway took in itself, and has told."""
        with self._lock:
            for item in items:
                if item.kind in KINDS:
                    self._note((item.sender, item.envelope.id), item.received_at)

    def _note(self, key: Key, at: float) -> None:
        if key not in self._seen:
            self._seen[key] = None
            self._times.append((at, key))

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.look()
            except SQLAlchemyError:
                continue  # /healthz says so

    def look(self) -> None:
        """Read once, and tell."""
        now = self._now()
        if not 0.0 <= now - self._refreshed < ROSTER_EVERY_S:
            since, self._refreshed = self._refreshed, now
            self._roster.refresh(min(since, now))
        table = schema.messages
        since = min(self._since, now) - MARGIN_S
        query = (
            select(table.c.device, table.c.id, table.c.received_at)
            .where(table.c.kind.in_(KINDS), table.c.received_at >= since)
            .order_by(table.c.received_at)
        )
        with self._database.read() as connection:
            found = connection.execute(query).tuples().all()
            with self._lock:
                new = [(device, id_) for device, id_, _ in found if (device, id_) not in self._seen]
                new = new[-AT_ONCE:]  # after a long absence the newest are what a page shows
                for device, id_, at in found:
                    self._note((device, id_), at)
                while self._times and self._times[0][0] < since - MARGIN_S:
                    self._seen.pop(self._times.popleft()[1], None)
            items = []
            for device in dict.fromkeys(device for device, _ in new):
                ids = [id_ for each, id_ in new if each == device]
                rows = connection.execute(
                    select(table)
                    .where(table.c.device == device, table.c.id.in_(ids))
                    .order_by(table.c.received_at)
                )
                items += [item_of(row._asdict()) for row in rows]
        self._since = now
        if items:
            newest: dict[tuple[str, str], Item] = {}
            for item in items:
                if item.kind not in BY_ORDER:
                    continue
                key = (item.sender, item.kind)
                best = newest.get(key)
                if best is None or _order(item) > _order(best):
                    newest[key] = item
            self._told(Recorded(new=items, newest=self._still_newest(newest.values())))

    def _still_newest(self, items: Iterable[Item]) -> list[Item]:
        """Those that nothing later has come after; what comes after them is told in their place."""
        found = []
        with self._roster.held:
            for item in items:
                known = self._roster.get(item.sender)
                if known is not None and not signs.newest(known, item):
                    continue
                if known is not None:
                    known.orders[item.kind] = _order(item)
                found.append(item)
        return found


def item_of(row: dict[str, object]) -> Item:
    """A row of the table `messages` as the item that it was made from."""
    return Item(
        sender=str(row["device"]),
        kind=str(row["kind"]),
        envelope=Envelope(
            v=PROTOCOL_VERSION,
            id=str(row["id"]),
            device=str(row["device"]),
            boot=msgspec.convert(row["boot"], int),
            seq=msgspec.convert(row["seq"], int),
            sent_at=datetime.fromtimestamp(msgspec.convert(row["sent_at"], float), UTC),
            clock="unsynced",  # not on record: no younger than it says
            data=msgspec.json.decode(str(row["body"]), type=Message),
        ),
        received_at=msgspec.convert(row["received_at"], float),
    )


def _order(item: Item) -> tuple[int, int]:
    return item.envelope.boot, item.envelope.seq
