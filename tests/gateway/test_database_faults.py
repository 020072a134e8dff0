"""A database that is locked, full, damaged or away: messages wait at the broker, /healthz says why, and once
it is well again nothing is missing."""

import itertools
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gateway_peers import Device, Gateway, Process, stored, until
from postgres import PostgreSQL, connect_as

MESSAGES = 300


def unhealthy(gateway: Gateway, text: str) -> None:
    """Until /healthz answers 503 and says so much of the database."""

    def says() -> bool:
        answer = gateway.http.get("/healthz")
        return answer.status_code == 503 and text in answer.json()["database"]

    until(says, seconds=60.0, what=f"/healthz says {text!r}: {gateway.get('/healthz')}")


def healthy(gateway: Gateway) -> None:
    until(lambda: gateway.http.get("/healthz").status_code == 200, seconds=60.0)


def sequence(device: Device) -> set[tuple[str, int]]:
    return {(device.name, device.assess(1).seq) for _ in range(MESSAGES)}


def test_a_file_that_another_program_holds(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    gateway = make_gateway(own_broker)
    device = peers(Device(own_broker, "bed-01"))
    until(lambda: gateway.device("bed-01"))
    holder = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        ["python3", "-c", holder, str(gateway.data / "gateway.sqlite3")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"held\n"
        sent = sequence(device)
        unhealthy(gateway, "database is locked")
        assert not sent & set(stored(gateway.data))
        process.stdin.close()
    until(lambda: sent <= set(stored(gateway.data)), seconds=60.0)
    healthy(gateway)
    assert len(stored(gateway.data)) == len(sent)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "none", str(disk)],
        check=False,
        capture_output=True,
    )
    if done.returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full(
    own_broker: str, small_disk: Path, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    gateway = make_gateway(own_broker, data=str(small_disk / "gateway"))
    try:
        device = peers(Device(own_broker, "bed-01"))
        first = device.assess().seq
        until(lambda: ("bed-01", first) in stored(gateway.data))
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):  # noqa: PT012
            for _ in itertools.repeat(None):
                file.write(b"\0" * 4096)
        sent: set[tuple[str, int]] = set()

        def full() -> bool:  # what is free within its files is used up first
            sent.update(sequence(device))
            answer = gateway.http.get("/healthz")
            return answer.status_code == 503 and "full" in answer.json()["database"]

        until(full, seconds=90.0, what="a full disk")
        assert not sent <= set(stored(gateway.data))
        filler.unlink()
        until(lambda: sent <= set(stored(gateway.data)), seconds=90.0)
        healthy(gateway)
        assert len(stored(gateway.data)) == len(sent) + 1
    finally:
        gateway.end()


def test_a_server_that_goes_away_and_comes_back(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    server = PostgreSQL()
    try:
        env = server.environment(server.create())
        gateway = make_gateway(own_broker, env=env)
        device = peers(Device(own_broker, "bed-01"))
        until(lambda: gateway.device("bed-01"))
        before = sequence(device)
        server.stop()
        sent = before | sequence(device)
        unhealthy(gateway, "the database cannot be")
        server.start()

        def held() -> list[Any]:
            with connect_as(env) as connection:
                query = "SELECT device, seq FROM messages WHERE kind = 'assessment'"
                return connection.execute(query).fetchall()

        until(lambda: sent <= set(held()), seconds=90.0)
        healthy(gateway)
        assert len(held()) == len(sent)
        until(lambda: (gateway.device("bed-01") or {}).get("state") == "online", seconds=60.0)
        assert gateway.end() == 0
    finally:
        server.close()


def test_a_gateway_does_not_start_on_a_damaged_file(
    own_broker: str, make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "gateway.sqlite3").write_bytes(b"no database" * 1000)
    process = Process("serve", "--broker", own_broker, "--port", "0", "--data", str(folder))
    assert process.popen.wait(60) == 2
    process.end()
    assert "the database cannot be opened" in process.errors[-1]
    assert (folder / "gateway.sqlite3").read_bytes() == b"no database" * 1000


def test_a_database_that_lacks_a_table_loses_no_message(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    """As while somebody restores it by hand: no message is to blame, so none is dropped."""
    gateway = make_gateway(own_broker)
    device = peers(Device(own_broker, "bed-01"))
    until(lambda: gateway.device("bed-01"))
    path = gateway.data / "gateway.sqlite3"
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("ALTER TABLE messages RENAME TO messages_away")
        connection.commit()
    sent = sequence(device)
    unhealthy(gateway, "no such table")
    assert gateway.metric('samd_dropped_total{reason="not storable"}') == 0
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("ALTER TABLE messages_away RENAME TO messages")
        connection.commit()
    until(lambda: sent <= set(stored(gateway.data)), seconds=60.0)
    healthy(gateway)
