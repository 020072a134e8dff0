"""The roster: states in memory that are always those of the table and of the time."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from samd_gateway import schema
from samd_gateway.facts import facts
from samd_gateway.health_buckets import Beats
from samd_gateway.intake import Item, parse
from samd_gateway.recorder import record, take_in
from samd_gateway.roster import Roster
from samd_gateway.schema import Database, open_database
from samd_gateway.signs_rows import listened_until, write_listened, write_signs
from samd_gateway.states import Deaf, Policy
from samd_protocol import envelope, topics
from samd_protocol.messages import Assessment, Heartbeat, Message, News2, State

POLICY = Policy(stale_after=3.0, offline_after=10.0)
BEGIN = 1_700_000_000.0


class World:
    """A database, a clock that is set by hand, and a roster that is fed as the writer feeds it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = BEGIN
        self.deaf = Deaf(since=0.0, until=0.0)
        self.sealers: dict[str, envelope.Sealer] = {}
        self.restart()

    def restart(self) -> None:
        self.roster = Roster(self.database, POLICY, now=lambda: self.now, deaf=lambda: self.deaf)
        self.roster.load()
        self.beats = Beats()

    def message(
        self, name: str, message: Message, *, boot: int = 1, ahead_s: float = 0.0, retained: bool = False
    ) -> Item:
        sealer = self.sealers.setdefault(
            f"{name}/{boot}",
            envelope.Sealer(name, boot, now=lambda: datetime.fromtimestamp(self.now, UTC)),
        )
        sealed = sealer.seal(message)
        if ahead_s:
            sealed = msgspec.structs.replace(sealed, sent_at=datetime.fromtimestamp(self.now + ahead_s, UTC))
        kind: Any = sealed.type
        return parse(topics.up(name, kind), envelope.encode(sealed), self.now, retained=retained)

    def commit(self, *items: Item) -> None:
        with self.database.append({item.sender for item in items}) as connection:
            recorded = record(connection, list(items), POLICY, self.roster)
        take_in(recorded, self.roster, self.beats)

    def send(self, name: str, message: Message, **how: Any) -> None:
        self.commit(self.message(name, message, **how))

    def flush(self) -> None:
        rows = self.roster.take_unwritten(1000)
        self.beats.senders(1000)
        with self.database.append({row["name"] for row in rows}) as connection:
            write_signs(connection, rows)
            write_listened(connection, self.now)
            self.beats.write(connection)
        self.beats.written()

    def state(self, name: str) -> str:
        state = self.roster.state(name)
        return "none" if state is None else state.state


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = open_database(None, tmp_path)
    yield World(database)
    database.close()


def birth(status: Any = "online", connection: int = 1, boot_id: str = "b1") -> State:
    return State(status=status, boot_id=boot_id, connection=connection, client_version="0.1.0")


def beat(**fields: Any) -> Heartbeat:
    return Heartbeat(**({"interval_s": 10.0, "uptime_s": 1.0} | fields))


def assessment(**fields: Any) -> Assessment:
    news2 = News2(total=3, low=3, high=3, band="low", points={}, missing=[])
    return Assessment(
        **(
            {
                "observed_at": datetime.fromtimestamp(BEGIN, UTC),
                "news2": news2,
                "rule_severity": 1,
                "rule_severity_possible": 1,
                "severity": 1,
                "disagreement": False,
            }
            | fields
        )
    )


def test_silence_is_seen_to_the_second_and_told_once(world: World) -> None:
    world.send("bed-1", birth())
    world.send("bed-1", beat())
    assert world.roster.take_changed() == ["bed-1"]
    assert world.roster.counts() == {"online": 1, "stale": 0, "offline": 0, "unknown": 0}
    for second, state, told in ((29.9, "online", []), (30.0, "stale", ["bed-1"]), (99.9, "stale", [])):
        world.now = BEGIN + second
        assert (world.state("bed-1"), world.roster.take_changed()) == (state, told)
    world.now = BEGIN + 100.0
    assert world.roster.take_changed() == ["bed-1"]
    assert world.state("bed-1") == "offline"
    assert world.roster.state("bed-1").since == BEGIN + 100.0
    assert world.roster.counts() == {"online": 0, "stale": 0, "offline": 1, "unknown": 0}
    world.send("bed-1", beat())
    assert (world.state("bed-1"), world.roster.take_changed()) == ("online", ["bed-1"])
    assert world.roster.state("bed-1").since == BEGIN + 100.0


def test_a_look_costs_what_has_changed_not_what_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 devices that beat every second, and one that has stopped, one is derived anew per look."""
    for index in range(300):
        world.send(f"bed-{index}", birth(boot_id=f"b{index}"))
        world.send(f"bed-{index}", beat())
    world.roster.take_changed()
    looked: list[str] = []
    derive = world.roster._derive
    monkeypatch.setattr(
        world.roster, "_derive", lambda known, now: (looked.append(known.name), derive(known, now))
    )
    for _ in range(3):
        world.now += 9.0
        with world.roster.held:
            for index in range(1, 300):
                world.roster.heard(world.roster.get(f"bed-{index}"), world.now)
        world.roster.counts()
    world.now = BEGIN + 30.0
    looked.clear()
    assert world.roster.take_changed() == ["bed-0"]
    assert len([name for name in looked if name == "bed-0"]) == 1
    assert len(looked) < 310  # at most one look a device and interval, for its own next moment


def test_a_will_that_overtakes_a_birth_loses_and_a_device_never_heard_is_unknown(world: World) -> None:
    will = world.message("bed-1", birth("offline", connection=1))
    world.send("bed-1", birth(connection=2))
    world.commit(will)
    assert world.state("bed-1") == "online"
    world.send("bed-2", birth(), retained=True)
    assert world.state("bed-2") == "unknown"
    assert world.state("bed-3") == "none"


def test_what_is_in_memory_can_be_read_back_from_the_table(world: World) -> None:
    world.send("bed-1", birth())
    world.send("bed-1", beat(reading_age_s=4.0, model_version=7))
    world.send("bed-1", assessment(reading_age_s=3.0))
    world.send("bed-2", birth("offline", boot_id="b2"))
    world.now += 20.0
    world.send("bed-1", beat(reading_age_s=24.0, model_version=8), ahead_s=500.0)
    world.flush()
    before = world.roster.some()
    assert before["bed-1"].clock_offset_s == 500.0
    assert before["bed-1"].flagged is not None
    world.restart()
    after = world.roster.some()
    assert after.keys() == before.keys()
    for name, known in before.items():
        for field in known.__struct_fields__:
            if field not in ("wake", "unwritten", "flags", "orders"):
                assert getattr(after[name], field) == getattr(known, field), field
    assert after["bed-1"].orders == before["bed-1"].orders | {"heartbeat": (1, 4)}


def test_a_restart_calls_no_live_device_offline_and_a_silent_one_in_time(world: World) -> None:
    for name in ("alive", "dead", "long-dead"):
        world.send(name, birth(boot_id=name))
        world.send(name, beat())
    world.now += 90.0
    for name in ("alive", "dead"):
        world.send(name, beat())
    world.now += 20.0
    world.flush()
    assert [world.state(name) for name in ("alive", "dead", "long-dead")] == ["online", "online", "offline"]
    since = world.roster.state("long-dead").since
    world.deaf = Deaf(since=listened_until(world.database))  # killed; an hour later it is started again
    world.now += 3600.0
    world.restart()
    assert [world.state(name) for name in ("alive", "dead", "long-dead")] == ["stale", "stale", "offline"]
    world.deaf = Deaf(since=world.deaf.since, until=world.now)
    assert world.roster.take_changed()
    assert [world.state(name) for name in ("alive", "dead", "long-dead")] == ["stale", "stale", "offline"]
    assert world.roster.state("long-dead").since == since
    world.send("alive", beat())
    world.now += 99.9
    world.send("alive", beat())
    assert [world.state(name) for name in ("alive", "dead")] == ["online", "stale"]
    world.now += 0.2
    assert [world.state(name) for name in ("alive", "dead")] == ["online", "offline"]


def test_while_the_broker_is_lost_nothing_is_online_and_nothing_falls_silent(world: World) -> None:
    world.send("bed-1", birth())
    world.send("bed-1", beat())
    world.roster.take_changed()
    world.deaf = Deaf(since=BEGIN + 5.0)
    world.now = BEGIN + 5.0
    assert (world.state("bed-1"), world.roster.take_changed()) == ("stale", ["bed-1"])
    world.now = BEGIN + 86_400.0
    assert world.state("bed-1") == "stale"
    assert "broker" in world.roster.state("bed-1").reason
    world.deaf = Deaf(since=BEGIN + 5.0, until=world.now)
    world.send("bed-1", beat())
    assert world.state("bed-1") == "online"


def test_a_clock_of_the_gateway_that_is_set_back_hides_no_silence(world: World) -> None:
    world.send("bed-1", birth())
    world.send("bed-1", beat())
    assert world.state("bed-1") == "online"
    world.now -= 3600.0
    assert world.state("bed-1") == "online"
    world.now += 99.9
    assert world.state("bed-1") == "stale"
    world.now += 0.1
    assert world.state("bed-1") == "offline"


def test_a_message_that_was_held_up_is_no_sign_of_life_now(world: World) -> None:
    world.send("bed-1", birth())
    world.send("bed-1", beat())
    held_up = world.message("bed-1", assessment())
    world.now += 60.0
    late = msgspec.structs.replace(held_up, received_at=world.now)
    world.commit(late)
    assert world.state("bed-1") == "stale"
    assert world.roster.known("bed-1").last_heard == BEGIN
    assert world.roster.known("bed-1").last_data == world.now


def test_a_clock_that_is_off_is_told_and_changes_no_order(world: World) -> None:
    world.send("bed-1", birth())
    world.send("bed-1", beat(), ahead_s=7200.0)
    known = world.roster.known("bed-1")
    assert (known.clock_offset_s, known.last_heard) == (7200.0, BEGIN)
    assert known.flagged.startswith("clock: ")
    world.now += 10.0
    world.send("bed-1", beat())
    known = world.roster.known("bed-1")
    assert (known.clock_offset_s, known.flagged, known.flagged_at) == (0.0, None, None)
    # a message that has waited says nothing of a clock that is behind; one from the future does
    world.send("bed-1", assessment(), ahead_s=-600.0)
    assert world.roster.known("bed-1").clock_offset_s == 0.0
    world.send("bed-1", assessment(), ahead_s=600.0)
    assert world.roster.known("bed-1").clock_offset_s == 600.0


def test_the_four_facts_are_apart(world: World) -> None:
    world.send("bed-1", birth())
    world.send("bed-1", assessment(reading_age_s=5.0))
    world.send("bed-1", beat(reading_age_s=5.0))

    def now() -> dict[str, tuple[str, float | None]]:
        found = facts(world.roster.known("bed-1"), world.now, POLICY, deaf=world.deaf)
        assert all(getattr(found, name).reason for name in found.__struct_fields__)
        return {
            name: (getattr(found, name).status, getattr(found, name).age_s)
            for name in found.__struct_fields__
        }

    assert now() == {
        "last_will": ("ok", 0.0),
        "heartbeat": ("ok", 0.0),
        "data": ("ok", 5.0),
        "source": ("ok", 5.0),
    }
    world.now += 4000.0
    world.send("bed-1", beat(reading_age_s=4005.0))  # it lives; its monitor has been silent for an hour
    found = now()
    assert found["heartbeat"] == ("ok", 0.0)
    assert found["source"] == ("lost", 4005.0)
    assert found["data"] == ("lost", 4005.0)
    world.now += 30.0
    world.send("bed-1", birth("offline"))
    assert now()["last_will"] == ("lost", 0.0)
    assert now()["heartbeat"] == ("late", 30.0)
    world.send("bed-2", beat())
    found = facts(world.roster.known("bed-2"), world.now, POLICY)
    assert [getattr(found, name).status for name in found.__struct_fields__] == [
        "unknown",
        "ok",
        "unknown",
        "unknown",
    ]


def test_what_another_gateway_wrote_is_learnt(world: World) -> None:
    """Two rosters on one database: each hears half of what a device says."""
    world.send("bed-1", birth())
    world.flush()
    other = World(world.database)
    other.now = BEGIN + 25.0
    other.send("bed-1", beat())
    other.send("bed-2", birth(boot_id="b2"))
    other.flush()
    world.now = BEGIN + 40.0
    assert world.state("bed-1") == "stale"
    world.roster.refresh(world.now - 20.0)
    assert [world.state(name) for name in ("bed-1", "bed-2")] == ["online", "online"]
    # what this one heard later is not undone, by refreshing or by the other's writing
    world.send("bed-1", beat())
    world.roster.refresh(world.now - 20.0)
    assert world.roster.known("bed-1").last_heard == BEGIN + 40.0
    world.flush()
    other.roster.note(other.roster.get("bed-1"))
    other.flush()
    with world.database.read() as connection:
        heard = connection.scalar(select(schema.devices.c.last_heard).where(schema.devices.c.name == "bed-1"))
    assert heard == BEGIN + 40.0


def test_refreshing_calls_no_silent_device_online_again(world: World) -> None:
    # birth and heartbeat in one batch: the row that is written holds their time, and not yet the interval
    world.commit(world.message("bed-1", birth()), world.message("bed-1", beat(interval_s=0.1)))
    world.now = BEGIN + 0.5
    assert world.state("bed-1") == "stale"
    world.roster.refresh(world.now - 1.0)
    assert world.state("bed-1") == "stale"
    world.now = BEGIN + 1.5
    world.roster.refresh(world.now - 1.0)
    assert world.state("bed-1") == "offline"


def test_heartbeats_become_spans_with_their_extremes(world: World) -> None:
    begin = BEGIN // 300 * 300
    world.now = begin
    world.send("bed-1", birth())
    for load, memory, temperature in ((0.5, 100.4, None), (2.5, 80.2, 61.5), (None, 90.0, 40.0)):
        world.send(
            "bed-1",
            beat(load_1m=load, memory_available_mb=memory, temperature_c=temperature, outbox_depth=3),
        )
        world.now += 10.0
    world.beats.close()  # as at the end of the program
    world.flush()
    world.restart()
    world.send("bed-1", beat(load_1m=3.5, memory_available_mb=85.0))  # the same span, after the restart
    world.now = begin + 300.0
    world.send("bed-1", beat(load_1m=0.1))
    world.flush()
    with world.database.read() as connection:
        rows = connection.execute(select(schema.health)).mappings().all()
        newest = connection.execute(select(schema.latest.c.kind, schema.latest.c.seq)).all()
    assert [dict(row) for row in rows] == [
        {
            "device": "bed-1",
            "at": begin,
            "span_s": 300,
            "beats": 4,
            "load_max": 3.5,
            "memory_min_mb": 80.0,
            "resident_max_mb": None,
            "temperature_max_c": 61.5,
            "disk_min_mb": None,
            "outbox_max": 3,
            "reading_age_max_s": None,
        }
    ]
    assert ("heartbeat", 6) in newest


def test_a_device_set_up_anew_does_not_lose_against_its_former_life_in_one_batch(world: World) -> None:
    world.send("bed-1", birth(boot_id="old"), boot=40)
    old = world.message("bed-1", assessment(reading_age_s=1.0), boot=40)
    anew = world.message("bed-1", birth(boot_id="new"), boot=1)
    new = world.message("bed-1", assessment(reading_age_s=2.0), boot=1)
    world.commit(old, anew, new)
    with world.database.read() as connection:
        body = connection.scalar(select(schema.latest.c.body).where(schema.latest.c.kind == "assessment"))
    assert msgspec.json.decode(body)["reading_age_s"] == 2.0
    assert world.roster.known("bed-1").data_age_s == 2.0


def test_a_batch_that_came_before_is_known_again(world: World) -> None:
    items = [world.message("bed-1", birth())] + [world.message("bed-1", assessment()) for _ in range(5)]
    world.commit(*items[:4])
    with world.database.append({"bed-1"}) as connection:
        again = record(connection, [*items, *items], POLICY, world.roster)
    assert [item.envelope.seq for item in again.new] == [5, 6]
