"""The device's own file: outbox, seen commands, models, boot counter, the admission now, configuration.

One SQLite file, `DATA_DIR/device.sqlite`, in a folder that only its owner can enter. It outlives every
admission and holds nothing of a patient but the messages that still wait to be sent. One connection under one
lock, so that the sender's thread and the agent's loop never meet a busy file.
"""

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from samd_edge.database import StoreError, durable, micros, open_database, plain, transaction

FILE: Final = "device.sqlite"
LOCK: Final = "lock"
KEEP_COMMANDS: Final = 1000
"""Seen commands that are kept beyond their expiry; those not yet expired always stay."""

MIGRATIONS: Final = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        priority INTEGER NOT NULL,
        kind TEXT NOT NULL,
        topic TEXT NOT NULL,
        message_id TEXT NOT NULL UNIQUE,
        payload BLOB NOT NULL,
        expires_at INTEGER
    );
    CREATE INDEX outbox_by_priority ON outbox (priority, id);
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        topic TEXT NOT NULL,
        message_id TEXT NOT NULL,
        payload BLOB NOT NULL,
        reason TEXT NOT NULL,
        died_at INTEGER NOT NULL
    );
    CREATE TABLE commands (
        message_id TEXT PRIMARY KEY,
        expires_at INTEGER NOT NULL,
        result BLOB
    ) WITHOUT ROWID;
    CREATE TABLE models (
        version INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        file TEXT NOT NULL,
        size INTEGER NOT NULL,
        task TEXT NOT NULL,
        trained INTEGER NOT NULL,
        graph_sha256 TEXT NOT NULL,
        added_at INTEGER NOT NULL,
        PRIMARY KEY (version, sha256)
    ) WITHOUT ROWID
    """,
)


class DeviceDb:
    """The device's file. Safe to call from several threads. Raises StoreError when it cannot be opened."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE
        self._lock = threading.RLock()
        self._connection = open_database(self.path, MIGRATIONS, same_thread=False)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def write(self, *, synced: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction; with `synced` it is on the disk when the block ends."""
        with self._lock, (durable if synced else transaction)(self._connection) as connection:
            yield connection

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def number(self, query: str, *values: object) -> int:
        """One number from a query; 0 for none."""
        with self._lock:
            return plain(self._connection, query, *values)

    def checkpoint(self) -> None:
        """Write the log back into the file."""
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # -- names and values ----------------------------------------------------------------------------------

    def get(self, name: str, default: Any = None) -> Any:
        """A value by name: the admission, the configuration, what is active."""
        found = self.rows("SELECT value FROM meta WHERE name = ?", name)
        return msgspec.json.decode(found[0][0]) if found else default

    def set(self, **values: Any) -> None:
        """Write values in one commit, synced; None removes one."""
        with self.write(synced=True) as connection:
            for name, value in values.items():
                put(connection, name, value)

    def next_boot(self) -> int:
        """Count this start of the agent; 1 for the first."""
        with self.write(synced=True) as connection:
            boot = int(self.get("boot", 0)) + 1
            put(connection, "boot", boot)
        return boot

    # -- commands ------------------------------------------------------------------------------------------

    def seen(self, message_id: str) -> tuple[bool, bytes | None]:
        """Whether a command was taken up before, and its result as JSON if it came to one."""
        found = self.rows("SELECT result FROM commands WHERE message_id = ?", message_id)
        return (True, found[0][0]) if found else (False, None)

    def take_up(self, message_id: str, expires_at: datetime, now: datetime) -> None:
        """Remember a command before it is executed; forget old ones."""
        with self.write(synced=True) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO commands VALUES (?, ?, NULL)", (message_id, micros(expires_at))
            )
            connection.execute(
                "DELETE FROM commands WHERE expires_at < ? AND message_id NOT IN "
                "(SELECT message_id FROM commands ORDER BY expires_at DESC LIMIT ?)",
                (micros(now), KEEP_COMMANDS),
            )

    def finish(self, message_id: str, result: bytes) -> None:
        """Keep a command's result for whoever repeats it."""
        with self.write() as connection:
            connection.execute("UPDATE commands SET result = ? WHERE message_id = ?", (result, message_id))


def put(connection: sqlite3.Connection, name: str, value: Any) -> None:
    """Set a value by name within a transaction; None removes it."""
    if value is None:
        connection.execute("DELETE FROM meta WHERE name = ?", (name,))
    else:
        connection.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, msgspec.json.encode(value)),
        )


def make_private(data_dir: Path) -> None:
    """Create the data directory, and let only its owner in. Raises StoreError when that cannot be."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        data_dir.chmod(0o700)
    except OSError as error:
        raise StoreError(
            f"{data_dir}: cannot be used as data directory ({error.strerror}); give another --data-dir"
        ) from error


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process alone. Raises StoreError while another process has it."""
    path = data_dir / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror}); give another --data-dir") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
            raise StoreError(
                f"{data_dir}: an agent is already running here (process {holder}); "
                "end it, or give another --device or --data-dir"
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)  # and with it the lock
