"""Heartbeats, of which a day of ten thousand devices would be 86 million rows: the newest of each device for
the table `latest`, and the extremes of five minutes for the table `health`. Kept in memory until they are
written; a gateway that is killed loses what it had of the last span, not the spans before.
"""

import math
from typing import Any

import msgspec
from sqlalchemy import Connection, case

from samd_gateway import schema
from samd_gateway.intake import Item
from samd_gateway.latest_rows import write_latest
from samd_gateway.upserts import insert
from samd_protocol.messages import Heartbeat

SPAN_S = 300
KEYS = ("device", "at", "span_s")
GREATEST = ("load_max", "resident_max_mb", "temperature_max_c", "outbox_max", "reading_age_max_s")
LEAST = ("memory_min_mb", "disk_min_mb")


class Bucket(msgspec.Struct, gc=False):
    """The extremes of a device's heartbeats in one span; null is what it never told."""

    at: float
    beats: int = 0
    load_max: float | None = None
    memory_min_mb: float | None = None
    resident_max_mb: float | None = None
    temperature_max_c: float | None = None
    disk_min_mb: float | None = None
    outbox_max: int | None = None
    reading_age_max_s: float | None = None

    def add(self, beat: Heartbeat) -> None:
        # whole megabytes and seconds: a database holds those in a byte or three instead of eight
        self.beats += 1
        self.load_max = _greater(self.load_max, beat.load_1m)
        self.memory_min_mb = _less(self.memory_min_mb, _whole(beat.memory_available_mb))
        self.resident_max_mb = _greater(self.resident_max_mb, _whole(beat.resident_mb))
        self.temperature_max_c = _greater(self.temperature_max_c, beat.temperature_c)
        self.disk_min_mb = _less(self.disk_min_mb, _whole(beat.disk_free_mb))
        self.outbox_max = max(self.outbox_max or 0, min(beat.outbox_depth, 2**31 - 1))
        self.reading_age_max_s = _greater(self.reading_age_max_s, _whole(beat.reading_age_s))


def _whole(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(round(value))


def _greater(old: float | None, new: float | None) -> float | None:
    return old if new is None or (old is not None and old >= new) else new


def _less(old: float | None, new: float | None) -> float | None:
    return old if new is None or (old is not None and old <= new) else new


class Beats:
    """What is kept of heartbeats. One thread alone uses it."""

    def __init__(self, *, span_s: int = SPAN_S) -> None:
        self._span_s = span_s
        self._open: dict[str, Bucket] = {}
        self._ended: list[dict[str, Any]] = []
        self._newest: dict[str, Item] = {}
        self._taken: tuple[dict[str, Item], list[dict[str, Any]]] = ({}, [])

    def add(self, item: Item) -> None:
        """Take in a heartbeat."""
        beat = item.envelope.data
        if not isinstance(beat, Heartbeat):
            return
        device, order = item.sender, (item.envelope.boot, item.envelope.seq)
        newest = self._newest.get(device)
        if newest is None or order >= (newest.envelope.boot, newest.envelope.seq):
            self._newest[device] = item
        at = item.received_at // self._span_s * self._span_s
        bucket = self._open.get(device)
        if bucket is None or bucket.at != at:
            if bucket is not None:
                self._ended.append(self._row(device, bucket))
            bucket = self._open[device] = Bucket(at)
        bucket.add(beat)

    def forget(self, device: str) -> None:
        """The device was set up anew: what it said before is not its newest any more."""
        self._newest.pop(device, None)

    def close_ended(self, now: float) -> None:
        """End the spans that are over, also of devices that have fallen silent."""
        over = [device for device, bucket in self._open.items() if bucket.at + self._span_s <= now]
        for device in over:
            self._ended.append(self._row(device, self._open.pop(device)))

    def close(self) -> None:
        """End every span, as the program ends; what comes later in the same span is added to it."""
        self.close_ended(math.inf)

    @property
    def waiting(self) -> bool:
        return bool(self._newest or self._ended)

    def senders(self, most: int) -> set[str]:
        """Take at most so many rows of each kind for `write`; whose they are."""
        newest = dict(list(self._newest.items())[:most])
        ended = self._ended[:most]
        self._taken = newest, ended
        return set(newest) | {row["device"] for row in ended}

    def write(self, connection: Connection) -> None:
        """Write what `senders` took, within the caller's transaction."""
        newest, ended = self._taken
        write_latest(connection, list(newest.values()))
        if ended:
            connection.execute(_merge(connection), ended)

    def written(self) -> None:
        """The transaction is durable: forget what it wrote."""
        newest, ended = self._taken
        for device, item in newest.items():
            if self._newest.get(device) is item:
                del self._newest[device]
        del self._ended[: len(ended)]
        self._taken = {}, []

    def _row(self, device: str, bucket: Bucket) -> dict[str, Any]:
        return {"device": device, "span_s": self._span_s} | msgspec.structs.asdict(bucket)


def _merge(connection: Connection) -> Any:
    """Insert a span, or add to what another gateway, or this one before it was restarted, wrote of it."""
    table = schema.health
    statement = insert(connection, table)
    new, old = statement.excluded, table.c
    changed: dict[str, Any] = {"beats": old.beats + new.beats}
    for name in GREATEST:
        kept = old[name].is_not(None) & (new[name].is_(None) | (old[name] >= new[name]))
        changed[name] = case((kept, old[name]), else_=new[name])
    for name in LEAST:
        kept = old[name].is_not(None) & (new[name].is_(None) | (old[name] <= new[name]))
        changed[name] = case((kept, old[name]), else_=new[name])
    return statement.on_conflict_do_update(index_elements=list(KEYS), set_=changed)
