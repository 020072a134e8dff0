"""What is kept how long: figures of hours are exact, rows move once, and nobody waits for it."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gateway_peers import Gateway, until
from postgres import PostgreSQL
from sqlalchemy import func, select

from samd_gateway import retention, schema
from samd_gateway.access.actor import SYSTEM
from samd_gateway.downsample import HOUR_S, SPAN_S
from samd_gateway.errors import UsageError
from samd_gateway.retention import Retention

NOON = 1_760_000_400.0 // HOUR_S * HOUR_S
DAY = 86_400.0


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[schema.Database]:
    if request.param == "sqlite":
        opened = schema.open_database(None, tmp_path)
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        opened = schema.open_database(server.create(), tmp_path, password_file=str(server.password_file))
    yield opened
    opened.close()


def assessment(
    number: int, at: float, low: int, *, device: str = "bed-01", late_s: float = 1.0, **more: Any
) -> dict[str, Any]:
    body = {
        "type": "assessment",
        "observed_at": datetime.fromtimestamp(at, UTC).isoformat(),
        "news2": {"total": None, "low": low, "high": low + 3, "band": "low", "points": {}, "missing": []},
        "rule_severity": min(low // 3, 3),
        "rule_severity_possible": 3,
        "severity": min(low // 3, 3),
        "disagreement": False,
    } | more
    return {
        "device": device,
        "id": f"m{number}",
        "kind": "assessment",
        "boot": 1,
        "seq": number,
        "received_at": at + late_s,
        "sent_at": at,
        "body": json.dumps(body),
    }


def message(number: int, kind: str, at: float) -> dict[str, Any]:
    return assessment(number, at, 0) | {"kind": kind, "body": "{}"}


def insert(database: schema.Database, table: Any, rows: list[dict[str, Any]]) -> None:
    with database.write() as connection:
        connection.execute(table.insert(), rows)


def everything(database: schema.Database, table: Any) -> list[dict[str, Any]]:
    with database.read() as connection:
        query = select(table).order_by(*table.primary_key)
        return [dict(row) for row in connection.execute(query).mappings()]


def put(database: schema.Database, **values: Any) -> None:
    with database.write() as connection:
        retention.put(connection, Retention(**values), actor=SYSTEM, now=NOON)


def prune(database: schema.Database, now: float) -> dict[str, int]:
    taken, complete = retention.prune(database, now, pause=lambda seconds: None)
    assert complete
    return {name: rows for name, rows in taken.items() if rows}


def test_assessments_become_hours_with_the_exact_count_and_worst_figures(database: schema.Database) -> None:
    model = {"severity": 2, "probabilities": [0, 0, 1, 0], "version": 3}
    ahead = {"asked_at": "2026-01-01T00:00:00Z", "horizon_h": 6, "version": 1, "probability": 0.25}
    insert(
        database,
        schema.messages,
        [
            assessment(1, NOON, 3),
            assessment(2, NOON + 1800, 7, disagreement=True, model=model),
            assessment(3, NOON + 3599, 1, deterioration=ahead),
            assessment(4, NOON + 3600, 2),  # the next hour
            assessment(5, NOON + 100, 9, late_s=7200),  # of the first hour, received two hours later
            assessment(6, NOON + 20 * HOUR_S, 4, late_s=-3 * HOUR_S),  # from the future: the hour it came in
            assessment(7, NOON, 5, device="bed-02", late_s=0.0),
        ],
    )
    assert prune(database, NOON + 31 * DAY) == {"assessments into hours": 7}
    nothing = {"model_severity_max": None, "probability_max": None, "disagreements": 0}
    assert everything(database, schema.messages) == []
    assert everything(database, schema.assessment_hours) == [
        {
            "device": "bed-01",
            "hour": NOON,
            "count": 4,
            "low_max": 9,
            "high_max": 12,
            "severity_max": 3,
            "model_severity_max": 2,
            "probability_max": 0.25,
            "disagreements": 1,
        },
        {
            "device": "bed-01",
            "hour": NOON + HOUR_S,
            "count": 1,
            "low_max": 2,
            "high_max": 5,
            "severity_max": 0,
        }
        | nothing,
        {
            "device": "bed-01",
            "hour": NOON + 17 * HOUR_S,
            "count": 1,
            "low_max": 4,
            "high_max": 7,
            "severity_max": 1,
        }
        | nothing,
        {"device": "bed-02", "hour": NOON, "count": 1, "low_max": 5, "high_max": 8, "severity_max": 1}
        | nothing,
    ]
    assert prune(database, NOON + 31 * DAY) == {}


def test_an_hour_moves_only_once_it_is_past_as_a_whole(database: schema.Database) -> None:
    insert(database, schema.messages, [assessment(1, NOON, 3), assessment(2, NOON + 3000, 4)])
    assert prune(database, NOON + 30 * DAY + 1800) == {}
    assert prune(database, NOON + 30 * DAY + 3600) == {"assessments into hours": 2}


def test_hours_are_the_same_however_the_rows_are_cut_into_batches(
    database: schema.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_ = random.Random(7)
    rows = [
        assessment(
            number, NOON + random_.uniform(0, 6 * HOUR_S), random_.randint(0, 17), device=f"bed-{number % 3}"
        )
        for number in range(500)
    ]
    expected: dict[tuple[str, float], list[int]] = {}
    for row in rows:
        low = json.loads(row["body"])["news2"]["low"]
        expected.setdefault((row["device"], row["sent_at"] // HOUR_S * HOUR_S), []).append(low)
    monkeypatch.setattr(retention, "BATCH_ROWS", 37)
    insert(database, schema.messages, rows)
    assert prune(database, NOON + 31 * DAY) == {"assessments into hours": 500}
    found = {
        (row["device"], row["hour"]): (row["count"], row["low_max"], row["high_max"])
        for row in everything(database, schema.assessment_hours)
    }
    assert found == {key: (len(lows), max(lows), max(lows) + 3) for key, lows in expected.items()}


def test_health_of_five_minutes_becomes_that_of_an_hour(
    database: schema.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = {column.name: None for column in schema.health.columns}
    monkeypatch.setattr(retention, "BATCH_DEVICES", 2)
    insert(
        database,
        schema.health,
        [
            empty
            | {
                "device": f"bed-{device}",
                "at": NOON + span * SPAN_S,
                "span_s": SPAN_S,
                "beats": 10,
                "load_max": 0.1 * span,
                "disk_min_mb": 100.0 - span,
                "outbox_max": None if span == 3 else span,
            }
            for device in range(5)
            for span in range(24)
        ],
    )
    assert prune(database, NOON + 7 * DAY + HOUR_S) == {"health into hours": 60}
    rest = [row for row in everything(database, schema.health) if row["span_s"] == SPAN_S]
    assert len(rest) == 60
    assert {row["at"] for row in rest} == {NOON + HOUR_S + span * SPAN_S for span in range(12)}
    hours = [row for row in everything(database, schema.health) if row["span_s"] == HOUR_S]
    assert [row["device"] for row in hours] == [f"bed-{device}" for device in range(5)]
    for row in hours:
        assert row | {"device": ""} == empty | {
            "device": "",
            "at": NOON,
            "span_s": HOUR_S,
            "beats": 120,
            "load_max": pytest.approx(1.1),
            "disk_min_mb": 89.0,
            "outbox_max": 11,
        }
    # a span that comes late is added to its hour, and what it does not tell changes nothing
    late = empty | {"device": "bed-0", "at": NOON + 300, "span_s": SPAN_S, "beats": 1, "disk_min_mb": 50.0}
    insert(database, schema.health, [late])
    assert prune(database, NOON + 7 * DAY + HOUR_S) == {"health into hours": 1}
    (hour,) = [
        row for row in everything(database, schema.health) if row["device"] == "bed-0" and row["at"] == NOON
    ]
    assert (hour["beats"], hour["disk_min_mb"], hour["load_max"]) == (121, 50.0, pytest.approx(1.1))


def test_what_goes_and_what_stays(database: schema.Database) -> None:
    old, new = NOON - 31 * DAY, NOON - 29 * DAY
    kinds = ("alert", "config", "result", "state", "training")
    insert(
        database,
        schema.messages,
        [message(number, kind, at) for at in (old, new) for number, kind in enumerate(kinds, int(at))],
    )
    command = {"device": "bed-01", "type": "report", "body": "{}", "expires_at": old + 60}
    insert(
        database,
        schema.commands,
        [
            command | {"id": "gone", "issued_at": old},
            command | {"id": "of-a-run", "issued_at": old},
            command | {"id": "kept", "issued_at": new},
        ],
    )
    insert(database, schema.participants, [{"run": "r", "device": "bed-01", "command": "of-a-run"}])
    insert(
        database,
        schema.assessment_hours,
        [
            {"device": "bed-01", "hour": NOON - days * DAY, "count": 1, "disagreements": 0}
            for days in (401, 399)
        ],
    )
    expected = {"messages": 4, "commands": 1, "hours of assessments": 1}
    with database.read() as connection:
        preview = {name: rows for name, rows in retention.preview(connection, NOON).items() if rows}
    assert preview == expected
    assert prune(database, NOON) == expected
    kept = everything(database, schema.messages)
    assert sorted(row["kind"] for row in kept if row["received_at"] < NOON - 30 * DAY) == ["alert"]
    assert len(kept) == 6
    assert [row["id"] for row in everything(database, schema.commands)] == ["kept", "of-a-run"]


def test_alerts_and_audit_are_kept_for_ever_unless_set(database: schema.Database) -> None:
    alert = {"device": "bed-01", "kind": "severity", "raised_at": 0.0, "step": 0}
    insert(
        database,
        schema.alerts,
        [
            alert | {"id": "over", "source_id": "1", "state": "cleared", "changed_at": NOON - 40 * DAY},
            alert | {"id": "open", "source_id": "2", "state": "active", "changed_at": NOON - 40 * DAY},
            alert | {"id": "late", "source_id": "3", "state": "cleared", "changed_at": NOON - 5 * DAY},
        ],
    )
    change = {"at": 0.0, "actor": "device", "change": "raised", "detail": "{}"}
    insert(database, schema.alert_changes, [change | {"alert": name} for name in ("over", "open", "late")])
    with database.read() as connection:
        entries = connection.scalar(select(func.count()).select_from(schema.audit))
    assert prune(database, NOON) == {}
    put(database, alerts_days=30, audit_days=30)
    assert prune(database, NOON) == {"alerts": 1, "changes of alerts": 1}
    assert [row["id"] for row in everything(database, schema.alerts)] == ["late", "open"]
    assert [row["alert"] for row in everything(database, schema.alert_changes)] == ["open", "late"]
    # the change of the setting is itself on record, until its own time is over
    assert len(everything(database, schema.audit)) == entries + 1
    assert prune(database, NOON + 31 * DAY)["audit"] == entries + 1


@pytest.mark.parametrize("days", [1, 0, -1, 36_501])
def test_a_time_that_would_lose_messages_is_refused(tmp_path: Path, days: int) -> None:
    database = schema.open_database(None, tmp_path)
    with pytest.raises(UsageError, match="setting retention"):
        put(database, assessments_days=days)
    database.close()


def test_a_file_gives_back_the_room_that_is_free(tmp_path: Path) -> None:
    database = schema.open_database(None, tmp_path)
    filler = {"filler": "x" * 4000}
    insert(database, schema.messages, [assessment(number, NOON, 1, **filler) for number in range(5000)])
    with database.write() as connection:
        before = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    assert before > 5000
    prune(database, NOON + 31 * DAY)
    with database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    assert free < 2000
    assert pages < before / 2
    database.close()


def test_a_writer_never_waits_for_more_than_one_batch(tmp_path: Path) -> None:
    """Others write between any two batches: counted, not timed."""
    database = schema.open_database(None, tmp_path)
    insert(
        database, schema.messages, [assessment(number, NOON, 1) for number in range(3 * retention.BATCH_ROWS)]
    )
    written: list[int] = []

    def pause(_seconds: float) -> None:
        insert(database, schema.tags, [{"device": "bed-01", "tag": f"t{len(written)}"}])
        written.append(1)

    retention.prune(database, NOON + 31 * DAY, pause=pause)
    assert len(written) == 3
    database.close()


def test_only_the_leading_gateway_prunes(tmp_path: Path) -> None:
    database = schema.open_database(None, tmp_path)
    leading, asked = threading.Event(), threading.Semaphore(0)

    def leads() -> bool:
        asked.release()
        return leading.is_set()

    insert(database, schema.messages, [assessment(1, NOON, 3)])
    keeper = retention.Keeper(database, leading=leads, now=lambda: NOON + 31 * DAY, every_s=0.01)
    keeper.start()
    try:
        for _ in range(5):
            assert asked.acquire(timeout=10)
        assert len(everything(database, schema.messages)) == 1
        leading.set()
        until(lambda: everything(database, schema.messages) == [])
        until(lambda: database.meta("pruned"))
        assert database.meta("pruned")["rows"] == {"assessments into hours": 1}
    finally:
        keeper.stop()
        database.close()


def command(gateway: Gateway, *arguments: str, code: int = 0) -> Any:
    """A command as a user would give it: what --json printed, or the error."""
    done = subprocess.run(
        [sys.executable, "-m", "samd_gateway", "database", *arguments, "--gateway", gateway.url, "--json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else json.loads(done.stdout)


def test_a_person_looks_sets_and_prunes(
    broker_url: str, make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """By commands, on a running gateway: rows of 40 and of 5 days."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    database = schema.open_database(None, folder)
    now = time.time()
    old, new = now - 40 * DAY, now - 5 * DAY
    insert(database, schema.messages, [message(number, "result", old) for number in range(3000)])
    insert(database, schema.messages, [assessment(number, old, 3) for number in range(3000, 3010)])
    insert(database, schema.messages, [message(number, "result", new) for number in range(4000, 4005)])
    database.close()
    written = (folder / "gateway.sqlite3").stat().st_size
    # its own retention begins ten minutes after the start
    gateway = make_gateway(broker_url, "--name", "retention")
    info = command(gateway, "info")
    assert (info["backend"], info["revision"]) == ("sqlite", info["newest_revision"])
    assert info["size_bytes"] >= written
    assert {table["name"]: table["rows"] for table in info["tables"]}["messages"] >= 3015
    due = command(gateway, "prune", "--preview")
    assert {name: rows for name, rows in due["rows"].items() if rows} == {
        "assessments into hours": 10,
        "messages": 3000,
    }
    assert command(gateway, "prune")["rows"]["messages"] == 3000
    assert command(gateway, "prune", "--preview")["complete"]
    assert command(gateway, "info")["pruned"]["rows"] == {"assessments into hours": 10, "messages": 3000}
    kept = command(gateway, "retention", "--messages-days", "3", "--audit-days", "ever")
    assert (kept["messages_days"], kept["audit_days"], kept["health_days"]) == (3, None, 7)
    assert command(gateway, "prune")["rows"]["messages"] == 5
    assert "messages_days" in command(gateway, "retention", "--messages-days", "1", code=2)
    assert "write a number of days" in command(gateway, "retention", "--messages-days", "soon", code=2)
    entries = gateway.get("/api/audit", target="database")["entries"]
    assert [entry["action"] for entry in entries] == ["database.prune", "database.prune"]
    (change,) = gateway.get("/api/audit", action="settings.change")["entries"]
    assert (change["before"]["messages_days"], change["after"]["messages_days"]) == (30, 3)
