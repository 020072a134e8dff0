"""Find out which data set lies at a path."""

from collections.abc import Collection
from pathlib import Path

from samd_data.datasets.base import Dataset
from samd_data.datasets.fetching import clif_demo
from samd_data.datasets.tables import find_table
from samd_data.errors import DataError

_LOOKED_FOR = (
    "clif_vitals.parquet (CLIF), vitalsign.csv[.gz] there or in ed/ (MIMIC-IV-ED), "
    "chartevents.csv[.gz] there or in icu/ (MIMIC-IV), PATIENT.csv with a column observed_at (recordings)"
)


def open_dataset(
    path_or_name: Path | str, *, patients: Collection[str] | None = None, chunk_rows: int = 1_000_000
) -> Dataset:
    """Open the data set at a path, or "clif-demo", which is fetched on first use.

    ``patients``: keep only these, which bounds the memory. ``chunk_rows``: how many rows of a CSV table are
    in memory at a time while it streams by; the vital signs that are kept take about 60 bytes each.

    Raises ``DataError`` when nothing is there, nothing known is there, a column is missing, or the package
    that reads the format is not installed.
    """
    path = clif_demo() if str(path_or_name) == "clif-demo" else Path(path_or_name)
    if not path.exists():
        raise DataError(
            f"{path}: there is no such file or folder; see 'samd-data datasets' for what can be had"
        )
    if path.is_file() and path.suffix in (".csv", ".jsonl", ".ndjson"):
        from samd_data.datasets.recordings import Recordings

        return Recordings(path, patients=patients)
    if (path / "clif_vitals.parquet").is_file():
        from samd_data.datasets.clif import Clif

        return Clif(path, patients=patients)
    for folder in (path, path / "ed"):
        if find_table(folder, "vitalsign"):
            from samd_data.datasets.mimic_ed import MimicEd

            return MimicEd(folder, patients=patients, chunk_rows=chunk_rows)
    for folder in (path, path / "icu"):
        if find_table(folder, "chartevents"):
            from samd_data.datasets.mimic_icu import MimicIcu

            return MimicIcu(folder, patients=patients, chunk_rows=chunk_rows)
    if path.is_dir():
        from samd_data.datasets.recordings import Recordings, holds_recordings

        if holds_recordings(path):
            return Recordings(path, patients=patients)
    raise DataError(f"{path}: holds no known data set; looked for {_LOOKED_FOR}")
