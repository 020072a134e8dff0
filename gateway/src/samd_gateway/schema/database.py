"""How a database is opened and brought up to date, and the ways into it."""

import json
import os
import secrets
import sqlite3
import zlib
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from samd_gateway import migrations
from samd_gateway.errors import UsageError
from samd_gateway.schema.wire import meta
from samd_protocol.broker import read_secret

FILE = "gateway.sqlite3"
_WRITERS, _SENDERS = 0x73616D65, 0x73616D66
"""Names of PostgreSQL's advisory locks: of writers against each other, and of each sender's own rows."""


class Database:
    """An engine with three ways in, each one transaction: `read`, `write`, and `append` for what came over
    the wire. A `write` is alone on every kind of database, so that what it reads stays true until it ends;
    several gateways `append` at the same time where the database allows it, each sender's rows in turn."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._advisory = engine.dialect.name == "postgresql"
        self._reading: dict[str, Any] = {"samd_read": True}
        if self._advisory:
            self._reading = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view of the tables."""
        with self.engine.connect().execution_options(**self._reading) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is durable once the block is left, and undone if it raises."""
        with self.engine.begin() as connection:
            if self._advisory:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITERS})
            yield connection

    @contextmanager
    def append(self, senders: Collection[str]) -> Iterator[Connection]:
        """As `write`, for rows of these senders alone."""
        with self.engine.begin() as connection:
            if self._advisory:
                # in one order for all, or two gateways would wait for each other
                keys = sorted({zlib.crc32(name.encode()) - 2**31 for name in senders})
                connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _WRITERS})
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:space, key) FROM unnest(CAST(:keys AS int[])) key"),
                    {"space": _SENDERS, "keys": keys},
                )
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
    `BEGIN IMMEDIATE` for writers, because a reader that becomes a writer fails at once instead of waiting.
    `auto_vacuum` is heeded by a new file alone: there the retention gives back the room it frees."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "busy_timeout=5000",
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        read = connection.get_execution_options().get("samd_read", False)
        connection.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")


def _postgresql(url: URL) -> Engine:
    """Bounded waits, so that `/healthz` answers while the server is away; and a commit that is on disk."""
    import psycopg
    from psycopg.types.string import StrDumper

    class Dumper(StrDumper):
        """PostgreSQL's text holds neither NUL nor half a surrogate pair; one such character in one message
        must not cost the batch."""

        def dump(self, obj: str) -> bytes:
            return obj.replace("\0", "\ufffd").encode("utf-8", "replace")

    limits = {
        "connect_timeout": "5",
        "application_name": "samd-gateway",
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "15000",
        "options": "-c synchronous_commit=on -c lock_timeout=10s -c statement_timeout=60s "
        "-c idle_in_transaction_session_timeout=60s",
    }
    own = {name: value for name, value in limits.items() if name not in url.query}
    engine = create_engine(url, pool_pre_ping=True, pool_size=10, pool_timeout=10, connect_args=own)

    @event.listens_for(engine, "connect")
    def _connect(connection: psycopg.Connection[Any], _record: Any) -> None:
        connection.adapters.register_dumper(str, Dumper)
        found = connection.info.parameter_status("server_encoding")
        if found != "UTF8":
            connection.close()
            raise UsageError(
                f"the database has the encoding {found}; create it anew: createdb --encoding UTF8 NAME"
            )

    return engine


def engine_of(url: str | None, folder: Path, password_file: str | None) -> Engine:
    """The engine of a URL, or of the SQLite file in `folder`; nothing is opened yet. Raises UsageError, and
    what SQLAlchemy raises for a URL that is none."""
    parsed = make_url(f"sqlite:///{folder / FILE}" if url is None else url)
    if parsed.password is not None:
        raise UsageError(
            "SAMD_DATABASE_URL: a password does not belong into the URL; write it into a file of mode 600 "
            "and name that by SAMD_DATABASE_PASSWORD_FILE, or use PGPASSFILE"
        )
    if parsed.drivername == "postgresql+psycopg":
        if password_file is not None:
            parsed = parsed.set(password=read_secret(password_file))
        return _postgresql(parsed)
    if parsed.get_backend_name() != "sqlite":
        raise UsageError(
            f"SAMD_DATABASE_URL: {parsed.drivername} is not supported; write sqlite:///FILE, or "
            "postgresql+psycopg://USER@HOST/NAME"
        )
    engine = create_engine(parsed)
    _sqlite(engine)
    return engine


def copy_sqlite(source: sqlite3.Connection, target: Path) -> None:
    """A consistent copy of an open database, for its owner alone, written whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def check_sqlite(path: Path) -> None:
    """Raises UsageError for a file that is no sound database."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise UsageError(f"{path.name}: the database in it is damaged ({found}); use another backup")


def _keep_copy(engine: Engine, revision: str) -> None:
    """Before the tables of a SQLite file change, a copy of it beside it."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return
    path = Path(engine.url.database)
    target = path.with_name(f"{path.name}.revision-{revision}")
    try:
        # a connection of its own: the one that migrates holds the lock, and has changed nothing yet
        with closing(sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True)) as source:
            copy_sqlite(source, target)
    except (OSError, sqlite3.Error) as error:
        raise UsageError(
            f"{target}: the copy of the database that is kept before its tables change cannot be written "
            f"({error}); make room, then start again"
        ) from error


def _up_to_date(engine: Engine) -> bool:
    with Database(engine).read() as connection:
        return migrations.revision(connection) == migrations.HEAD


def _bring_up_to_date(engine: Engine) -> None:
    """One transaction: two gateways that start at once do it once."""
    with engine.connect() as connection:
        sqlite = engine.dialect.name == "sqlite"
        raw: Any = connection.connection.driver_connection
        if sqlite:
            raw.execute(f"PRAGMA busy_timeout={migrations.WAIT_S * 1000}")
        with connection.begin():
            migrations.upgrade(connection, before=lambda revision: _keep_copy(engine, revision))
            for key, value in (("schema_version", 2), ("instance", secrets.token_hex(4))):
                if connection.scalar(select(meta.c.key).where(meta.c.key == key)) is None:
                    connection.execute(meta.insert().values(key=key, value=json.dumps(value)))
        if sqlite:
            raw.execute("PRAGMA busy_timeout=5000")


def open_database(url: str | None, folder: Path, *, password_file: str | None = None) -> Database:
    """Open the database at `url`, or a SQLite file in `folder`, and bring its tables up to date; a SQLite
    file is copied before. `password_file` holds the password of a PostgreSQL user.

    Raises UsageError for a URL that is none, a database that cannot be reached, or one of a newer program.
    """
    if url is None:
        os.close(os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600))
    engine = None
    try:
        engine = engine_of(url, folder, password_file)
        if not _up_to_date(engine):
            _bring_up_to_date(engine)
        opened = Database(engine)
        engine = None
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise UsageError(
            f"SAMD_DATABASE_URL cannot be used ({type(error).__name__}); write sqlite:///FILE, "
            "or postgresql+psycopg://USER@HOST/NAME with psycopg installed"
        ) from error
    except SQLAlchemyError as error:
        raise UsageError(
            f"the database cannot be opened ({type(error).__name__}); is it there, and is its disk writable?"
        ) from error
    finally:
        if engine is not None:
            engine.dispose()
    return opened
