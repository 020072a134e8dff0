"""How a database is opened, and the two ways into it."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from samd_gateway.errors import UsageError
from samd_gateway.schema.base import metadata
from samd_gateway.schema.wire import meta

SCHEMA_VERSION = 2


class Database:
    """An engine with two ways in: `read` and `write`, each one transaction."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view of the tables."""
        with self.engine.connect().execution_options(samd_read=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is durable once the block is left, and undone if it raises."""
        with self.engine.begin() as connection:
            yield connection

    def meta(self, key: str) -> Any:
        with self.read() as connection:
            value = connection.scalar(select(meta.c.value).where(meta.c.key == key))
        return None if value is None else json.loads(value)

    def set_meta(self, key: str, value: Any) -> None:
        with self.write() as connection:
            connection.execute(meta.delete().where(meta.c.key == key))
            connection.execute(meta.insert().values(key=key, value=json.dumps(value)))

    def next_boot(self) -> int:
        """Count this start of the program; the first is 1."""
        boot = int(self.meta("boot") or 0) + 1
        self.set_meta("boot", boot)
        return boot

    def close(self) -> None:
        self.engine.dispose()


def _sqlite(engine: Engine) -> None:
    """WAL for readers beside the writer; `synchronous` full, because an acknowledgement is a promise; and
    `BEGIN IMMEDIATE` for writers, because a reader that becomes a writer fails at once instead of waiting."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        read = connection.get_execution_options().get("samd_read", False)
        connection.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")


def open_database(url: str | None, folder: Path) -> Database:
    """Open, and create where needed, the database at `url`, or a SQLite file in `folder`.

    Raises UsageError for a URL that is none, a database that cannot be reached, or another schema version.
    """
    if url is None:
        path = folder / "gateway.sqlite3"
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        url = f"sqlite:///{path}"
    try:
        parsed = make_url(url)
        engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
        if parsed.get_backend_name() == "sqlite":
            _sqlite(engine)
        database = Database(engine)
        metadata.create_all(engine)
        version = database.meta("schema_version")
        if version is None:
            database.set_meta("schema_version", SCHEMA_VERSION)
            database.set_meta("instance", secrets.token_hex(4))
            version = SCHEMA_VERSION
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise UsageError(
            f"SAMD_DATABASE_URL cannot be used ({type(error).__name__}); write sqlite:///FILE, "
            "or postgresql+psycopg://USER@HOST/NAME with psycopg installed"
        ) from error
    except SQLAlchemyError as error:
        raise UsageError(
            f"the database cannot be opened ({type(error).__name__}); is it there, and is its disk writable?"
        ) from error
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"the database has schema version {version}, this program needs {SCHEMA_VERSION}; "
            "use the program that wrote it, or another --data folder"
        )
    return database
