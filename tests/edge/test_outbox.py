"""The outbox: committed first, at most 20 in flight, deleted on PUBACK, sent again on a new connection."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samd_edge.device_db import DeviceDb
from samd_edge.outbox import ALERT, ASSESSMENT, HEARTBEAT, RESULT, Entry, Outbox, Sender

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Wire:
    """A connection in memory: it takes messages, and confirms when it is told to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.expiry: list[int | None] = []
        self.up = True
        self.too_long = b""

    def publish(self, topic: str, payload: bytes, *, expiry_s: int | None = None) -> int | None:
        if payload == self.too_long:
            raise ValueError("Payload too large.")
        if not self.up:
            return None
        self.sent.append(payload)
        self.expiry.append(expiry_s)
        return len(self.sent)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DeviceDb]:
    db = DeviceDb(tmp_path)
    yield db
    db.close()


def entry(name: str, priority: int = ASSESSMENT, expires_at: datetime | None = None) -> Entry:
    return Entry(priority, "kind", "topic", name, name.encode(), expires_at)


def waiting(outbox: Outbox) -> list[str]:
    return [payload.decode() for _, _, payload, _ in outbox.next(1000, ())]


def acks(
    *packets: int, connection: int = 1, refusal: str | None = None
) -> list[tuple[str, int, int, str | None]]:
    return [("acknowledged", connection, packet, refusal) for packet in packets]


def test_urgent_first_and_in_order(db: DeviceDb) -> None:
    outbox = Outbox(db)
    outbox.put([entry("s1"), entry("s2"), entry("r1", RESULT), entry("a1", ALERT), entry("a2", ALERT)])
    assert waiting(outbox) == ["a1", "a2", "r1", "s1", "s2"]


def test_rows_and_marks_are_one_commit_and_survive(db: DeviceDb) -> None:
    Outbox(db).put([entry("s1"), entry("s1")], {"handed": ["g", 1, 0]})
    assert db.get("handed") == ["g", 1, 0]
    outbox = Outbox(db)
    assert (outbox.depth, waiting(outbox)) == (1, ["s1"]), "an id that waits is not put in twice"


def test_full_the_least_urgent_and_oldest_go_and_an_alert_never(db: DeviceDb) -> None:
    outbox = Outbox(db, max_rows=4)
    outbox.put([entry("a1", ALERT), entry("s1"), entry("h1", HEARTBEAT), entry("s2")])
    outbox.put([entry("a2", ALERT)])
    assert waiting(outbox) == ["a1", "a2", "s1", "s2"], "heartbeats go first"
    outbox.put([entry("r1", RESULT), entry("s3")])
    assert waiting(outbox) == ["a1", "a2", "r1", "s3"], "then the oldest assessments"
    outbox.put([entry(f"a{n}", ALERT) for n in range(3, 8)])
    assert waiting(outbox) == [f"a{n}" for n in range(1, 8)], "alerts never, even beyond the limit"
    assert (outbox.evicted, outbox.depth) == (5, 7)


def test_twenty_in_flight_and_deleted_when_confirmed(db: DeviceDb) -> None:
    outbox, wire = Outbox(db), Wire()
    sender = Sender(outbox, wire, now=lambda: NOW)
    outbox.put(entry(f"s{n:02}") for n in range(50))
    sender.handle([("wake", 0, 0, None)])
    assert wire.sent == [], "nothing is sent before a connection stands"
    sender.handle([("connected", 1, 0, None)])
    assert len(wire.sent) == 20
    assert outbox.depth == 50, "sent is not confirmed"
    sender.handle(acks(1, 2, 3))
    assert (len(wire.sent), outbox.depth) == (23, 47)
    sender.handle(acks(*range(4, 24)))
    sender.handle(acks(*range(24, 44)))
    sender.handle(acks(*range(44, 51)))
    assert (wire.sent, outbox.depth) == ([f"s{n:02}".encode() for n in range(50)], 0)


def test_a_new_connection_sends_again_what_was_in_flight(db: DeviceDb) -> None:
    outbox, wire = Outbox(db), Wire()
    sender = Sender(outbox, wire, now=lambda: NOW)
    outbox.put([entry("s1"), entry("s2"), entry("s3")])
    sender.handle([("connected", 1, 0, None), *acks(1)])
    assert wire.sent == [b"s1", b"s2", b"s3"]
    # the acknowledgement came before anything was in flight in that batch: it means nothing
    assert outbox.depth == 3
    sender.handle(acks(1))
    sender.handle([("disconnected", 0, 0, None), *acks(2)])
    sender.handle([("connected", 2, 0, None)])
    assert wire.sent[3:] == [b"s2", b"s3"]
    sender.handle(acks(4, 5, connection=1))
    assert outbox.depth == 2, "an acknowledgement of the old connection confirms nothing on the new one"
    sender.handle(acks(4, 5, connection=2))
    assert outbox.depth == 0


def test_expired_messages_are_dropped_and_counted(db: DeviceDb) -> None:
    outbox, wire = Outbox(db), Wire()
    sender = Sender(outbox, wire, now=lambda: NOW)
    outbox.put(entry(f"old{n}", expires_at=NOW) for n in range(30))
    outbox.put([entry("young", expires_at=NOW + timedelta(seconds=90)), entry("alert", ALERT)])
    sender.handle([("connected", 1, 0, None)])
    assert (wire.sent, wire.expiry) == ([b"alert", b"young"], [None, 90])
    assert (outbox.expired, outbox.depth) == (30, 2)


def test_refused_messages_become_dead_letters(db: DeviceDb) -> None:
    outbox, wire = Outbox(db), Wire()
    wire.too_long = b"long"
    sender = Sender(outbox, wire, now=lambda: NOW)
    outbox.put([entry("bad"), entry("long"), entry("good")])
    sender.handle([("connected", 1, 0, None)])
    sender.handle([*acks(1, refusal="Not authorized"), *acks(2)])
    assert (outbox.depth, outbox.dead_letters, wire.sent) == (0, 2, [b"bad", b"good"])
    assert db.rows("SELECT message_id, reason FROM dead_letters ORDER BY id") == [
        ("long", "Payload too large."),
        ("bad", "Not authorized"),
    ]


def test_a_connection_that_is_gone_takes_nothing(db: DeviceDb) -> None:
    outbox, wire = Outbox(db), Wire()
    sender = Sender(outbox, wire, now=lambda: NOW)
    wire.up = False
    outbox.put([entry("s1")])
    sender.handle([("connected", 1, 0, None)])
    wire.up = True
    sender.handle([("wake", 0, 0, None)])
    assert wire.sent == [], "it waits for the next connection"
    sender.handle([("connected", 2, 0, None)])
    assert wire.sent == [b"s1"]


def test_the_thread_sends_what_is_put(db: DeviceDb) -> None:
    outbox, wire = Outbox(db), Wire()
    sender = Sender(outbox, wire, now=lambda: NOW)
    sender.start()
    sender.connected(1)
    outbox.put([entry("s1")])
    for packet in range(1, 50):  # an acknowledgement that comes too early means nothing, so one is repeated
        sender.acknowledged(1, 1, None)
        if outbox.wait_empty(0.1 * packet):
            break
    assert (outbox.depth, wire.sent) == (0, [b"s1"])
    sender.stop()
