"""The store of one admission: readings, assessments, alerts, artefacts, corrections, settings.

One SQLite file, `DATA_DIR/admissions/ID/store.sqlite`. It belongs to one patient and never passes to the
next. A reading and its assessment are one commit. An alert is synced to the disk in the same commit, before
it is sent. Times are patient time, in microseconds; readings and assessments are JSON, as their own types
write them.

Growth is bounded by `prune(max_readings)`: beyond that many readings the oldest go, with their assessments.
The default of 500,000 is a reading every second for almost six days, or every minute for a year (about
400 MB); corrections, observations and alerts always stay.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from samd_data.reading import Reading, without
from samd_edge import readings
from samd_edge.artefacts import Flag
from samd_edge.database import StoreError, durable, is_damage, micros, open_database, plain, transaction
from samd_edge.readings import Kept, Mark
from samd_edge.retraction import Retraction, Withdrawn

log = logging.getLogger(__name__)

MAX_READINGS: Final = 500_000
FILE: Final = "store.sqlite"
NO_FLAGS: Final[Mapping[str, Flag]] = MappingProxyType({})

MIGRATIONS: Final = (
    """
    CREATE TABLE readings (
        id INTEGER PRIMARY KEY,
        observed_at INTEGER NOT NULL,
        origin TEXT NOT NULL CHECK (origin IN ('history', 'live', 'observation')),
        struck INTEGER NOT NULL DEFAULT 0,
        body BLOB NOT NULL
    );
    CREATE INDEX readings_by_time ON readings (observed_at);
    CREATE TABLE assessments (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        reading INTEGER REFERENCES readings (id) ON DELETE CASCADE,
        assessed_at INTEGER NOT NULL,
        severity INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        body BLOB NOT NULL
    );
    CREATE INDEX assessments_by_reading ON assessments (reading);
    CREATE TABLE alerts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        raised_at INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        body BLOB NOT NULL
    );
    CREATE TABLE observations (
        id INTEGER PRIMARY KEY,
        reading INTEGER NOT NULL REFERENCES readings (id),
        by TEXT NOT NULL,
        entered_at INTEGER NOT NULL
    );
    CREATE TABLE corrections (
        id INTEGER PRIMARY KEY,
        reading INTEGER NOT NULL REFERENCES readings (id),
        field TEXT,
        by TEXT NOT NULL,
        corrected_at INTEGER NOT NULL
    );
    CREATE INDEX corrections_by_reading ON corrections (reading);
    CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID
    """,
    """
    ALTER TABLE corrections ADD COLUMN reason TEXT;
    CREATE TABLE artefacts (
        id INTEGER PRIMARY KEY,
        reading INTEGER REFERENCES readings (id) ON DELETE CASCADE,
        observed_at INTEGER NOT NULL,
        field TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('jump', 'flat', 'no_signal', 'implausible')),
        reason TEXT NOT NULL
    );
    CREATE INDEX artefacts_by_reading ON artefacts (reading)
    """,
)

_encoder = msgspec.json.Encoder()


class Stored(NamedTuple):
    """One assessment or alert as it waits for the outbox: its row, its message id, its JSON message."""

    row: int
    message_id: str
    body: bytes


class AdmissionStore:
    """One admission's file, used by one thread. Raises StoreError when it cannot be opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._connection = open_database(self.path, MIGRATIONS)
        self._struck = readings.struck(self._connection)

    def close(self) -> None:
        """Close the file; its log is written back by SQLite."""
        self._connection.close()

    def reopen(self, error: sqlite3.Error) -> None:
        """After an error in the middle of work: open again; a damaged file is moved aside on the way."""
        self._connection.close()
        log.error("%s failed (%s); it is opened again", self.path, error)
        self._connection = open_database(self.path, MIGRATIONS)
        self._struck = readings.struck(self._connection)

    # -- readings and what was concluded from them --------------------------------------------------------

    def add_history(
        self, past: Iterable[Reading], screen: Callable[[Reading], Mapping[str, Flag]] = lambda _: NO_FLAGS
    ) -> int:
        """Take over readings of the past in one commit, each with the artefacts that `screen` finds in it;
        returns how many are new.

        A reading that the store holds already is not taken twice: an agent may start again with the same
        recording, or hear the same reading from a sensor again.
        """
        with transaction(self._connection) as connection:
            return sum(self._insert(connection, reading, "history", screen(reading))[1] for reading in past)

    def add(
        self,
        reading: Reading | None,
        *,
        assessed_at: datetime,
        severity: int,
        assessment: Stored,
        alert: Stored | None = None,
        flags: Mapping[str, Flag] = NO_FLAGS,
        settings: dict[str, Any] | None = None,
    ) -> tuple[int, int | None]:
        """Commit a reading with its assessment, and with an alert synced to the disk.

        `reading` is None for an assessment that time, an observation or an artefact alone caused. `flags`
        say which fields are not scored, `settings` (the state of the alerts) go into the same commit. Returns
        the row numbers of the assessment and of the alert.
        """
        with (durable if alert is not None else transaction)(self._connection) as connection:
            number = None
            if reading is not None:
                number, _ = self._insert(connection, reading, "live", flags)
            elif flags:
                readings.insert_flags(connection, None, flags)
            row = connection.execute(
                "INSERT INTO assessments (reading, assessed_at, severity, message_id, body) "
                "VALUES (?, ?, ?, ?, ?)",
                (number, micros(assessed_at), severity, assessment.message_id, assessment.body),
            ).lastrowid
            alert_row = None
            if alert is not None:
                alert_row = self._insert_alert(connection, alert, assessed_at)
            for name, value in (settings or {}).items():
                self._set(connection, name, value)
        return row or 0, alert_row

    def add_alert(self, alert: Stored, at: datetime) -> int:
        """Commit a change of the alert that no assessment caused, synced to the disk; returns its row."""
        with durable(self._connection) as connection:
            return self._insert_alert(connection, alert, at)

    @staticmethod
    def _insert_alert(connection: sqlite3.Connection, alert: Stored, at: datetime) -> int:
        row = connection.execute(
            "INSERT INTO alerts (raised_at, message_id, body) VALUES (?, ?, ?)",
            (micros(at), alert.message_id, alert.body),
        ).lastrowid
        return row or 0

    def add_reading(self, reading: Reading) -> int:
        """Commit a reading alone, when it could not be assessed."""
        with transaction(self._connection) as connection:
            return self._insert(connection, reading, "live", NO_FLAGS)[0]

    def add_observation(self, reading: Reading, *, by: str, entered_at: datetime) -> int:
        """What a person observed: a reading of its own, with the name of the one who entered it; synced."""
        with durable(self._connection) as connection:
            return self._observe(connection, reading, by, entered_at)

    def _observe(self, connection: sqlite3.Connection, reading: Reading, by: str, at: datetime) -> int:
        number = readings.insert_observed(connection, reading)
        connection.execute(
            "INSERT INTO observations (reading, by, entered_at) VALUES (?, ?, ?)", (number, by, micros(at))
        )
        return number

    def strike(
        self,
        reading: int,
        *,
        by: str,
        corrected_at: datetime,
        field: str | None = None,
        reason: str | None = None,
        instead: Reading | None = None,
    ) -> None:
        """Strike out a reading, or one field of it; it stays in the file, and is never read again. `instead`
        is kept as that person's observation in the same commit.

        Raises ValueError for a reading or a field that is not there.
        """
        with durable(self._connection) as connection:
            readings.strike(connection, reading, field, by=by, reason=reason, corrected_at=corrected_at)
            if instead is not None:
                self._observe(connection, instead, by, corrected_at)
        self._struck = readings.struck(self._connection)

    def take_back(
        self, retraction: Retraction, *, corrected_at: datetime
    ) -> tuple[list[Withdrawn], list[Withdrawn]]:
        """Strike what a source takes back, all in one commit.

        Returns what was struck now, and what no source has ever said at its time. What was struck before is
        neither: a message may come twice.
        """
        found: list[Withdrawn] = []
        unknown: list[Withdrawn] = []
        wrong: list[tuple[int, Reading, Withdrawn]] = []
        for one in retraction.values:
            said = [
                (row, reading)
                for row, reading in readings.said(self._connection, one.measured_at)
                if getattr(reading, one.field) is not None and not reading.ages.get(one.field)
            ]
            meant = {
                value: (row, reading)
                for row, reading in said
                if retraction.wrong(one, value := getattr(reading, one.field))
            }
            new = [(*at, one) for at in meant.values() if one.field not in self._struck.fields(at[1])]
            wrong += new
            if new:
                found.append(one)
            elif not meant and (one.value is not None or not said):
                unknown.append(one)
        if wrong:
            with durable(self._connection) as connection:
                for row, _, one in wrong:
                    readings.strike(
                        connection,
                        row,
                        one.field,
                        by=retraction.by,
                        reason=one.reason,
                        corrected_at=corrected_at,
                    )
        for _, reading, one in wrong:
            self._struck.add(reading, one.field)
        return found, unknown

    def find_value(
        self, field: str, at: datetime | None, tolerance: timedelta = timedelta(seconds=1)
    ) -> Kept | None:
        """The reading with the value of `field` that was measured at `at`, or the newest value."""
        return readings.find_value(self._connection, field, at, self._struck, tolerance=tolerance)

    def as_corrected(self, reading: Reading) -> Reading | None:
        """A reading that comes (again), without what was struck from it; None when all of it was."""
        gone = self._struck.fields(reading)
        if not gone:
            return reading
        return without(reading, gone) if gone < set(reading.present()) else None

    def recent(self, since: datetime) -> Iterator[Kept]:
        """The readings from `since` on, in order of time, artefacts too, without what was struck out."""
        return readings.select(self._connection, since, self._struck, screened=False)

    def flagged(self, since: datetime) -> dict[int, set[str]]:
        """By the row of a reading: its fields that were flagged as artefacts, from `since` on."""
        return readings.flagged(self._connection, since)

    def page(self, after: Mark, before: datetime, limit: int) -> tuple[list[Reading], Mark]:
        """The next readings before a time, screened, in order of time; see ``readings.page``."""
        return readings.page(self._connection, after, before, limit)

    def newest_rows(self) -> tuple[int, int]:
        """What tells later whether the past has changed."""
        return readings.newest_rows(self._connection)

    def changed_since(self, newest: tuple[int, int], before: int) -> bool:
        """Whether a correction, or a late reading of a time before ``before``, came after ``newest``."""
        return readings.changed_since(self._connection, newest, before)

    def latest_at(self) -> datetime | None:
        """When the newest reading was observed."""
        row = self._connection.execute(
            "SELECT MAX(observed_at) FROM readings WHERE struck = 0 AND origin != 'observation'"
        ).fetchone()
        return None if row[0] is None else readings.moment(row[0])

    def num_readings(self) -> int:
        return plain(self._connection, "SELECT COUNT(*) FROM readings WHERE struck = 0")

    def num_assessments(self) -> int:
        return plain(self._connection, "SELECT COUNT(*) FROM assessments")

    def assessments_after(self, row: int) -> Iterator[Stored]:
        """Assessments that were stored after the given row: what the outbox may not have yet."""
        return self._stored("SELECT id, message_id, body FROM assessments WHERE id > ? ORDER BY id", row)

    def alerts_after(self, row: int) -> Iterator[Stored]:
        """Alerts that were stored after the given row."""
        return self._stored("SELECT id, message_id, body FROM alerts WHERE id > ? ORDER BY id", row)

    def last_alert(self) -> Stored | None:
        """The newest change of the alert state, if there ever was one."""
        return next(
            self._stored("SELECT id, message_id, body FROM alerts WHERE id > ? ORDER BY id DESC LIMIT 1", 0),
            None,
        )

    def latest_assessment(self) -> Stored | None:
        """The newest assessment, if there is one."""
        return next(
            self._stored(
                "SELECT id, message_id, body FROM assessments WHERE id > ? ORDER BY id DESC LIMIT 1", 0
            ),
            None,
        )

    def _stored(self, query: str, row: int) -> Iterator[Stored]:
        for found in self._connection.execute(query, (row,)):
            yield Stored(*found)

    @staticmethod
    def _insert(
        connection: sqlite3.Connection, reading: Reading, origin: str, flags: Mapping[str, Flag]
    ) -> tuple[int, bool]:
        """The row of a reading, and whether it is new; a new one's artefacts are kept with it."""
        row, new = readings.insert(connection, reading, origin)
        if new and flags:
            readings.insert_flags(connection, row, flags)
        return row, new

    # -- settings ------------------------------------------------------------------------------------------

    def setting(self, name: str, default: Any = None) -> Any:
        """A setting of this admission: spo2_scale, consent, sealed, the state of its alerts."""
        row = self._connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return default if row is None else msgspec.json.decode(row[0])

    def set(self, **values: Any) -> None:
        """Write settings, synced to the disk."""
        with durable(self._connection) as connection:
            for name, value in values.items():
                self._set(connection, name, value)

    def note(self, **values: Any) -> None:
        """Write settings that may be lost in a power cut, since they can be found again: not synced."""
        with transaction(self._connection) as connection:
            for name, value in values.items():
                self._set(connection, name, value)

    @staticmethod
    def _set(connection: sqlite3.Connection, name: str, value: Any) -> None:
        connection.execute(
            "INSERT INTO settings VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, _encoder.encode(value)),
        )

    # -- housekeeping --------------------------------------------------------------------------------------

    def prune(self, max_readings: int = MAX_READINGS, *, step: int = 1000) -> int:
        """Remove the oldest readings beyond `max_readings`, `step` at a time; returns how many went."""
        excess = plain(self._connection, "SELECT COUNT(*) FROM readings") - max_readings
        if excess <= 0:
            return 0
        with transaction(self._connection) as connection:
            gone = connection.execute(
                "DELETE FROM readings WHERE id IN (SELECT id FROM readings WHERE origin != 'observation' "
                "AND id NOT IN (SELECT reading FROM corrections) ORDER BY observed_at LIMIT ?)",
                (min(excess, step),),
            ).rowcount
            connection.execute(
                "DELETE FROM assessments WHERE reading IS NULL AND assessed_at < "
                "(SELECT MIN(observed_at) FROM readings WHERE origin != 'observation')"
            )
            connection.execute(
                "DELETE FROM artefacts WHERE reading IS NULL AND observed_at < "
                "(SELECT MIN(observed_at) FROM readings WHERE origin != 'observation')"
            )
        log.info("the store holds more than %d readings: the oldest %d were removed", max_readings, gone)
        return gone

    def checkpoint(self) -> None:
        """Write the log back into the file, so that a commit rarely has to."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def seal(self) -> None:
        """End the admission: nothing is written any more; the file is folded into one and made read-only."""
        self.set(sealed=True)
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._connection.execute("PRAGMA journal_mode=DELETE").fetchall()
        self._connection.close()
        self.path.chmod(0o400)


def read_readings(path: Path | str, *, patience_s: float = 5.0) -> Iterator[Reading]:
    """The readings of a store in order of time, without what was struck out and without artefacts; opens it
    read-only.

    For the trainer, in another process, while the agent writes: it sees the store as it is when the reading
    begins. Raises StoreError for a store that cannot be read.
    """
    file = Path(path)
    if not file.is_file():
        raise StoreError(f"{file}: there is no store; start the agent with this data directory first")
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=patience_s)
        ) as connection:
            struck = readings.struck(connection)
            for kept in readings.select(connection, None, struck, screened=True):
                yield kept.reading
    except sqlite3.Error as error:
        what = "is damaged" if is_damage(error) else "cannot be read"
        raise StoreError(f"{file}: {what} ({error}); the agent repairs it at its next start") from error


def erase(folder: Path) -> None:
    """Remove an admission's folder with everything in it; its pages are overwritten first.

    On flash memory the overwriting is a courtesy: only encryption of the disk makes erasure certain.
    """
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)
            size = path.stat().st_size
            with path.open("r+b") as file:
                for _ in range(-(-size // 65536)):
                    file.write(bytes(65536))
                file.flush()
            path.unlink()
        elif path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()
