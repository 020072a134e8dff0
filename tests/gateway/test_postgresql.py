"""The gateway on a real PostgreSQL server: what differs from a file, and the essential tests again on it."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_peers import Device, Gateway, Process, until
from postgres import PostgreSQL, connect_as

from samd_gateway import schema
from samd_gateway.errors import UsageError
from samd_protocol import topics
from samd_protocol.errors import BrokerError
from samd_protocol.messages import Alert, State

ESSENTIAL = (
    "test_ingest.py",
    "test_states.py",
    "test_fleet.py",
    "test_fleet_table.py",
    "test_events.py",
    "test_alerts.py",
    "test_ladder.py",
    "test_notifications.py",
    "test_ward.py",
    "test_admission.py",
    "test_run_control.py",
    "test_schedules.py",
    "test_access_gate.py",
    "test_audit.py",
)


@pytest.fixture
def database(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[schema.Database]:
    opened = schema.open_database(postgresql.create(), tmp_path, password_file=str(postgresql.password_file))
    yield opened
    opened.close()


def test_a_gateway_runs_on_it_and_is_restarted(
    own_broker: str,
    postgresql: PostgreSQL,
    make_gateway: Callable[..., Gateway],
    peers: Callable,
    tmp_path: Path,
) -> None:
    env = postgresql.environment(postgresql.create())
    gateway = make_gateway(own_broker, env=env)
    device = peers(Device(own_broker, "bed-01"))
    sealed = device.assess(5)
    raised = Alert(
        alert_id="a-1",
        state="raised",
        severity=2,
        observed_at=sealed.sent_at,
        news2_low=5,
        news2_high=7,
    )
    device.send(topics.up("bed-01", "alert"), raised)
    until(lambda: gateway.get("/api/alerts")["alerts"], what="the alert")
    assert (gateway.device("bed-01") or {})["assessment"]["news2"]["low"] == 5
    assert gateway.get("/healthz")["status"] == "ok"
    # nothing lies in the folder but what is of this machine
    assert not list((tmp_path / "gateway").glob("*.sqlite3*"))
    assert gateway.end() == 0
    gateway.start()
    assert (gateway.device("bed-01") or {})["assessment"]["news2"]["low"] == 5
    info = gateway.get("/api/database")
    assert info["backend"] == "postgresql"
    assert info["size_bytes"] > 0
    assert "only-for-tests" not in "".join(gateway.process.errors)


def test_a_character_that_it_cannot_hold_costs_no_batch(
    own_broker: str, postgresql: PostgreSQL, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    env = postgresql.environment(postgresql.create())
    gateway = make_gateway(own_broker, env=env)
    device = peers(Device(own_broker, "bed-01"))
    state = State(
        status="online", boot_id=device.boot_id, connection=2, client_version="1.0\0evil", model_version=3
    )
    device.send(topics.up("bed-01", "state"), state, retain=True)
    ids = [device.assess(total).id for total in range(1, 20)]

    def held() -> set[str]:
        with connect_as(env) as connection:
            return {row[0] for row in connection.execute("SELECT id FROM messages").fetchall()}

    until(lambda: set(ids) <= held())
    until(lambda: "evil" in ((gateway.device("bed-01") or {})["client_version"] or ""))
    assert gateway.metric('samd_dropped_total{reason="not storable"}') == 0


def test_text_of_any_kind_is_stored(database: schema.Database) -> None:
    for number, text in enumerate(("a\0b", "\ud800", "의식 수준", "'; DROP TABLE tags; --")):
        with database.write() as connection:
            connection.execute(schema.tags.insert().values(device=f"bed-{number}", tag=text))
    with database.read() as connection:
        found = [row.tag for row in connection.execute(schema.tags.select().order_by(schema.tags.c.device))]
    assert found == ["a\N{REPLACEMENT CHARACTER}b", "?", "의식 수준", "'; DROP TABLE tags; --"]


# transactions


def test_a_reader_sees_one_moment_and_cannot_write(database: schema.Database) -> None:
    count = schema.tags.select()
    with database.read() as reader:
        assert reader.execute(count).all() == []
        with database.write() as writer:
            writer.execute(schema.tags.insert().values(device="bed-01", tag="new"))
        assert reader.execute(count).all() == []
        with pytest.raises(Exception, match="read-only"):
            reader.execute(schema.tags.insert().values(device="bed-02", tag="new"))


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], Any]], threading.Event]]:
    """Enters a transaction in another thread, which ends it at once; whether it was entered."""
    threads: list[threading.Thread] = []

    def start(enter: Callable[[], Any]) -> threading.Event:
        inside = threading.Event()

        def run() -> None:
            with enter():
                inside.set()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return inside

    yield start
    for thread in threads:
        thread.join(20)


def test_appends_of_different_senders_go_side_by_side(database: schema.Database, in_thread: Callable) -> None:
    with database.append({"bed-01", "bed-02"}):
        assert in_thread(lambda: database.append({"bed-03"})).wait(10)


@pytest.mark.parametrize("other", ["the same sender", "a write"])
def test_what_reads_and_then_writes_is_alone_meanwhile(
    database: schema.Database, in_thread: Callable, other: str
) -> None:
    enter = database.write if other == "a write" else lambda: database.append({"bed-02", "bed-04"})
    with database.append({"bed-01", "bed-02"}):
        inside = in_thread(enter)
        until(lambda: _waiting(database) == 1, what="a lock that is waited for")
        assert not inside.is_set()
    assert inside.wait(10)


def test_a_write_keeps_appends_out(database: schema.Database, in_thread: Callable) -> None:
    with database.write():
        inside = in_thread(lambda: database.append({"bed-01"}))
        until(lambda: _waiting(database) == 1)
        assert not inside.is_set()
    assert inside.wait(10)


def _waiting(database: schema.Database) -> int:
    with database.read() as connection:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return int(connection.exec_driver_sql(query).scalar_one())


# how it is named


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql+psycopg://samd:secret@127.0.0.1/x", "a password does not belong into the URL"),
        ("mysql://127.0.0.1/x", "not supported|cannot be used"),
        ("postgresql://samd@127.0.0.1/x", "not supported|cannot be used"),
        ("nonsense", "cannot be used"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_being_quoted(tmp_path: Path, url: str, error: str) -> None:
    with pytest.raises(UsageError, match=error) as raised:
        schema.open_database(url, tmp_path)
    assert "secret" not in str(raised.value)


def test_a_password_that_others_can_read_is_refused(postgresql: PostgreSQL, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("only-for-tests")
    file.chmod(0o644)
    with pytest.raises(BrokerError, match="others can read this secret"):
        schema.open_database(postgresql.create(), tmp_path, password_file=str(file))


def test_a_server_that_refuses_is_one_line_and_exit_code_2(
    postgresql: PostgreSQL, broker_url: str, tmp_path: Path
) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("wrong")
    wrong.chmod(0o600)
    env = postgresql.environment(postgresql.create()) | {"SAMD_DATABASE_PASSWORD_FILE": str(wrong)}
    process = Process("serve", "--broker", broker_url, "--port", "0", "--data", str(tmp_path / "d"), env=env)
    assert process.popen.wait(60) == 2
    process.end()
    assert "the database cannot be opened" in process.errors[-1]


def test_a_database_of_another_encoding_is_refused(postgresql: PostgreSQL, tmp_path: Path) -> None:
    with postgresql.connect("postgres") as connection:
        connection.execute(
            "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    url = postgresql.create().rsplit("/", 1)[0] + "/latin"
    with pytest.raises(UsageError, match="has the encoding LATIN1; create it anew"):
        schema.open_database(url, tmp_path, password_file=str(postgresql.password_file))


@pytest.mark.long
@pytest.mark.parametrize("file", ESSENTIAL)
@pytest.mark.timeout(1200)
def test_the_essential_tests_pass_on_it(postgresql: PostgreSQL, file: str) -> None:
    """The same tests, in a run of their own in which every gateway uses PostgreSQL."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(here / file), "-q", "-x", "-p", "no:cacheprovider"],
        check=False,
        capture_output=True,
        text=True,
        timeout=1100,
        cwd=here.parent.parent,
        env={**os.environ, "SAMD_TEST_DATABASE": "postgresql"},
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
