"""The readings in an admission's file: inserted, selected, struck through. Functions over an open connection.

Nothing is ever removed by a correction. A reading that is struck whole, a field that is struck, and a field
that was flagged as an artefact stay in the file; who reads the readings for judging or training gets them
without.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from samd_data.reading import FIELDS, Reading, without
from samd_edge.artefacts import Flag
from samd_edge.database import micros, plain

_decoder = msgspec.json.Decoder(Reading)
_encoder = msgspec.json.Encoder()
FIRST_WITH_ARTEFACTS: Final = 2
"""The schema version of a store from which on it has a table of artefacts."""

_LOOK_BACK: Final = 20_000  # readings that a correction is looked for in: five hours at one a second


class Kept(NamedTuple):
    """A reading as it stands after corrections, its row, and whether a person entered it."""

    row: int
    reading: Reading
    observed: bool


class Value(NamedTuple):
    """One value, by the time when it was measured (microseconds since 1970)."""

    field: str
    measured_at: int
    value: float | bool | str


class Said(NamedTuple):
    """A value that a source has said: the row of its reading, and whether it was struck since."""

    row: int
    value: float | bool | str
    struck: bool


def insert(
    connection: sqlite3.Connection, reading: Reading, origin: str, struck: Collection[str] = ()
) -> tuple[int, bool]:
    """The row of a reading, and whether it is new: the same reading is not kept twice.

    ``struck``: fields whose value was struck from another reading. One that is new is kept without them; of
    one without any other value nothing is kept.
    """
    moment, body = micros(reading.observed_at), _encoder.encode(reading)
    found = _row_of(connection, moment, body)
    if found is None and struck:
        reading = without(reading, struck)
        if not reading.present():
            return 0, False
        body = _encoder.encode(reading)
        found = _row_of(connection, moment, body)
    if found is not None:
        return found, False
    return _insert(connection, moment, origin, body), True


def _insert(connection: sqlite3.Connection, observed_at: int, origin: str, body: bytes) -> int:
    row = connection.execute(
        "INSERT INTO readings (observed_at, origin, body) VALUES (?, ?, ?)", (observed_at, origin, body)
    ).lastrowid
    return row or 0


def insert_flags(connection: sqlite3.Connection, row: int | None, flags: Mapping[str, Flag]) -> None:
    """Why fields of a reading are not scored; `row` None: there was no value that could be kept."""
    for field, flag in flags.items():
        connection.execute(
            "INSERT INTO artefacts (reading, observed_at, field, kind, reason) VALUES (?, ?, ?, ?, ?)",
            (row, micros(flag.at), field, flag.kind, flag.reason),
        )


def values_of(reading: Reading, fields: Iterable[str]) -> Iterator[Value]:
    """The values of some fields of a reading, as far as it has them."""
    for field in fields:
        value = getattr(reading, field)
        if value is not None:
            yield Value(field, micros(measured_at(reading, field)), value)


def struck(connection: sqlite3.Connection, row: int | None = None) -> Iterator[Value]:
    """Each value that was struck, of one reading or of all."""
    query = "SELECT corrections.field, body FROM corrections JOIN readings ON readings.id = reading"
    if row is not None:
        query += " WHERE reading = ?"
    for field, body in connection.execute(query, () if row is None else (row,)):
        yield from values_of(_decoder.decode(body), FIELDS if field is None else (field,))


def said(connection: sqlite3.Connection, field: str, at: datetime) -> list[Said]:
    """What sources said of a field at exactly this time, struck or not; never what a person entered."""
    rows = connection.execute(
        "SELECT id, body, struck OR EXISTS (SELECT 1 FROM corrections WHERE reading = readings.id AND "
        "field = ?) FROM readings WHERE observed_at = ? AND origin != 'observation'",
        (field, micros(at)),
    )
    return [
        Said(row, value.value, bool(gone))
        for row, body, gone in rows
        for value in values_of(_decoder.decode(body), (field,))
        if value.measured_at == micros(at)
    ]


def select(connection: sqlite3.Connection, since: datetime | None, *, screened: bool) -> Iterator[Kept]:
    """The readings from `since` on, in order of time, without what was struck; `screened`: nor artefacts."""
    hidden: dict[int, set[str]] = {}
    query = "SELECT reading, field FROM corrections WHERE field IS NOT NULL"
    if screened and _has_artefacts(connection):
        query += " UNION ALL SELECT reading, field FROM artefacts WHERE reading IS NOT NULL"
    for row, field in connection.execute(query):
        hidden.setdefault(row, set()).add(field)
    rows = connection.execute(
        "SELECT id, body, origin FROM readings WHERE struck = 0 AND observed_at >= ? "
        "ORDER BY observed_at, id",
        (-(2**63) if since is None else micros(since),),
    )
    for row, body, origin in rows:
        reading = _decoder.decode(body)
        if row in hidden:
            reading = without(reading, hidden[row])
        yield Kept(row, reading, origin == "observation")


def flagged(connection: sqlite3.Connection, since: datetime) -> dict[int, set[str]]:
    """By the row of a reading: its fields that were flagged as artefacts, measured from `since` on."""
    found: dict[int, set[str]] = {}
    for row, field in connection.execute(
        "SELECT reading, field FROM artefacts WHERE reading IS NOT NULL AND observed_at >= ?",
        (micros(since),),
    ):
        found.setdefault(row, set()).add(field)
    return found


def find_value(
    connection: sqlite3.Connection, field: str, at: datetime | None, *, tolerance: timedelta
) -> Kept | None:
    """The reading that holds a value of `field` measured at `at` (None: the newest), not yet struck."""
    rows = connection.execute(
        "SELECT id, body, origin FROM readings WHERE struck = 0 AND id NOT IN "
        "(SELECT reading FROM corrections WHERE field = ?) ORDER BY observed_at DESC, id DESC LIMIT ?",
        (field, _LOOK_BACK),
    )
    best: tuple[timedelta, Kept] | None = None
    for row, body, origin in rows:
        reading = _decoder.decode(body)
        if getattr(reading, field) is None:
            continue
        kept = Kept(row, reading, origin == "observation")
        if at is None:
            return kept
        distance = abs(measured_at(reading, field) - at)
        if distance <= tolerance and (best is None or distance < best[0]):
            best = (distance, kept)
    return None if best is None else best[1]


def strike(
    connection: sqlite3.Connection,
    row: int,
    field: str | None,
    *,
    by: str,
    reason: str | None,
    corrected_at: datetime,
) -> None:
    """Strike a reading, or one field of it. Raises ValueError for one that is not there."""
    if field is not None and field not in FIELDS:
        raise ValueError(f"{field!r} is no field of a reading; the fields are {', '.join(FIELDS)}")
    found = connection.execute(
        "UPDATE readings SET struck = MAX(struck, ?) WHERE id = ?", (int(field is None), row)
    ).rowcount
    if not found:
        raise ValueError(f"there is no reading {row} in this admission")
    connection.execute(
        "INSERT INTO corrections (reading, field, by, corrected_at, reason) VALUES (?, ?, ?, ?, ?)",
        (row, field, by, micros(corrected_at), reason),
    )


def measured_at(reading: Reading, field: str) -> datetime:
    """When a value of a reading was measured."""
    return reading.observed_at - timedelta(seconds=reading.ages.get(field, 0.0))


def moment(value: int) -> datetime:
    """Microseconds since 1970 as a time."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)


def _has_artefacts(connection: sqlite3.Connection) -> bool:
    """A file that an older client sealed is read as it is: it has no such table."""
    return plain(connection, "PRAGMA user_version") >= FIRST_WITH_ARTEFACTS


def _row_of(connection: sqlite3.Connection, observed_at: int, body: bytes) -> int | None:
    found = connection.execute(
        "SELECT id FROM readings WHERE observed_at = ? AND body = ?", (observed_at, body)
    ).fetchone()
    return None if found is None else int(found[0])
