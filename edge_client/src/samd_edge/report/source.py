"""Which store is meant, and how it is opened: read-only, as it is at one moment, beside a running agent."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from samd_edge import device_db
from samd_edge.config import DEFAULT_ROOT
from samd_edge.database import StoreError, is_damage
from samd_edge.store import FILE, MIGRATIONS

_PATIENCE_S = 5.0


class NoReport(Exception):  # noqa: N818  (it is an answer, with its reason)
    """There is nothing to report on; the text is one line."""


def data_dir(device: str | None, folder: Path | None) -> Path:
    """The data directory that is meant; no agent needs to run there. Raises NoReport."""
    if folder is not None:
        return folder
    if device:
        return DEFAULT_ROOT / device
    known = sorted(path.parent for path in DEFAULT_ROOT.glob(f"*/{device_db.FILE}"))
    if len(known) == 1:
        return known[0]
    if known:
        names = ", ".join(path.name for path in known)
        raise NoReport(
            f"{len(known)} devices have data here ({names}): say which with --device or --data-dir"
        )
    raise NoReport(f"{DEFAULT_ROOT}: no device has data here; give --device or --data-dir")


def store_of(folder: Path, admission: str | None) -> Path:
    """The store of an admission, of the one that is open now, or of the only one.

    Raises NoReport when there is none, or when several are there and none is open: a report never guesses
    whose it is.
    """
    stores = {path.parent.name: path for path in sorted(folder.glob(f"admissions/*/{FILE}"))}
    if not stores:
        raise NoReport(f"{folder}: holds no admission; give --device or --data-dir of a device that ran")
    names = ", ".join(stores)
    if admission is None:
        admission = _open_admission(folder)
        if admission is None and len(stores) == 1:
            return next(iter(stores.values()))
        if admission is None:
            raise NoReport(f"{folder}: no admission is open; give --admission with one of {names}")
    if admission not in stores:
        raise NoReport(f"{folder}: has no admission {admission!r}; it has {names}")
    return stores[admission]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The store as it is at this moment. Raises StoreError, also for what goes wrong within the block."""
    try:
        with contextlib.closing(_connect(path)) as connection:
            connection.execute("BEGIN")  # all that is read belongs together, whatever the agent writes
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"{path}: has schema {version}, this client knows up to {len(MIGRATIONS)}; "
                    "update samd-edge"
                )
            if version == 0:
                raise StoreError(f"{path}: is no store of an admission, or was never written")
            yield connection
    except sqlite3.Error as error:
        if is_damage(error):
            raise StoreError(
                f"{path}: is damaged ({error}); the agent moves it aside at its next start, "
                f"and its rows may be recovered with: sqlite3 {path} .recover"
            ) from error
        raise StoreError(f"{path}: cannot be read ({error}); check who may read it, and the disk") from error


def _connect(path: Path) -> sqlite3.Connection:
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=_PATIENCE_S, isolation_level=None)
    try:
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # On a medium that cannot be written SQLite cannot make its log; without one nobody writes either.
        return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_admission(folder: Path) -> str | None:
    """The admission that the device has open; None when there is none, or that cannot be told."""
    file = folder / device_db.FILE
    if not file.is_file():
        return None
    try:
        with contextlib.closing(_connect(file)) as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = 'admission'").fetchone()
        return None if row is None else str(msgspec.json.decode(row[0])["id"])
    except (sqlite3.Error, msgspec.DecodeError, KeyError, TypeError):
        return None
