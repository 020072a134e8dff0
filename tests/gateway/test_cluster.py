"""Several gateways on one database: who leads, messages that are shared, one run, two of one name."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gateway_peers import Device, Gateway, Peer, Process, Server, assessment, until
from mosquitto_peer import Mosquitto
from postgres import PostgreSQL
from sqlalchemy import create_engine, select
from sqlalchemy.engine import make_url

from samd_gateway import schema
from samd_gateway.cli import main
from samd_gateway.cluster import Cluster, members
from samd_gateway.errors import UsageError
from samd_gateway.schema import Database, open_database
from samd_gateway.twin import Twin
from samd_protocol import envelope, topics
from samd_protocol.messages import Result


class Clock:
    """A clock that a test sets, for both the wall and the monotonic one."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = open_database(None, tmp_path)
    yield found
    found.close()


def member(database: Database, clock: Clock, name: str, folder: str | None = None) -> Cluster:
    return Cluster(
        database, name, folder or name, version="1", alone=False, now=clock, monotonic=clock, address="here"
    )


def test_one_leads_until_its_lease_ends(database: Database) -> None:
    clock = Clock()
    one, two = member(database, clock, "one"), member(database, clock, "two")
    one.join()
    two.join()
    assert (one.leading, two.leading) == (True, False)
    clock.at += 3.9
    two.renew()
    assert (one.leading, two.leading) == (True, False), "a second before the end it still leads"
    clock.at += 0.2
    two.renew()
    assert (one.leading, two.leading) == (False, False), "and then nobody does, never both"
    clock.at += 1.0
    two.renew()
    one.renew()
    assert (one.leading, two.leading) == (False, True)


def test_one_that_leaves_gives_the_lease_back(database: Database) -> None:
    clock = Clock()
    one, two = member(database, clock, "one"), member(database, clock, "two")
    one.join()
    two.join()
    one.stop()
    two.renew()
    assert two.leading
    with database.read() as connection:
        found = {each.name: each for each in members(connection, clock.at)}
    assert {name: (each.live, each.leading) for name, each in found.items()} == {
        "one": (False, False),
        "two": (True, True),
    }


def test_a_clock_that_was_set_back_gives_no_lease_for_ever(database: Database) -> None:
    clock = Clock()
    one, two = member(database, clock, "one"), member(database, clock, "two")
    one.join()
    clock.at -= 3600.0
    two.join()
    assert two.leading, "no holder of today wrote a lease that ends in an hour"


def test_a_name_is_given_once(database: Database) -> None:
    clock = Clock()
    one = member(database, clock, "one")
    one.join()
    stopped = threading.Event()

    def live() -> None:
        while not stopped.wait(0.02):
            clock.at += 0.1
            one.renew()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(UsageError, match="another gateway of that name runs on this database at here"):
            member(database, clock, "one", "another-folder").join()
    finally:
        stopped.set()
        thread.join()
    again = member(database, clock, "one", "one")
    again.join()
    assert again.leading, "the same folder, whose lock is held: the former process is dead"
    one.renew()
    assert one.problem is not None
    assert "stop one of the two" in one.problem
    assert not one.leading


def test_a_twin_at_the_broker() -> None:
    clock = Clock()
    twin = Twin("main", topics.gateway_state("main"), now=clock)
    sealer = envelope.Sealer("gateway.main", 7)

    def state(status: Any) -> bytes:
        from samd_protocol.messages import GatewayState

        return envelope.encode(sealer.seal(GatewayState(status=status, version="0.0.9")))

    ours = state("online")
    twin.said(envelope.decode(ours).id)
    assert not twin.heard(ours, retained=False)
    assert not twin.heard(state("online"), retained=True), "the last word of this gateway's earlier life"
    assert twin.problem is None
    assert not twin.heard(state("online"), retained=False)
    assert twin.problem == (
        "another gateway named main is at this broker (version 0.0.9); "
        "stop one of the two, or start it with another --name"
    )
    assert twin.heard(state("offline"), retained=False), "its goodbye stands where our birth should"
    assert twin.problem is None


# real gateways on a real broker


class Pair:
    """Two gateways on one database and one broker."""

    def __init__(self, broker: str, url: str, make: Callable[..., Gateway], env: dict[str, str]) -> None:
        self.broker, self.url, self.env, self._make = broker, url, env, make
        self.one = self.add("one")
        self.two = self.add("two")

    def add(self, name: str, *options: str) -> Gateway:
        return self._make(self.broker, "--name", name, "--share", "ward", *options, data=name, env=self.env)

    @property
    def both(self) -> tuple[Gateway, Gateway]:
        return self.one, self.two

    def leader(self) -> str | None:
        for gateway in self.both:
            if gateway.process.popen.poll() is None:
                found = gateway.get("/api/gateways")["gateways"]
                return next((each["name"] for each in found if each["leading"]), None)
        return None

    def query(self, statement: Any) -> list[Any]:
        url = make_url(self.url)
        if "SAMD_DATABASE_PASSWORD_FILE" in self.env:
            url = url.set(password=Path(self.env["SAMD_DATABASE_PASSWORD_FILE"]).read_text())
        engine = create_engine(url)
        with engine.connect() as connection:
            found = list(connection.execute(statement))
        engine.dispose()
        return found


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(
    request: pytest.FixtureRequest,
    mosquitto: Mosquitto,
    tmp_path: Path,
    make_gateway: Callable[..., Gateway],
) -> Pair:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/together.sqlite3"
        return Pair(mosquitto.url, url, make_gateway, {"SAMD_DATABASE_URL": url})
    server: PostgreSQL = request.getfixturevalue("postgresql")
    url = server.create()
    return Pair(mosquitto.url, url, make_gateway, server.environment(url))


COUNT = 4000
ASSESSMENTS = 'samd_gateway_messages_total{kind="assessment"}'


def test_nothing_is_lost_when_one_of_two_is_killed(pair: Pair, peers: Callable) -> None:
    """Thousands of messages are shared; the leader is killed in the middle; the other fetches what waited for
    it, leads, and each message is on record once, the newest of each device as its latest."""
    devices = [peers(Device(pair.broker, f"bed-{index}", interval_s=5.0)) for index in range(8)]
    assert pair.leader() == "one"
    sent = {device.name: 0 for device in devices}
    infos = []
    for index in range(COUNT // 8):
        for device in devices:
            sealed = device.sealer.seal(assessment(index % 20))
            infos.append(device.publish(topics.up(device.name, "assessment"), envelope.encode(sealed)))
            sent[device.name] = sealed.seq
        if index == COUNT // 24:
            until(lambda: pair.one.metric(ASSESSMENTS) > 50, what="the first one takes its share")
            pair.one.end(9)
    for info in infos:
        info.wait_for_publish(30.0)
        assert info.is_published()
    kept = schema.messages
    count = select(kept.c.device, kept.c.seq).where(kept.c.kind == "assessment")
    until(lambda: len(pair.query(count)) == COUNT, 60.0, "all messages are on record")
    rows = pair.query(count)
    assert len(set(rows)) == COUNT
    latest = schema.latest
    newest = select(latest.c.device, latest.c.seq).where(latest.c.kind == "assessment")
    assert dict(tuple(row) for row in pair.query(newest)) == sent
    assert pair.leader() == "two"
    shares = pair.two.metric(ASSESSMENTS)
    assert COUNT * 0.5 < shares < COUNT, "the first one had its share"
    states = {each["name"]: each["state"] for each in pair.two.get("/api/devices")["devices"]}
    assert states == {device.name: "online" for device in devices}


def test_messages_are_divided_and_each_gateway_shows_them_all(pair: Pair, peers: Callable) -> None:
    device = peers(Device(pair.broker, "bed-01", interval_s=5.0))
    for gateway in pair.both:
        until(lambda gateway=gateway: (gateway.device("bed-01") or {}).get("state") == "online")
    seen: dict[str, list[int]] = {"one": [], "two": []}
    stop = threading.Event()

    def listen(name: str, gateway: Gateway, ready: threading.Event) -> None:
        with gateway.http.stream("GET", "/api/events", timeout=30.0) as response:
            event = ""
            for line in response.iter_lines():
                if line.startswith("event:"):
                    event = line[6:].strip()
                    if event == "hello":
                        ready.set()
                elif line.startswith("data:") and event == "assessment":
                    seen[name].append(json.loads(line[5:])["news2"]["low"])
                if stop.is_set() or seen[name][-1:] == [19]:
                    return

    with ThreadPoolExecutor(2) as pool:
        ready = {name: threading.Event() for name in seen}
        tasks = [
            pool.submit(listen, name, gateway, ready[name])
            for name, gateway in zip(seen, pair.both, strict=True)
        ]
        try:
            assert all(each.wait(10.0) for each in ready.values())
            for total in range(1, 20):
                device.assess(total)
            for task in tasks:
                task.result(20.0)
        finally:
            stop.set()
    counts = [gateway.metric(ASSESSMENTS) for gateway in pair.both]
    assert sum(counts) == 19
    assert all(count > 0 for count in counts), "each took its share"
    for name, shown in seen.items():
        assert shown == sorted(shown), f"nothing older came after something newer: {name}"
        assert shown[-1] == 19, f"and the last was shown: {name}"
    device.die()  # its will: the leader hears it plainly too
    for gateway in pair.both:
        until(lambda gateway=gateway: gateway.device("bed-01")["state"] == "offline")


def test_a_device_that_was_set_up_anew_counts_from_one_at_both(pair: Pair, peers: Callable) -> None:
    """Its boot counter began again: whichever gateway hears what, the new life counts."""
    old = peers(Device(pair.broker, "bed-01", boot=7, boot_id="old", interval_s=5.0))
    for total in (1, 2, 3, 4):
        old.assess(total)
    for gateway in pair.both:
        until(lambda gateway=gateway: (gateway.device("bed-01") or {}).get("assessment") or {})
    old.die()
    until(lambda: pair.one.device("bed-01")["state"] == "offline")
    new = peers(Device(pair.broker, "bed-01", boot=1, boot_id="new", interval_s=5.0))
    for gateway in pair.both:
        until(lambda gateway=gateway: gateway.device("bed-01")["boot_id"] == "new")
        until(lambda gateway=gateway: gateway.device("bed-01")["state"] == "online")

    def shown() -> bool:
        new.assess(9)
        low = schema.latest.c.body
        found = pair.query(select(low).where(schema.latest.c.kind == "assessment"))
        return all(json.loads(body)["news2"]["low"] == 9 for (body,) in found)

    for _ in range(4):  # each of the two takes its share of these
        until(shown)


def test_two_gateways_that_are_asked_at_once_start_one_run(pair: Pair, peers: Callable) -> None:
    server = peers(Server(pair.broker))
    device = peers(Device(pair.broker, "bed-01"))
    for gateway in pair.both:
        until(lambda gateway=gateway: gateway.get("/api/server")["status"] == "online")
        until(lambda gateway=gateway: (gateway.device("bed-01") or {}).get("state") == "online")
    barrier = threading.Barrier(2)

    def ask(gateway: Gateway) -> tuple[int, dict[str, Any]]:
        barrier.wait(10.0)
        answer = gateway.http.post("/api/runs", json={"quorum": 1})
        return answer.status_code, answer.json()

    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            answers = sorted(pool.map(ask, pair.both), key=lambda each: each[0])
        assert [status for status, _ in answers] == [201, 409]
        run = answers[0][1]["id"]
        assert answers[1][1]["run"] == run
        order = server.order()
        assert (order.action, order.run, order.devices) == ("start", run, ["bed-01"])
        server.status(run, "done", round=1, rounds=1)
        for gateway in pair.both:
            until(lambda gateway=gateway, run=run: gateway.run(run)["state"] == "done")
        until(lambda run=run: device.told_to_stop(run))
    assert server.orders.empty(), "and each was handed over once"


def test_a_run_that_was_asked_of_a_follower_outlives_the_leader(pair: Pair, peers: Callable) -> None:
    server = peers(Server(pair.broker))
    device = peers(Device(pair.broker, "bed-01", answer=None))
    for gateway in pair.both:
        until(lambda gateway=gateway: gateway.get("/api/server")["status"] == "online")
        until(lambda gateway=gateway: (gateway.device("bed-01") or {}).get("state") == "online")
    assert pair.leader() == "one"
    started = pair.two.http.post("/api/runs", json={"quorum": 1, "admission_deadline_s": 60})
    assert started.status_code == 201, started.text
    run = started.json()["id"]
    until(lambda: device.commands)
    command = pair.two.get("/api/devices/bed-01/results")["results"][0]["command"]
    pair.one.end(9)
    device.send(topics.up("bed-01", "result"), Result(command=command, status="accepted"))
    assert server.order(20.0).run == run, "the other one leads within seconds, and hands it over"
    until(lambda: pair.two.run(run)["state"] == "handed-over")


def test_a_second_gateway_of_that_name_is_refused(pair: Pair) -> None:
    second = Process(
        *("serve", "--broker", pair.broker, "--port", "0", "--name", "one", "--share", "ward"),
        *("--data", str(pair.one.data.with_name("elsewhere"))),
        env=pair.env,
    )
    assert second.popen.wait(30.0) == 2
    second.end()
    assert "--name one: another gateway of that name runs on this database" in "".join(second.errors)
    assert pair.one.get("/healthz")["status"] == "ok"


def test_two_of_one_name_on_different_databases_are_told(
    broker_url: str, make_gateway: Callable[..., Gateway], name: str
) -> None:
    one = make_gateway(broker_url, "--name", name, data="one")
    two = make_gateway(broker_url, "--name", name, data="two")
    until(lambda: one.http.get("/healthz").status_code == 503)
    told = one.get("/healthz")["broker"]
    assert told.startswith(f"another gateway named {name} is at this broker")
    assert told.endswith("stop one of the two, or start it with another --name")
    two.end()
    until(lambda: one.http.get("/healthz").status_code == 200)


def test_what_is_shared_needs_a_database_and_a_broker_that_can(
    broker_url: str, tmp_path: Path, name: str
) -> None:
    options = ("serve", "--port", "0", "--broker", broker_url, "--share", "ward", "--name", name)
    alone = Process(*options, "--data", str(tmp_path / "a"), env={"SAMD_DATABASE_URL": ""})
    assert alone.popen.wait(30.0) == 2
    alone.end()
    assert "need one database" in alone.errors[-1]
    url = f"sqlite:///{tmp_path}/b.sqlite3"
    embedded = Process(*options, "--data", str(tmp_path / "b"), env={"SAMD_DATABASE_URL": url})
    assert embedded.popen.wait(30.0) == 2
    embedded.end()
    assert "the embedded broker has no shared subscriptions" in embedded.errors[-1]
    check = Peer(broker_url, name)  # and the broker lives
    check.close()


def test_the_database_of_one_gateway_alone_is_its_own(
    make_gateway: Callable[..., Gateway], broker_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = make_gateway(broker_url, data="alone")
    with sqlite3.connect(f"file:{gateway.data}/gateway.sqlite3?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT name FROM gateways").fetchall()
    connection.close()
    assert found == [("main",)]
    assert [each["leading"] for each in gateway.get("/api/gateways")["gateways"]] == [True]
    capsys.readouterr()
    assert main(["gateways", "--gateway", gateway.url, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["gateways"]
    assert (told["name"], told["live"], told["leading"], told["this"]) == ("main", True, True, True)
    assert told["address"] == gateway.url
    assert main(["gateways", "--gateway", gateway.url]) == 0
    assert "leads" in capsys.readouterr().out
