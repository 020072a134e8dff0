"""How a database is brought up to date: from nothing, from an old file, by several at once, never down."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres import PostgreSQL
from sqlalchemy import inspect, select

from samd_gateway import migrations, schema
from samd_gateway.errors import UsageError

OLD = Path(__file__).parent / "version_1.sql"


def differences(database: schema.Database) -> list[object]:
    with database.read() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), schema.metadata))


def old_file(folder: Path) -> Path:
    """A database as the first release wrote it, with rows."""
    path = folder / "gateway.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD.read_text())
    return path


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """The rows of the first release's tables, by its columns."""
    with closing(sqlite3.connect(path)) as connection:
        found = {}
        for (table,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%PRIMARY KEY%'"
        ).fetchall():
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
            found[table] = sorted(rows, key=repr)
        return found


def test_a_new_file_has_exactly_the_tables_of_the_program(tmp_path: Path) -> None:
    database = schema.open_database(None, tmp_path)
    assert differences(database) == []
    with database.read() as connection:
        assert migrations.revision(connection) == migrations.HEAD
    assert database.meta("instance")
    database.close()
    assert (tmp_path / "gateway.sqlite3").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gateway.sqlite3"
    ]  # nothing was there to copy


def test_a_new_postgresql_database_has_exactly_the_tables_of_the_program(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    database = schema.open_database(
        postgresql.create(), tmp_path, password_file=str(postgresql.password_file)
    )
    assert differences(database) == []
    database.close()


def test_the_newest_step_is_the_one_that_the_program_names() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [migrations.HEAD]
    assert script.get_bases() == [migrations.FIRST]


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    first = schema.open_database(None, tmp_path)
    instance = first.meta("instance")
    first.close()
    again = schema.open_database(None, tmp_path)
    assert again.meta("instance") == instance
    again.close()


def test_a_file_of_the_first_release_is_brought_up_to_date_with_its_rows(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    before = content(path)
    database = schema.open_database(None, tmp_path)
    assert differences(database) == []
    with database.read() as connection:
        names = {table: inspect(connection).get_columns(table) for table in before}
    database.close()
    with closing(sqlite3.connect(path)) as connection:
        for table, rows in before.items():
            if table == "meta":
                continue
            old_columns = ", ".join(f'"{column["name"]}"' for column in names[table][: len(rows[0])])
            query = f"SELECT {old_columns} FROM {table}"  # noqa: S608
            assert sorted(connection.execute(query).fetchall(), key=repr) == rows
    copy = tmp_path / "gateway.sqlite3.revision-0001"
    assert content(copy) == before
    assert copy.stat().st_mode & 0o777 == 0o600


def test_the_alerts_of_the_first_release_become_rows(tmp_path: Path) -> None:
    old_file(tmp_path)
    database = schema.open_database(None, tmp_path)
    table = schema.alerts
    with database.read() as connection:
        found = [dict(row) for row in connection.execute(select(table).order_by(table.c.device)).mappings()]
        last = connection.scalar(select(schema.devices.c.last_data).where(schema.devices.c.name == "bed-01"))
    database.close()
    picked = ("device", "kind", "source_id", "state", "severity", "peak", "news2_low", "news2_high")
    assert [tuple(row[name] for name in picked) for row in found] == [
        ("bed-01", "severity", "a-1", "active", 3, 3, 8, 11),
        ("bed-02", "severity", "a-2", "cleared", 3, 3, 3, 3),
    ]
    times = ("raised_at", "changed_at", "waiting_since", "cleared_at", "boot", "seq")
    assert [tuple(row[name] for name in times) for row in found] == [
        (1_700_000_100.0, 1_700_000_160.0, 1_700_000_160.0, None, 1, 9),
        (1_700_000_200.0, 1_700_000_900.0, None, 1_700_000_900.0, 2, 1),
    ]
    assert last == 1_700_000_300.0


def test_the_first_release_refuses_the_new_tables(tmp_path: Path) -> None:
    """Its own check: the version in `meta`, which it knows as 1."""
    old_file(tmp_path)
    schema.open_database(None, tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "gateway.sqlite3")) as connection:
        (version,) = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    assert json.loads(version) == 2


def test_a_database_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    schema.open_database(None, tmp_path).close()
    path = tmp_path / "gateway.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = content(path)
    with pytest.raises(
        UsageError, match=r"newer program \(revision '9999', this one knows \d+\); start that"
    ):
        schema.open_database(None, tmp_path)
    assert content(path) == before


def test_the_tables_of_an_unfinished_program_are_refused(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
        connection.commit()
    with pytest.raises(UsageError, match="unfinished program"):
        schema.open_database(None, tmp_path)


OPEN = """
import sys
from pathlib import Path
from samd_gateway import schema
database = schema.open_database(sys.argv[1], Path("."), password_file=sys.argv[2] or None)
print(database.meta("instance"))
"""


def open_at_once(url: str, password_file: str = "") -> set[str]:
    """What four processes that open one database at the same moment find in it."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, url, password_file],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    answers = [(process.communicate(timeout=60), process.returncode) for process in started]
    assert [code for _, code in answers] == [0] * 4, answers
    return {out for (out, _), _ in answers}


def test_gateways_that_start_at_once_migrate_an_old_file_once(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    assert open_at_once(f"sqlite:///{path}") == {"0a1b2c3d\n"}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM alerts").fetchone() == (2,)


def test_gateways_that_start_at_once_agree_on_a_new_file(tmp_path: Path) -> None:
    assert len(open_at_once(f"sqlite:///{tmp_path / 'new.sqlite3'}")) == 1


def test_gateways_that_start_at_once_agree_on_a_new_postgresql_database(postgresql: PostgreSQL) -> None:
    assert len(open_at_once(postgresql.create(), str(postgresql.password_file))) == 1


def test_a_step_that_fails_leaves_the_old_tables_as_they_were(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE views (own TEXT PRIMARY KEY)")  # in the way, late in the steps
        connection.commit()
    before = content(path)
    with pytest.raises(UsageError, match="cannot be opened"):
        schema.open_database(None, tmp_path)
    assert content(path) == before
