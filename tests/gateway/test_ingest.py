"""From the broker into the database: each message once, none lost, nothing stopped by rubbish."""

import signal
import sqlite3
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from gateway_peers import Device, Gateway, Peer, Process, assessment, free_port, own_file, stored, until

from samd_gateway.cli import main
from samd_protocol import envelope, topics
from samd_protocol.messages import Deterioration


def test_a_message_that_comes_again_changes_nothing(
    broker_url: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(broker_url)
    device = peers(Device(broker_url, name))
    sealed = device.assess()
    for _ in range(5):
        device.publish(topics.up(name, "assessment"), envelope.encode(sealed))
    last = device.assess(4)
    until(lambda: (gateway.device(name) or {}).get("assessment", None) is not None)
    until(lambda: (name, last.seq) in stored(gateway.data))
    assert sorted(seq for device_, seq in stored(gateway.data) if device_ == name) == [sealed.seq, last.seq]
    assert gateway.metric("samd_gateway_duplicates_total") == 5


def test_nobody_can_suppress_another_message_by_its_id(
    broker_url: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(broker_url)
    mine, other = peers(Device(broker_url, name)), peers(Device(broker_url, f"{name}-x"))
    sealed = mine.sealer.seal(assessment())
    stolen = envelope.Envelope(
        **{field: getattr(sealed, field) for field in sealed.__struct_fields__} | {"device": other.name}
    )
    other.publish(topics.up(other.name, "assessment"), envelope.encode(stolen))
    until(lambda: stored(gateway.data))
    mine.publish(topics.up(name, "assessment"), envelope.encode(sealed))
    until(lambda: len(stored(gateway.data)) == 2)


def test_the_latest_is_by_boot_and_sequence_not_by_arrival(
    broker_url: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(broker_url)
    device = peers(Device(broker_url, name))
    early = device.sealer.seal(assessment(1))
    late = device.assess(6)
    until(lambda: (name, late.seq) in stored(gateway.data))
    device.publish(topics.up(name, "assessment"), envelope.encode(early))
    until(lambda: (name, early.seq) in stored(gateway.data))
    assert gateway.device(name)["assessment"]["news2"]["low"] == 6


def test_killed_in_the_middle_of_a_stream_it_loses_none(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    """kill -9 three times during 2,000 messages: each is stored, each once."""
    gateway = make_gateway(own_broker)
    device = peers(Device(own_broker, "bed-01"))
    sent = []
    for part in range(4):
        sent += [device.assess().seq for _ in range(500)]
        if part < 3:
            until(lambda part=part: len(stored(gateway.data)) > part * 500, what="some are stored")
            gateway.end(signal.SIGKILL)
            sent += [device.assess().seq for _ in range(20)]
            gateway.start()
    until(lambda: len(stored(gateway.data)) >= len(sent), seconds=30.0, what="all are stored")
    assert sorted(seq for _, seq in stored(gateway.data)) == sorted(sent)
    assert gateway.get("/healthz")["status"] == "ok"


def test_rubbish_is_counted_and_stops_nothing(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    gateway = make_gateway(own_broker)
    device = peers(Device(own_broker, "bed-01"))
    good = envelope.encode(device.sealer.seal(assessment()))
    beyond = Deterioration(asked_at=datetime.now(UTC), horizon_h=6, version=1, probability=2.0)
    impossible = device.sealer.seal(assessment(deterioration=beyond))
    vandal = peers(Peer(own_broker, "vandal"))
    topic = topics.up("bed-66", "assessment")
    flood = [
        (topic, b""),
        (topic, b"\xff\xfe\x00"),
        (topic, b"[" * 100_000),
        (topic, b'{"v":99}'),
        (topic, b"x" * 300_000),
        (topic, good),  # another's name
        (topics.up("bed-66", "alert"), good.replace(b"bed-01", b"bed-66")),  # another kind's topic
        (topic, good.replace(b"bed-01", b"bed-66").replace(b'"seq":', b'"seq":99999999999999999999')),
        (topic, good.replace(b"bed-01", b"bed-66").replace(b'"boot":1', b'"boot":-1')),
        (topic, envelope.encode(impossible).replace(b"bed-01", b"bed-66")),  # a probability of 2
        ("samd/v1/d/b%C3/up/assessment", good),
        (topics.SERVER_RUN, good),
    ]
    for _ in range(30):
        for where, what in flood:
            vandal.publish(where, what)
    last = device.assess()
    until(lambda: ("bed-01", last.seq) in stored(gateway.data), seconds=20.0)
    until(lambda: gateway.metric("samd_gateway_dropped_total") == 30 * len(flood))
    text = gateway.http.get("/metrics").text
    for reason in ("malformed", "version", "size", "forged", "topic"):
        assert f'samd_gateway_dropped_total{{reason="{reason}"}}' in text
    dropped = [line for line in gateway.process.errors if "was dropped" in line]
    assert len(dropped) == 3  # bed-66, the server's topic, and a name that is none: each once
    assert gateway.device("bed-66") is None
    assert gateway.get("/healthz")["status"] == "ok"


@own_file
def test_while_the_database_fails_nothing_is_acknowledged_and_later_all_is_there(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    gateway = make_gateway(own_broker)
    device = peers(Device(own_broker, "bed-01"))
    until(lambda: gateway.device("bed-01"))
    lock = sqlite3.connect(gateway.data / "gateway.sqlite3", isolation_level=None, timeout=60.0)
    lock.execute("BEGIN IMMEDIATE")  # as a full disk or a stuck process would: no writer gets through
    sent = [device.assess().seq for _ in range(150)]
    until(lambda: gateway.http.get("/healthz", timeout=30.0).status_code == 503, seconds=60.0)
    assert "database" in gateway.get("/healthz")["database"]
    assert stored(gateway.data) == []
    lock.execute("ROLLBACK")
    lock.close()
    until(lambda: len(stored(gateway.data)) == len(sent), seconds=20.0)
    until(lambda: gateway.http.get("/healthz").status_code == 200)


def test_without_broker_it_says_so_and_connects_when_it_is_there(tmp_path: Path, peers: Callable) -> None:
    port = free_port()
    process = Process(
        "serve", "--broker", f"mqtt://127.0.0.1:{port}", "--port", "0", "--data", str(tmp_path / "g")
    )
    broker = None
    try:
        http = httpx.Client(base_url=process.ready(), trust_env=False)
        answer = http.get("/healthz")
        assert answer.status_code == 503
        assert str(port) in answer.json()["broker"]
        broker = Process("broker", "--port", str(port))
        broker.ready()
        until(lambda: http.get("/healthz").status_code == 200, seconds=20.0)
        http.close()
    finally:
        process.end()
        if broker is not None:
            broker.end()


@own_file
def test_the_folder_is_the_owners_alone_and_one_gateways(
    broker_url: str, make_gateway: Callable[..., Gateway]
) -> None:
    gateway = make_gateway(broker_url)
    assert stat.S_IMODE(gateway.data.stat().st_mode) == 0o700
    assert stat.S_IMODE((gateway.data / "gateway.sqlite3").stat().st_mode) == 0o600
    second = Process("serve", "--broker", broker_url, "--port", "0", "--data", str(gateway.data))
    assert second.popen.wait(20.0) == 2
    second.end()
    assert "another gateway uses it" in "".join(second.errors)


def test_a_gateway_with_a_new_database_gets_the_retained_messages(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    first = make_gateway(own_broker)
    peers(Device(own_broker, "bed-01"))
    until(lambda: first.device("bed-01"))
    first.end()
    second = make_gateway(own_broker, data="another")
    device = until(lambda: second.device("bed-01"))
    assert (device["state"], device["client_version"]) == ("unknown", "0.1.0")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--broker", "http://x"], "mqtt://HOST:PORT"),
        (["--stale-after", "9", "--offline-after", "3"], "heartbeat intervals"),
        (["--name", "a/b"], "letters, digits"),
        (["--data", "/proc/none"], "choose a folder"),
    ],
)
def test_bad_settings_are_one_sentence(
    options: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path)] if "--data" not in options else []
    assert main(["serve", "--port", "0", *data, *options]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert word in told.err
