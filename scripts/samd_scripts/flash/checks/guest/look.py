"""In the machine: what a store holds, and whether it is whole. Prints one JSON object."""

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

DATA = Path("/var/lib/samd")


def look(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"file": str(file)}
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as store:
        found["whole"] = [row[0] for row in store.execute("PRAGMA integrity_check")] == ["ok"]
        found["orphans"] = len(store.execute("PRAGMA foreign_key_check").fetchall())
        found["readings"] = store.execute("SELECT count(*) FROM readings WHERE origin = 'live'").fetchone()[0]
        found["unassessed"] = store.execute(
            "SELECT count(*) FROM readings r WHERE origin = 'live' AND NOT EXISTS "
            "(SELECT 1 FROM assessments a WHERE a.reading = r.id)"
        ).fetchone()[0]
        found["assessments"] = [
            row[0] for row in store.execute("SELECT message_id FROM assessments ORDER BY id")
        ]
        found["alerts"] = [row[0] for row in store.execute("SELECT message_id FROM alerts ORDER BY id")]
    return found


def models() -> dict[str, Any]:
    from samd_edge.device_db import DeviceDb
    from samd_edge.models import Shelf

    db = DeviceDb(DATA)
    try:
        shelf = Shelf(db, DATA)
        active = shelf.active()
        whole = False
        if active is not None:
            shelf.check(active)
            whole = True
        return {
            "active": None if active is None else [active.version, active.sha256],
            "whole": whole,
            "held": [[held.version, held.sha256] for held in shelf.all()],
        }
    finally:
        db.close()


if __name__ == "__main__":
    if sys.argv[1] == "models":
        print(json.dumps(models()))
    else:
        stores = sorted(DATA.glob("admissions/*/store.sqlite"), key=lambda path: path.stat().st_mtime_ns)
        print(json.dumps([look(path) for path in stores]))
