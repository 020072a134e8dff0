"""Reading large tables with pandas, chunk by chunk, and turning their cells into events.

pandas is imported when a table is read, never before.
"""

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np

from samd_data.datasets.base import Stay
from samd_data.errors import DataError

Frame = Any  # a pandas DataFrame: naming it would load pandas
Column = Any  # a pandas Series


def load_pandas(needed_for: Path) -> Any:
    """The module pandas. Raises ``DataError`` when it cannot be imported."""
    try:
        import pandas as pd
    except ImportError as error:
        raise DataError(
            f"{needed_for}: pandas is needed to read this and cannot be loaded ({error}); "
            "install samd-data[datasets]"
        ) from error
    return pd


def find_table(folder: Path, name: str) -> Path | None:
    """``name.csv`` or ``name.csv.gz`` in ``folder``, or None."""
    for ending in (".csv", ".csv.gz"):
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    return None


def chunks(table: Path, columns: Sequence[str], chunk_rows: int) -> Iterator[Frame]:
    """The ``columns`` of a CSV file, ``chunk_rows`` at a time; the index plus 2 is the line in the file.

    Raises ``DataError`` when a column is missing, or when the file is empty, damaged or no CSV.
    """
    pd = load_pandas(table)
    try:
        header = list(pd.read_csv(table, nrows=0).columns)
        for column in columns:
            if column not in header:
                raise DataError(
                    f"{table}:1: there is no column {column}; this is not the table it is named after: "
                    "get it again from its source"
                )
        with pd.read_csv(
            table, usecols=list(columns), chunksize=chunk_rows, skip_blank_lines=False, low_memory=False
        ) as reader:
            yield from reader
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{table}: the file is empty; get it again from its source") from error
    except (pd.errors.ParserError, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{table}: the file is damaged ({why}); get it again from its source") from error


def events_of(chunk: Frame, *, value: str, time: str, patient: str, file: Path) -> Frame:
    """Time, value, raw, row, file and patient (``events.EVENT_COLUMNS``) of each row of ``chunk``.

    A cell that is no number goes into ``raw``, to be rejected by name; one that is no time becomes NaT.
    """
    pd = load_pandas(file)
    numbers = pd.to_numeric(chunk[value], errors="coerce").astype(float)
    numbers = numbers.mask(np.isinf(numbers))
    return pd.DataFrame(
        {
            "patient": names_of(chunk[patient]),
            "time": pd.to_datetime(chunk[time], errors="coerce", format="ISO8601"),
            "value": numbers,
            "unit": "",
            "priority": 0,
            "file": str(file),
            "row": chunk.index + 2,
            "raw": chunk[value].astype(str).where(numbers.isna(), ""),
        },
        index=chunk.index,
    )


def names_of(column: Column) -> Column:
    """Patient numbers as text; a column with gaps was read as float, and 10.0 must stay 10."""
    if column.dtype.kind == "f":
        return column.map("{:.0f}".format)
    return column.astype(str)


def only(patients: Collection[str] | None, names: Column) -> Column:
    """A mask: which of ``names`` are asked for."""
    return names.isin(list(patients)) if patients is not None else names.notna()


def gcs_events(parts: Frame, part_of: Mapping[Any, str]) -> Frame:
    """Consciousness from the three parts of the Glasgow Coma Scale charted at the same time.

    ``parts``: events with one more column ``part``; ``part_of``: its values to "eye", "verbal", "motor".
    """
    if parts.empty:
        return parts.iloc[:0]
    keys = ["patient", "time"]
    named = parts.assign(part=parts["part"].map(part_of))
    table = named.groupby([*keys, "part"])["value"].last().unstack("part")
    table = table.reindex(columns=["eye", "verbal", "motor"])
    level = [consciousness_of_gcs(*row) for row in table.itertuples(index=False)]
    table = table.assign(value=level).reset_index().dropna(subset="value")
    origin = parts.drop_duplicates(keys)[[*keys, "unit", "priority", "file", "row"]]
    return table[[*keys, "value"]].merge(origin, on=keys).assign(field="consciousness", raw="")


def consciousness_of_gcs(eye: float, verbal: float, motor: float) -> float:
    """ACVPU from the three parts of the Glasgow Coma Scale, as an index into ``CONSCIOUSNESS``; NaN unknown.

    NEWS2 gives no table for this. Eyes decide, by the words of both scales: opening to speech is V, to pain
    P, not at all U. With eyes open: orientated and obeying is A; no verbal answer at all while obeying
    is what an intubated patient shows, so it is unknown; anything else is C. C, V, P and U score alike.
    """
    if eye in (1, 2, 3):
        return {1: 4.0, 2: 3.0, 3: 2.0}[int(eye)]
    if eye != 4 or verbal not in (1, 2, 3, 4, 5) or motor not in (1, 2, 3, 4, 5, 6):
        return float("nan")
    if motor == 6 and verbal == 5:
        return 0.0
    return float("nan") if motor == 6 and verbal == 1 else 1.0


def stays_of(starts: Sequence[Any], ends: Sequence[Any]) -> list[Stay]:
    """Stays from naive timestamps, oldest first; one that does not end after it starts is left out."""
    return [
        Stay(start.to_pydatetime().replace(tzinfo=UTC), end.to_pydatetime().replace(tzinfo=UTC))
        for start, end in sorted(zip(starts, ends, strict=True))
        if start < end
    ]
