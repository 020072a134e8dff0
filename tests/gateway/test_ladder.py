"""What time does: steps of the ladder, pauses that end, and silence. The clock is an argument."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bedside_bench import ADMIN, BEGIN, NURSE, Bench
from gateway_peers import Device, Gateway, until
from sqlalchemy import select

from samd_gateway import schema, settings
from samd_gateway.alerts import ladder
from samd_gateway.alerts.clock import Clock
from samd_gateway.alerts.rules import LADDER, SILENCE, Ladder, Silence
from samd_gateway.alerts.silence import Facts, Last, Silent, Watch, judge
from samd_gateway.errors import UsageError
from samd_gateway.roster import Known
from samd_gateway.states import DeviceState


class Timed(Bench):
    """With the thread's work done by hand, and devices as a roster would tell of them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.devices: dict[str, Known] = {}
        self.leads = True
        self.restart()

    def restart(self) -> None:
        """A new process on the same database."""
        self.clock = Clock(
            self.database,
            Watch(lambda: self.devices),
            leading=lambda: self.leads,
            changed=self.told.extend,
            now=lambda: self.now,
        )

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.clock.look()

    def set(self, key: str, value: Ladder | Silence) -> None:
        with self.database.write() as connection:
            settings.put(connection, key, value, type(value)(), actor=ADMIN, now=self.now)

    def device(self, name: str, state: str, code: str, since: float | None = None, **more: object) -> None:
        self.devices[name] = Known(
            name=name,
            first_heard=BEGIN - 1000,
            state=DeviceState(state=state, reason="as told", since=since or self.now, code=code),
            **more,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Timed:
    return Timed(tmp_path)


# the ladder


@pytest.mark.parametrize(
    ("severity", "waited", "step"),
    [(3, 299.9, 0), (3, 300.0, 1), (3, 899.9, 1), (3, 900.0, 2), (3, 1e6, 2), (2, 899.0, 0), (2, 900.0, 1)],
)
def test_the_step_that_is_due(severity: int, waited: float, step: int) -> None:
    assert ladder.step_due(Ladder(), severity, 0, BEGIN, BEGIN + waited) == step


def test_an_alert_of_severity_1_stays_where_it_is_unless_it_is_set() -> None:
    assert ladder.step_due(Ladder(), 1, 0, BEGIN, BEGIN + 1e6) == 0
    assert ladder.step_due(Ladder(severity_1=(60.0,)), 1, 0, BEGIN, BEGIN + 60.0) == 1
    assert ladder.step_due(Ladder(enabled=False), 3, 0, BEGIN, BEGIN + 1e6) == 0


def test_an_alert_climbs_until_somebody_comes(bench: Timed) -> None:
    bench.say("bed-01", "raised", 3)
    alert = bench.one().id
    bench.after(299)
    assert bench.one().step == 0
    bench.after(1)
    assert (bench.one().step, bench.one().step_at.timestamp()) == (1, BEGIN + 300)
    bench.after(10)
    assert bench.one().step == 1
    bench.desk.acknowledge([alert], NURSE)
    bench.after(3600)
    assert bench.one().step == 1
    assert bench.changes(alert) == [("device", "raised"), ("system", "step"), ("kim", "acknowledged")]


def test_the_ladder_goes_on_after_a_restart_and_takes_missed_steps_as_one(bench: Timed) -> None:
    bench.say("bed-01", "raised", 3)
    bench.after(299)
    bench.restart()
    bench.after(7200)
    assert bench.one().step == 2
    assert [change for _, change in bench.changes(bench.one().id)] == ["raised", "step"]
    bench.after(7200)
    assert bench.one().step == 2


def test_a_climb_of_two_gateways_at_once_is_one_step(bench: Timed) -> None:
    bench.say("bed-01", "raised", 3)
    bench.now += 301
    for _ in range(2):
        with bench.database.write() as connection:
            ladder.climb(connection, Ladder(), bench.now)
    assert [change for _, change in bench.changes(bench.one().id)] == ["raised", "step"]


def test_the_ladder_begins_anew_when_an_acknowledged_alert_becomes_worse(bench: Timed) -> None:
    bench.say("bed-01", "raised", 2)
    bench.after(900)
    assert bench.one().step == 1
    bench.desk.acknowledge([bench.one().id], NURSE)
    bench.after(5000)
    bench.say("bed-01", "escalated", 3)
    assert bench.one().step == 0
    bench.after(300)
    assert bench.one().step == 1


def test_the_limits_are_settings_and_are_checked(bench: Timed) -> None:
    bench.set(LADDER, Ladder(severity_2=(5.0,)))
    bench.say("bed-01", "raised", 2)
    bench.after(5)
    assert bench.one().step == 1
    assert ("lee", "settings.change", "settings/ladder") in bench.audited()
    with pytest.raises(ValueError, match="severity_2: each step comes later"):
        Ladder(severity_2=(9.0, 5.0))
    with pytest.raises(UsageError, match="setting ladder"):
        bench.set(LADDER, Ladder(severity_3=(0.5,)))


def test_a_pause_that_is_over_brings_the_alert_back(bench: Timed) -> None:
    bench.say("bed-01", "raised", 3)
    alert = bench.one().id
    bench.desk.acknowledge([alert], NURSE)
    bench.desk.pause(alert, NURSE, until=BEGIN + 600, reason="in theatre")
    bench.after(599)
    assert bench.one().paused
    bench.restart()
    bench.after(1)
    row = bench.one()
    assert (row.paused, row.acknowledged, row.step) == (False, False, 0)
    assert row.waiting_since is not None
    assert row.waiting_since.timestamp() == BEGIN + 600
    bench.after(300)
    assert bench.one().step == 1
    assert bench.changes(alert)[-2:] == [("system", "resumed"), ("system", "step")]


# silence


def facts(state: str, code: str, since: float = BEGIN, **more: object) -> Facts:
    told = DeviceState(state=state, reason="as told", since=since, code=code)
    return Facts(state=told, **({"was_heard": True, "admitted": False} | more))


RULES = Silence(after_s=20, reading_age_s=3600, continuous_age_s=600, severity=2)
ILL, WELL = Last(3, continuous=True), Last(0, continuous=False)


@pytest.mark.parametrize(
    ("told", "after", "severity"),
    [
        (facts("stale", "quiet"), 19.9, None),
        (facts("stale", "quiet"), 20.0, 1),
        (facts("offline", "will"), 20.0, 1),
        (facts("offline", "silent", admitted=True), 20.0, 2),
        (facts("offline", "silent", admitted=True, last=ILL), 20.0, 3),
        (facts("offline", "silent", source_at=BEGIN, last=WELL), 20.0, 2),
        (facts("stale", "asleep", admitted=True), 20.0, 2),
        (facts("online", "online", admitted=True, source_at=BEGIN, last=WELL), 3601.0, 2),
        (facts("online", "online", admitted=True, source_at=BEGIN, last=ILL), 601.0, 3),
        (facts("offline", "silent", was_heard=False, admitted=True), 20.0, 2),
    ],
)
def test_a_device_that_should_report_is_silent(told: Facts, after: float, severity: int | None) -> None:
    found = judge(told, BEGIN + after, RULES)
    assert (found.severity if isinstance(found, Silent) else found) == severity


@pytest.mark.parametrize(
    ("told", "finding"),
    [
        (facts("online", "online"), "heard"),
        (facts("online", "online", admitted=True, source_at=BEGIN, last=WELL), "heard"),
        (facts("online", "late", admitted=True), "heard"),
        (facts("stale", "asleep"), "heard"),
        # it cannot be told: nothing is raised, and what is open stays open
        (facts("stale", "deaf", admitted=True), None),
        (facts("unknown", "new", was_heard=False), None),
    ],
)
def test_a_device_that_is_not_silent_or_of_which_nothing_can_be_said(told: Facts, finding: object) -> None:
    assert judge(told, BEGIN + 500, RULES) == finding


def test_silence_is_raised_once_over_restarts_and_cleared_when_it_is_heard(bench: Timed) -> None:
    bench.device("bed-01", "online", "online")
    bench.after(1)
    assert bench.alerts() == []
    bench.device("bed-01", "stale", "quiet")
    bench.after(21)
    row = bench.one()
    assert (row.kind, row.state, row.severity) == ("silence", "active", 1)
    bench.device("bed-01", "offline", "silent")
    bench.after(60)
    bench.restart()
    bench.after(60)
    assert bench.one().id == row.id
    bench.device("bed-01", "stale", "deaf")
    bench.after(60)
    assert bench.one(state="active").id == row.id
    bench.device("bed-01", "online", "online")
    bench.after(1)
    assert bench.one().state == "cleared"
    bench.device("bed-01", "offline", "will")
    bench.after(21)
    assert [row.state for row in bench.alerts()] == ["active", "cleared"]


def test_a_later_heartbeat_that_another_gateway_took_in_is_looked_up_before_raising(bench: Timed) -> None:
    old = {"heartbeat_at": BEGIN, "source_age_s": 0.0}
    bench.device("bed-01", "online", "online", **old)
    bench.device("bed-02", "online", "online", **old)
    with bench.database.write() as connection:
        connection.execute(
            schema.latest.insert().values(
                device="bed-01",
                kind="heartbeat",
                boot=1,
                seq=9,
                received_at=BEGIN + 3700,
                sent_at=BEGIN + 3700,
                synced=True,
                body='{"type":"heartbeat","interval_s":10.0,"uptime_s":1.0,"reading_age_s":5.0}',
            )
        )
    bench.after(3800)
    assert [row.device for row in bench.alerts()] == ["bed-02"]
    assert bench.one().reason == "its device lives, but has had no reading for more than 60 min"


def test_silence_can_be_switched_off(bench: Timed) -> None:
    bench.device("bed-01", "offline", "will")
    bench.after(30)
    assert len(bench.alerts(state="active")) == 1
    bench.set(SILENCE, Silence(enabled=False))
    bench.after(1)
    assert bench.alerts(state="active") == []


def test_the_database_holds_one_open_alert_of_a_kind_a_device(bench: Timed) -> None:
    bench.say("bed-01", "raised", 3)
    table = schema.alerts
    with bench.database.read() as connection:
        row = dict(connection.execute(select(table)).mappings().one())
    from sqlalchemy.exc import IntegrityError

    with pytest.raises(IntegrityError), bench.database.write() as connection:
        connection.execute(table.insert().values(**(row | {"id": "other", "source_id": "other"})))


# over real connections


def test_a_device_that_dies_is_raised_and_cleared_by_a_real_gateway(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(own_broker)
    rules = {"silence": {"after_s": 0.0}, "ladder": {"severity_1": [1.0]}}
    assert gateway.http.put("/api/alert-rules", json=rules).json()["silence"]["after_s"] == 0.0
    device = peers(Device(own_broker, name))
    until(lambda: gateway.device(name))

    def silent() -> list[dict]:
        return gateway.get("/api/alerts", kind="silence", state="all")["alerts"]

    device.die()
    (row,) = until(silent)
    assert (row["device"], row["state"], row["severity"]) == (name, "active", 1)
    until(lambda: silent()[0]["step"] == 1, what="the ladder")
    gateway.end()
    gateway.start()
    until(lambda: gateway.device(name)["state"] == "offline")
    assert [each["id"] for each in silent()] == [row["id"]]
    peers(Device(own_broker, name, connection=2))
    until(lambda: silent()[0]["state"] == "cleared")
    assert len(silent()) == 1
