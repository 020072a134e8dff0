"""A backup: the database as of one moment, the model files and what else lies in the data folder, in one
archive. Made beside running gateways, whatever is written meanwhile, and written whole or not at all.

It holds hashes of passwords and pseudonyms: it is for its owner alone, mode 600.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from samd_gateway import archive, migrations, postgresql_tools
from samd_gateway.archive import DUMP, SQLITE, Manifest, Progress, quiet
from samd_gateway.errors import UsageError
from samd_gateway.folder import ID_FILE
from samd_gateway.schema import Database

STAGING = ".backup-"
PENDING, KEPT = "restore-pending", "before-restore-"
PAGES = 2000


def write(
    database: Database,
    folder: Path,
    target: Path,
    *,
    gateway: str,
    version: str,
    now: float,
    progress: Progress = quiet,
) -> Manifest:
    """Back up a data folder and its database into the file `target`. Raises UsageError."""
    part = target.with_name(f".{target.name}.part")
    try:
        with staging_in(target.parent) as staging:
            copy = dump(database, staging, progress)
            sources = [(copy.name, copy), *_files(folder)]
            entries = [archive.entry_of(name, path) for name, path in sources]
            with database.read() as connection:
                revision = migrations.revision(connection)
            manifest = Manifest(
                format=archive.FORMAT,
                created_at=datetime.fromtimestamp(now, UTC),
                gateway=gateway,
                version=version,
                revision=str(revision),
                database="sqlite" if copy.name == SQLITE else "postgresql",
                files=entries,
            )
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                archive.pack(file, manifest, dict(sources), progress)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
            sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise UsageError(
            f"{target}: the backup cannot be written ({error}); make room, and try again"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return manifest


def dump(database: Database, staging: Path, progress: Progress) -> Path:
    """A copy of the database as it is at this moment."""
    url = database.engine.url
    if url.get_backend_name() != "sqlite":
        progress("database", 0, 1)
        postgresql_tools.dump(url, staging / DUMP)
        progress("database", 1, 1)
        return staging / DUMP
    target = staging / SQLITE
    source_path = Path(url.database or "").absolute()
    with (
        closing(sqlite3.connect(source_path.as_uri() + "?mode=ro", uri=True, isolation_level=None)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        # One reader's view from beginning to end: without it each write meanwhile would begin the copy anew.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(
            copy,
            pages=PAGES,
            progress=lambda _status, left, total: progress("database", total - left, total),
            sleep=0,
        )
    return target


@contextmanager
def staging_in(parent: Path) -> Iterator[Path]:
    """A folder for its owner alone, on the file system of what comes of it."""
    folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def belongs(name: str) -> bool:
    """Whether a file at the top of a data folder is part of what a backup holds: not the database (it is
    copied), not what names this folder or is in use, no copies of former states."""
    passing = name.startswith((".", "gateway.sqlite3", KEPT, PENDING)) or name in ("lock", ID_FILE)
    return not passing and archive.is_member(name)


def _files(folder: Path) -> list[tuple[str, Path]]:
    models = [
        (f"models/{path.name}", path)
        for path in sorted((folder / "models").glob("*"))
        if path.suffix in (".samd", ".json") and not path.name.startswith(".")
    ]
    others = [
        (path.name, path)
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.is_symlink()
        and belongs(path.name)
        and path.name not in (archive.MANIFEST, SQLITE, DUMP)
    ]
    return [*models, *others]


def sync(folder: Path) -> None:
    """A renamed file is there after a power cut once its folder is on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
