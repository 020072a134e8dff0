"""Which schemas the stores of a device have: whether a release can open them."""

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from samd_edge import device_db, store
from samd_edge.admission import folder_of


def found(data_dir: Path) -> dict[str, int]:
    """The schemas of the files that a client opens at its start; a file that cannot be read is left out."""
    schemas: dict[str, int] = {}
    device = data_dir / device_db.FILE
    with contextlib.suppress(sqlite3.Error, ValueError, TypeError, KeyError):
        version, rows = _read(device, "SELECT value FROM meta WHERE name = 'admission'")
        schemas["device"] = version
        if rows:
            admission = folder_of(data_dir, json.loads(rows[0][0])["id"])
            schemas["store"], _ = _read(admission / store.FILE, "SELECT 1")
    return schemas


def beyond(known: Mapping[str, int], on_disk: Mapping[str, int]) -> str | None:
    """Why a release that knows these schemas cannot open those on the disk; None when it can."""
    for kind, version in sorted(on_disk.items()):
        if version > known.get(kind, 0):
            return f"the {kind} has schema {version}, and it knows up to {known.get(kind, 0)}"
    return None


def _read(path: Path, query: str) -> tuple[int, list[tuple[str]]]:
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        return version, connection.execute(query).fetchall()
