"""One SQLite file: opened, checked, migrated; a damaged one is moved aside, never deleted.

Used by the store of an admission and by the device's own file. WAL with `synchronous=NORMAL`: a process that
is killed loses nothing, a power cut may lose the last commits but never damages the file. What must survive a
power cut is written inside `durable(...)`, which syncs the commit to the disk before it returns.
"""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

BUSY_SECONDS: Final = 5.0
WAL_PAGES: Final = 4000
"""Pages (4 kB) of the log after which a commit also writes them back; housekeeping does it earlier."""

_CORRUPT, _NOT_A_DATABASE = 11, 26  # SQLITE_CORRUPT, SQLITE_NOTADB


class StoreError(Exception):
    """A file of the device cannot be used; the text says which, why, and what to do."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is damaged (and not that the disk is full, say)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (_CORRUPT, _NOT_A_DATABASE)


def open_database(
    path: Path,
    migrations: Sequence[str],
    *,
    same_thread: bool = True,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> sqlite3.Connection:
    """Open or create `path` (mode 0600), check it, and bring it to the newest schema.

    `migrations[i]` leads from schema version i to i + 1; the file carries its version. A damaged file is
    moved aside to `NAME.damaged-TIME` with one line in the log, and a new one is begun. Raises StoreError for
    a file that a newer client wrote, and for a folder that cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); give another --data-dir") from error
    try:
        return _open(path, migrations, same_thread)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise StoreError(
                f"{path}: cannot be opened ({error}); check the disk and its free space"
            ) from error
        move_aside(path, now(), str(error))
        path.touch(mode=0o600)
        try:
            return _open(path, migrations, same_thread)
        except sqlite3.DatabaseError as again:
            raise StoreError(f"{path}: a new file cannot be begun ({again}); check the disk") from again


def move_aside(path: Path, now: datetime, reason: str) -> Path:
    """Rename a damaged file and its log to `NAME.damaged-TIME`, and say so."""
    stamp = now.strftime("%Y%m%dT%H%M%S")
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{target}{suffix}")
    log.error(
        "%s is damaged (%s): it was moved to %s and a new one is begun; keep that file, its rows may be "
        "recovered with: sqlite3 %s .recover",
        path.name,
        reason,
        target,
        target,
    )
    return target


def _open(path: Path, migrations: Sequence[str], same_thread: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=same_thread, cached_statements=64
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = _CORRUPT
            raise error
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(migrations):
        raise StoreError(
            f"{path}: has schema {version}, this client knows up to {len(migrations)}; update samd-edge"
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        # executescript would commit between statements; this way a migration is whole or not at all
        with transaction(connection):
            for statement in script.split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextlib.contextmanager
def durable(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A transaction whose commit is on the disk when the block ends, and with it all commits before it."""
    connection.execute("PRAGMA synchronous=FULL")
    try:
        with transaction(connection):
            yield connection
    finally:
        connection.execute("PRAGMA synchronous=NORMAL")


def micros(moment: datetime) -> int:
    """Microseconds since 1970: exact, and ordered as times are."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def plain(connection: sqlite3.Connection, query: str, *values: object) -> int:
    """One number from a query."""
    row = connection.execute(query, values).fetchone()
    return int(row[0]) if row is not None and row[0] is not None else 0
