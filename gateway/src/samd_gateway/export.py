"""What is on record, as lines of CSV, JSON or FHIR: read page by page, so that no memory and no lock grows.

Each page is a transaction of its own: a slow reader of an export holds nothing up. Rows that come after the
export began are not in it.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import tuple_

from samd_gateway import export_fhir
from samd_gateway.errors import UsageError
from samd_gateway.export_kinds import Kind, Record, Source, source_of
from samd_gateway.schema import Database
from samd_gateway.states import DeviceState

Format = Literal["csv", "json", "fhir"]
PAGE_ROWS = 1000
MEDIA_TYPES: Mapping[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/x-ndjson",
    "fhir": "application/fhir+ndjson",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be exported. `since` and `until` are by the gateway's clock."""

    kind: Kind
    format: Format
    since: float | None = None
    until: float | None = None
    device: str | None = None


def check(asked: Asked) -> None:
    """Raises UsageError for what no export can be."""
    if asked.format == "fhir" and asked.kind != "assessments":
        raise UsageError(f"format fhir: {asked.kind} have no form in FHIR here; take csv or json")
    if asked.kind == "devices" and (asked.since is not None or asked.until is not None):
        raise UsageError("devices are exported as they are now; leave out since and until")
    if asked.kind == "audit" and asked.device is not None:
        raise UsageError("the audit is exported as a whole; leave out the device")
    if asked.since is not None and asked.until is not None and asked.since > asked.until:
        raise UsageError("since lies after until; exchange the two")


def lines(database: Database, asked: Asked, now: float, states: Mapping[str, DeviceState]) -> Iterator[bytes]:
    """The export in pieces of a page each. `states` is what the gateway derives, for the devices."""
    check(asked)
    source = source_of(asked.kind, states)
    pages = _pages(database, source, msgspec.structs.replace(asked, until=_until(asked, now)))
    if asked.format == "fhir":
        for page in pages:
            placed = _placed(database, page)
            resources = (each for row in page for each in export_fhir.resources(row, placed))
            yield b"".join(json.dumps(each).encode() + b"\n" for each in resources)
        return
    records: Iterator[list[Record]] = (
        [source.record(row) for row in page] for page in _with_admission(database, asked.kind, pages)
    )
    if asked.format == "csv":
        yield from _csv(source.columns, records)
    else:
        for page in records:
            yield b"".join(json.dumps(record).encode() + b"\n" for record in page)


def _placed(database: Database, page: Sequence[Mapping[str, Any]]) -> export_fhir.Admissions:
    with database.read() as connection:
        return export_fhir.Admissions(connection, {row["device"] for row in page})


def _with_admission(database: Database, kind: Kind, pages: Iterable[list[Record]]) -> Iterator[list[Record]]:
    """An assessment with the pseudonym of whom it is of."""
    for page in pages:
        if kind != "assessments":
            yield page
            continue
        placed = _placed(database, page)
        found = [placed.of(row["device"], (row["boot"], row["seq"])) for row in page]
        yield [
            {**row, "admission": None if admission is None else admission.id}
            for row, admission in zip(page, found, strict=True)
        ]


def _until(asked: Asked, now: float) -> float | None:
    if asked.kind == "devices":
        return None
    return now if asked.until is None else min(asked.until, now)


def _pages(database: Database, source: Source, asked: Asked) -> Iterator[list[Record]]:
    query = source.query.order_by(*source.order).limit(PAGE_ROWS)
    if source.time is not None:
        if asked.since is not None:
            query = query.where(source.time >= asked.since)
        if asked.until is not None:
            query = query.where(source.time <= asked.until)
    if source.device is not None and asked.device is not None:
        query = query.where(source.device == asked.device)
    after: tuple[Any, ...] | None = None
    while True:
        following = query if after is None else query.where(tuple_(*source.order) > after)
        if after is not None and source.time is source.order[0]:
            following = following.where(source.time >= after[0])  # what the index can do
        with database.read() as connection:
            page = [dict(row) for row in connection.execute(following).mappings()]
        if page:
            yield page
        if len(page) < PAGE_ROWS:
            return
        after = tuple(page[-1][column.name] for column in source.order)


# CSV


def cell(value: Any) -> Any:
    """A value as a cell. Text that a spreadsheet would run as a formula is kept from it by an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n"):
        return f"'{value}"
    return value


def _csv(columns: Sequence[str], pages: Iterable[list[Record]]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for page in pages:
        for record in page:
            flat = _flat(record)
            writer.writerow([cell(flat.get(name)) for name in columns])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    if buffer.tell():
        yield buffer.getvalue().encode()


def _flat(record: Mapping[str, Any], prefix: str = "") -> Record:
    """Nested objects as columns `outer_inner`; lists as words."""
    found: Record = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}_")
            found[f"{prefix}{name}"] = " ".join(f"{key}={value[key]}" for key in value)
        elif isinstance(value, list):
            found[f"{prefix}{name}"] = " ".join(str(each) for each in value)
            found |= {f"{prefix}{name}_{number}": each for number, each in enumerate(value[:9])}
        else:
            found[f"{prefix}{name}"] = value
    return found
