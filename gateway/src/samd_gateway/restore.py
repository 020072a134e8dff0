"""A backup is put back: checked as a whole, laid beside the data as `restore-pending`, then exchanged for it.

The exchange happens while no gateway has the folder open: by the command itself, or by a gateway that was
asked to and starts anew. What was there before is kept in `before-restore-TIME`. Killed at any point, the
next start goes on where it stopped.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import archive, cluster, postgresql_tools, schema
from samd_gateway.archive import DUMP, SQLITE, Manifest, Progress, quiet
from samd_gateway.backup import KEPT, PENDING, belongs, staging_in, sync
from samd_gateway.errors import UsageError
from samd_gateway.schema.database import FILE, check_sqlite, engine_of

BOOTS_AHEAD = 1000
"""A gateway counts its starts, and what it sends is ordered by them: those after the backup must not come
again."""
MOVED = ".old-moved"


def stage(source: Path, folder: Path, url: str | None, *, progress: Progress = quiet) -> Manifest:
    """Check an archive, and lay what it holds beside the data; nothing is exchanged. Raises UsageError."""
    with staging_in(folder) as staging:
        manifest = archive.read(source, staging, progress=progress)
        wanted = "sqlite" if url is None or make_url(url).get_backend_name() == "sqlite" else "postgresql"
        if manifest.database != wanted:
            raise UsageError(
                f"{source}: a backup of {manifest.database}, and this gateway uses {wanted}; "
                "restore it where SAMD_DATABASE_URL names such a database"
            )
        if manifest.database == "sqlite":
            progress("check", 0, 1)
            check_sqlite(staging / SQLITE)
            progress("check", 1, 1)
        shutil.rmtree(folder / PENDING, ignore_errors=True)
        os.rename(staging, folder / PENDING)  # from here on it is whole
        sync(folder)
    return manifest


def holds_tables(url: str, folder: Path, password_file: str | None) -> bool:
    """Whether the database of a URL holds a gateway's tables already. Raises UsageError."""
    engine = engine_of(url, folder, password_file)
    try:
        with schema.Database(engine).read() as connection:
            return inspect(connection).has_table(schema.meta.name)
    except SQLAlchemyError as error:
        raise UsageError(
            f"the database of SAMD_DATABASE_URL cannot be opened ({type(error).__name__}); is it there?"
        ) from error
    finally:
        engine.dispose()


def pending(folder: Path) -> bool:
    """Whether a restore waits for its exchange."""
    return (folder / PENDING).is_dir()


def finish(folder: Path, url: str | None, *, password_file: str | None = None, now: float) -> Path | None:
    """Exchange what is there for what is pending; where the old is kept, None if nothing was pending.

    The caller holds the folder's lock. Raises UsageError; then the next call goes on.
    """
    waiting = folder / PENDING
    if not waiting.is_dir():
        return None
    try:
        kept = _kept(waiting, folder, now)
        engine = engine_of(url, folder, password_file)
        try:
            if url is not None:
                check_alone(engine)
            if not (waiting / MOVED).exists():
                _put_aside(engine, folder, kept)
                (waiting / MOVED).touch()
                sync(waiting)
            _put_in_place(engine, waiting, folder)
        finally:
            engine.dispose()
        shutil.rmtree(waiting)
    except OSError as error:
        raise UsageError(
            f"{folder}: the backup cannot be put in place ({error}); mend that, and start again: it goes on"
        ) from error
    return kept


def _kept(waiting: Path, folder: Path, now: float) -> Path:
    """Where the old state goes, the same after each interruption."""
    note = waiting / ".kept"
    if not note.exists():
        name = f"{KEPT}{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
        while (folder / name).exists():
            name += "-1"
        note.write_text(name)
        sync(waiting)
    kept = folder / note.read_text()
    kept.mkdir(mode=0o700, exist_ok=True)
    return kept


def _sqlite_files(engine: Engine) -> Iterator[tuple[Path, str]]:
    """The files of a database, each with the name that it is kept by."""
    path = Path(engine.url.database or "")
    for ending in ("", "-wal", "-shm"):
        yield path.with_name(path.name + ending), FILE + ending


def _put_aside(engine: Engine, folder: Path, kept: Path) -> None:
    if engine.dialect.name == "sqlite":
        for path, name in _sqlite_files(engine):
            if path.exists():
                shutil.move(path, kept / name)
    elif not (kept / DUMP).exists():
        part = kept / f".{DUMP}"
        postgresql_tools.dump(engine.url, part)
        part.chmod(0o600)
        part.rename(kept / DUMP)
    for path in sorted(folder.iterdir()):
        if path.name == "models" or (path.is_file() and belongs(path.name)):
            os.rename(path, kept / path.name)
    sync(kept)


def _put_in_place(engine: Engine, waiting: Path, folder: Path) -> None:
    if engine.dialect.name == "sqlite":
        target = Path(engine.url.database or "")
        if (waiting / SQLITE).exists():
            _adapt_to_now(engine_of(f"sqlite:///{waiting / SQLITE}", folder, None))
            shutil.move(waiting / SQLITE, target)
            for ending in ("-wal", "-shm"):
                (waiting / (SQLITE + ending)).unlink(missing_ok=True)
    elif (waiting / DUMP).exists():
        with engine.begin() as connection:
            _drop_tables(connection)
        postgresql_tools.restore(engine.url, waiting / DUMP)
        _adapt_to_now(engine)
        (waiting / DUMP).unlink()
    for path in sorted(waiting.iterdir()):
        if not path.name.startswith("."):
            target = folder / path.name
            if path.is_dir() and target.is_dir():
                shutil.rmtree(target)  # an empty one, which a start made
            os.rename(path, target)
    sync(folder)


def _drop_tables(connection: Connection) -> None:
    """Those of the gateway, of whatever revision; what else is in the database stays."""
    ours = {*schema.metadata.tables, "alembic_version"}
    for table in inspect(connection).get_table_names():
        if table in ours:
            connection.execute(text(f'DROP TABLE "{table}" CASCADE'))


def _adapt_to_now(engine: Engine) -> None:
    """What was true at the time of the backup and is not now: who is signed in, which gateways run."""
    try:
        with schema.Database(engine).write() as connection:
            tables = set(inspect(connection).get_table_names())
            meta = schema.meta
            boot = json.loads(
                connection.scalar(meta.select().with_only_columns(meta.c.value).where(meta.c.key == "boot"))
                or "0"
            )
            connection.execute(delete(meta).where(meta.c.key == "boot"))
            connection.execute(meta.insert().values(key="boot", value=json.dumps(boot + BOOTS_AHEAD)))
            for table in (schema.sessions, schema.leaders, schema.gateways):
                if table.name in tables:  # which the first release had not
                    connection.execute(delete(table))
    finally:
        if engine.dialect.name == "sqlite":
            engine.dispose()


def check_alone(engine: Engine, own: str | None = None) -> None:
    """Raises UsageError while others than `own` run on the database: it would change under them."""
    with schema.Database(engine).read() as connection:
        if not inspect(connection).has_table(schema.gateways.name):
            return
        found = cluster.members(connection, time.time())
    others = [each.name for each in found if each.live and each.name != own]
    if others:
        raise UsageError(f"{', '.join(others)}: gateways that run on this database; stop them, and try again")
