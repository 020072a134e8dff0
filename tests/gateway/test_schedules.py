"""Schedules: their times where clocks change, what is kept of them, and that each is begun once."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from gateway_peers import Device, Gateway, Server, own_file, until
from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.access.actor import Actor
from samd_gateway.cli import main
from samd_gateway.errors import ConflictError, ForbiddenError, NotFoundError, UnavailableError, UsageError
from samd_gateway.schedules.firing import GRACE_S, PATIENCE_S, Firing
from samd_gateway.schedules.service import Schedules, Wanted
from samd_gateway.schedules.times import Quiet, following, next_time, quiet, timing
from samd_gateway.schema import Database, open_database
from samd_protocol.messages import RunSpec

OPERATOR = Actor(name="op", role="operator", via="api")


def at(text: str) -> float:
    """A moment, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def due(cron: str, zone: str, after: str, *spans: str, count: int = 4, local: bool = False) -> list[str]:
    found = following(timing(cron, zone, spans), at(after), count)
    place = ZoneInfo(zone) if local else UTC
    return [datetime.fromtimestamp(each, place).strftime("%d %H:%M") for each in found]


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # Berlin, 29 March 2026: 02:00 becomes 03:00. A fixed time in the gap comes right after it.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00", ["28 01:30", "29 01:00", "30 00:30", "31 00:30"]),
        # an hourly one counts real hours
        ("0 * * * *", "Europe/Berlin", "2026-03-29T00:00", ["29 01:00", "29 02:00", "29 03:00", "29 04:00"]),
        # Berlin, 25 October 2026: 03:00 becomes 02:00. A fixed time that is had twice comes once, the first.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["25 00:30", "26 01:30", "27 01:30", "28 01:30"]),
        # asked in the second of the two hours: it has been
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", ["26 01:30", "27 01:30", "28 01:30", "29 01:30"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-24T23:30", ["25 00:00", "25 01:00", "25 02:00", "25 03:00"]),
        # New York, 8 March and 1 November 2026
        ("15 2 * * *", "America/New_York", "2026-03-07T12:00",
         ["08 07:00", "09 06:15", "10 06:15", "11 06:15"]),
        ("15 1 * * *", "America/New_York", "2026-10-31T12:00",
         ["01 05:15", "02 06:15", "03 06:15", "04 06:15"]),
        # Seoul has no summer time
        ("0 3 * * MON", "Asia/Seoul", "2026-03-01T00:00", ["01 18:00", "08 18:00", "15 18:00", "22 18:00"]),
        # half an hour of summer time on Lord Howe, 5 April 2026: 02:00 becomes 01:30
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-03T20:00",
         ["04 14:45", "05 15:15", "06 15:15", "07 15:15"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["29 00:00", "29 00:00", "29 00:00", "29 00:00"]),
    ],
)  # fmt: skip
def test_exact_times_where_clocks_change(cron: str, zone: str, after: str, expected: list[str]) -> None:
    assert due(cron, zone, after) == expected


def test_the_same_wall_time_all_year() -> None:
    days = following(timing("30 4 * * *", "Europe/Berlin"), at("2026-01-01T00:00"), 365)
    walls = {datetime.fromtimestamp(each, ZoneInfo("Europe/Berlin")).strftime("%H:%M") for each in days}
    assert walls == {"04:30"}
    assert days == sorted(set(days))


def test_quiet_hours_leave_out_what_falls_into_them() -> None:
    assert due("0 */2 * * *", "UTC", "2026-05-01T20:30", "22:00-06:00") == [
        "02 06:00", "02 08:00", "02 10:00", "02 12:00",
    ]  # fmt: skip
    # by the clock on the wall there, summer and winter
    assert due("0 * * * *", "Europe/Berlin", "2026-07-01T19:30", "22:00-06:00", count=1) == ["02 04:00"]
    assert due("0 * * * *", "Europe/Berlin", "2026-01-01T20:30", "22:00-06:00", count=1) == ["02 05:00"]
    assert due("0,30 * * * *", "UTC", "2026-05-01T11:45", "12:00-12:30", "13:00-24:00", count=3) == [
        "01 12:30", "02 00:00", "02 00:30",
    ]  # fmt: skip
    assert quiet("22:00-06:00") == Quiet(1320, 360)
    assert [Quiet(1320, 360).holds(minute) for minute in (1319, 1320, 0, 359, 360)] == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert following(timing("0 3 * * *", "UTC", ["02:00-04:00"]), at("2026-05-01T00:00")) == []
    leap = timing("0 3 29 2 *", "Asia/Seoul", ["02:00-04:00"])
    assert following(leap, at("2026-05-01T00:00")) == [], "and no search without an end"
    with pytest.raises(UsageError, match="never due outside the quiet hours"):
        next_time(timing("0 3 * * *", "UTC", ["02:00-04:00"]), at("2026-05-01T00:00"))


@pytest.mark.parametrize(
    ("cron", "zone", "spans", "told"),
    [
        ("* * * *", "UTC", [], "write five fields"),
        ("0 0 3 * * *", "UTC", [], "write five fields"),
        ("61 * * * *", "UTC", [], "Bad minute"),
        ("0 0 31 2 *", "UTC", [], "Bad day-of-month"),
        ("*/0 * * * *", "UTC", [], "Bad minute"),
        ("0 0 * * *", "Mars/Olympus", [], "time zone 'Mars/Olympus' is not known"),
        ("0 0 * * *", "../../etc/passwd", [], "is not known"),
        ("0 0 * * *", "Europe", [], "is not known"),
        ("0 0 * * *", "", [], "is not known"),
        ("0 0 * * *", "UTC", ["22-06"], "write a span of the day"),
        ("0 0 * * *", "UTC", ["06:00-06:00"], "write a span of the day"),
        ("0 0 * * *", "UTC", ["24:00-06:00"], "write a span of the day"),
        ("0 0 * * *", "UTC", ["01:00-02:00"] * 11, "at most 10"),
        ("0" * 200 + " * * * *", "UTC", [], "write five fields"),
    ],
)
def test_what_is_no_time_is_said(cron: str, zone: str, spans: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        timing(cron, zone, spans)


# kept, and begun


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = open_database(None, tmp_path)
    yield found
    found.close()


class Clock:
    def __init__(self, text: str) -> None:
        self.at = at(text)

    def __call__(self) -> float:
        return self.at


def test_what_is_kept_and_audited(database: Database) -> None:
    clock = Clock("2026-05-01T12:00")
    schedules = Schedules(database, now=clock)
    made = schedules.add(
        OPERATOR,
        Wanted(name="nightly", cron="30 2 * * *", timezone="Asia/Seoul", quiet=["06:00-22:00"], tag="icu"),
    )
    assert made.next_at == datetime(2026, 5, 1, 17, 30, tzinfo=UTC)
    assert [each.day for each in made.following] == [1, 2, 3, 4, 5]
    assert (made.created_by, made.last_outcome) == ("op", None)
    off = schedules.change(OPERATOR, made.id, {"enabled": False})
    assert (off.enabled, off.next_at, off.following) == (False, None, [])
    on = schedules.change(OPERATOR, made.id, {"enabled": True, "cron": "0 4 * * *"})
    assert on.next_at == datetime(2026, 5, 1, 19, 0, tzinfo=UTC)
    renamed = schedules.change(OPERATOR, made.id, {"name": "early"})
    assert (renamed.name, renamed.next_at) == ("early", on.next_at)
    with pytest.raises(UsageError, match="never due outside"):
        schedules.change(OPERATOR, made.id, {"quiet": ["00:00-12:00"]})
    with pytest.raises(UsageError, match="devices or a tag"):
        schedules.change(OPERATOR, made.id, {"devices": ["bed-01"]})
    with pytest.raises(ForbiddenError):
        schedules.remove(Actor(name="n", role="nurse", via="api"), made.id)
    schedules.remove(OPERATOR, made.id)
    with pytest.raises(NotFoundError):
        schedules.one(made.id)
    with database.read() as connection:
        rows = connection.execute(select(schema.audit).order_by(schema.audit.c.id)).mappings().all()
    assert [row["action"] for row in rows] == [
        "schedule.add", "schedule.change", "schedule.change", "schedule.change", "schedule.remove",
    ]  # fmt: skip
    assert json.loads(rows[1]["before"])["enabled"] is True
    assert json.loads(rows[1]["after"])["enabled"] is False


class Begins:
    """Begins a run as the coordinator does: what `also` writes is in the transaction of the run's own row."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.calls: list[tuple[RunSpec, Any, str]] = []
        self.error: Exception | None = None

    def __call__(
        self,
        spec: RunSpec,
        devices: Sequence[str] | None,
        actor: Actor,
        *,
        also: Callable[[Connection, str], None] | None = None,
    ) -> str:
        if self.error is not None:
            raise self.error
        run = f"run-{len(self.calls) + 1}"
        with self.database.write() as connection:
            if also is not None:
                also(connection, run)
        self.calls.append((spec, devices, actor.name))
        return run


def firing(
    database: Database, begin: Begins, clock: Clock, online: Mapping[str, str] | None = None
) -> Firing:
    return Firing(database, begin, online=lambda: online or {}, leading=lambda: True, now=clock)


def test_each_time_is_begun_once_whoever_looks(database: Database) -> None:
    clock = Clock("2026-05-01T12:00")
    schedules, begin = Schedules(database, now=clock), Begins(database)
    spec = RunSpec(rounds=3, quorum=2)
    made = schedules.add(OPERATOR, Wanted(name="hourly", cron="0 * * * *", spec=spec, devices=["b", "a"]))
    one, two = firing(database, begin, clock), firing(database, begin, clock)
    assert one.step() == 3600.0
    assert begin.calls == []
    clock.at += 3600.5
    with database.read() as connection:
        row = dict(connection.execute(select(schema.schedules)).mappings().one())
    one.step()
    two._fire(row, clock.at)  # it had looked at the same moment
    two.step()
    assert begin.calls == [(spec, ["a", "b"], f"schedule:{made.id}")]
    found = schedules.one(made.id)
    assert (found.last_run, found.last_outcome) == ("run-1", "started")
    assert found.last_at == datetime(2026, 5, 1, 13, tzinfo=UTC)
    assert found.next_at == datetime(2026, 5, 1, 14, tzinfo=UTC)


def test_what_was_missed_is_begun_at_most_once(database: Database) -> None:
    clock = Clock("2026-05-01T12:00")
    schedules, begin = Schedules(database, now=clock), Begins(database)
    made = schedules.add(OPERATOR, Wanted(name="often", cron="*/5 * * * *"))
    clock.at = at("2026-05-01T12:14")
    firing(database, begin, clock).step()
    assert len(begin.calls) == 1, "12:05 and 12:10 have been: one run for both"
    assert schedules.one(made.id).next_at == datetime(2026, 5, 1, 12, 15, tzinfo=UTC)
    clock.at = at("2026-05-01T18:00") + 1
    firing(database, begin, clock).step()
    assert len(begin.calls) == 1
    found = schedules.one(made.id)
    assert found.last_outcome == "missed: no gateway was there to begin it"
    assert found.last_at == datetime(2026, 5, 1, 12, 15, tzinfo=UTC)
    assert found.next_at == datetime(2026, 5, 1, 18, 5, tzinfo=UTC)


def test_a_conflict_is_what_became_of_it(database: Database) -> None:
    clock = Clock("2026-05-01T12:00")
    schedules, begin = Schedules(database, now=clock), Begins(database)
    made = schedules.add(OPERATOR, Wanted(name="hourly", cron="0 * * * *"))
    begin.error = ConflictError("run run-0 is going on, and there is one at a time", run="run-0")
    clock.at += 3601
    firing(database, begin, clock).step()
    found = schedules.one(made.id)
    assert found.last_outcome == "not started: run run-0 is going on, and there is one at a time"
    assert (found.last_run, found.next_at) == (None, datetime(2026, 5, 1, 14, tzinfo=UTC))


def test_without_broker_it_waits_and_not_for_ever(database: Database) -> None:
    clock = Clock("2026-05-01T12:00")
    schedules, begin = Schedules(database, now=clock), Begins(database)
    made = schedules.add(OPERATOR, Wanted(name="daily", cron="0 13 * * *"))
    begin.error = UnavailableError("the broker cannot be reached")
    clock.at += 3601
    look = firing(database, begin, clock)
    look.step()
    assert schedules.one(made.id).last_outcome == "waiting: the broker cannot be reached"
    begin.error = None
    clock.at += 60
    look.step()
    assert schedules.one(made.id).last_outcome == "started"
    begin.error = UnavailableError("the broker cannot be reached")
    clock.at += 86_400
    look.step()
    clock.at += GRACE_S
    look.step()
    assert schedules.one(made.id).last_outcome == "missed: the broker cannot be reached"


def test_a_tag_asks_those_that_are_online(database: Database) -> None:
    clock = Clock("2026-05-01T12:00")
    schedules, begin = Schedules(database, now=clock), Begins(database)
    made = schedules.add(OPERATOR, Wanted(name="icu", cron="0 * * * *", tag="icu"))
    with database.write() as connection:
        connection.execute(schema.tags.insert(), [{"device": name, "tag": "icu"} for name in ("c", "a", "b")])
    clock.at += 3601
    states = {"a": "online", "b": "offline", "c": "online", "d": "online"}
    firing(database, begin, clock, states).step()
    assert [call[1] for call in begin.calls] == [["a", "c"]]
    clock.at += 3600
    look = firing(database, begin, clock, {"a": "stale"})
    look.step()
    assert schedules.one(made.id).last_outcome == "waiting: no device with the tag 'icu' is online"
    clock.at += PATIENCE_S
    look.step()
    assert schedules.one(made.id).last_outcome == "not started: no device with the tag 'icu' is online"


def test_a_disabled_one_begins_nothing(database: Database) -> None:
    clock = Clock("2026-05-01T12:00")
    schedules, begin = Schedules(database, now=clock), Begins(database)
    made = schedules.add(OPERATOR, Wanted(name="off", cron="0 * * * *", enabled=False))
    clock.at += 7200
    firing(database, begin, clock).step()
    assert begin.calls == []
    assert schedules.one(made.id).last_outcome is None


# a real gateway


@own_file
def test_a_gateway_begins_what_fell_due_while_it_was_away(
    own_broker: str,
    make_gateway: Callable[..., Gateway],
    peers: Callable,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gateway = make_gateway(own_broker, "--no-pages")
    server, device = peers(Server(own_broker)), peers(Device(own_broker, "bed-01"))
    until(lambda: gateway.get("/api/server")["status"] == "online")
    until(lambda: (gateway.device("bed-01") or {}).get("state") == "online")

    def command(*words: str) -> Any:
        capsys.readouterr()
        assert main(["schedules", *words, "--gateway", gateway.url, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    made = command(
        "add", "nightly", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--quiet", "06:00-22:00",
        "--rounds", "2", "--quorum", "1",
    )  # fmt: skip
    assert (made["spec"]["rounds"], made["quiet"]) == (2, ["06:00-22:00"])
    other = command("add", "second", "--cron", "31 2 * * *")
    assert [each["schedule"] for each in command("next")][:1] != []
    assert len(command("next", "--cron", "0 3 * * *", "--count", "3")["times"]) == 3
    assert command("disable", other["id"])["next_at"] is None
    assert command("enable", other["id"])["next_at"] is not None
    gateway.end(9)
    with sqlite3.connect(gateway.data / "gateway.sqlite3") as connection:
        connection.execute("UPDATE schedules SET next_at = strftime('%s') - 30 WHERE id = ?", (made["id"],))
        connection.execute("UPDATE schedules SET next_at = strftime('%s') - 20 WHERE id = ?", (other["id"],))
    connection.close()
    gateway.start()
    order = server.order(20.0)
    assert (order.spec.rounds, order.devices) == (2, ["bed-01"])
    found = {each["id"]: each for each in command("list")["schedules"]}
    assert (found[made["id"]]["last_run"], found[made["id"]]["last_outcome"]) == (order.run, "started")
    until(lambda: command("list")["schedules"][0]["last_outcome"] is not None)
    second = {each["id"]: each for each in command("list")["schedules"]}[other["id"]]
    assert second["last_outcome"].startswith(f"not started: run {order.run} is going on")
    until(lambda: device.commands)
    assert command("remove", other["id"]) == {"removed": other["id"]}
    assert gateway.http.get(f"/api/schedules/{other['id']}").status_code == 404
    assert gateway.http.delete("/api/schedules/none").status_code == 404
    for bad in (
        {"name": "x", "cron": "* * * *  "},
        {"name": "x\0", "cron": "0 0 * * *"},
        {"cron": "0 0 * * *"},
    ):
        assert gateway.http.post("/api/schedules", json=bad).status_code == 422
    assert msgspec.json.encode(gateway.get("/api/schedules"))
