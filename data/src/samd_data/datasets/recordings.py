"""A folder of ``PATIENT.csv`` (or .jsonl) in this project's own format. Needs neither pandas nor pyarrow."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from samd_data.datasets.base import Dataset
from samd_data.errors import DataError
from samd_data.plausibility import Rejection
from samd_data.reading import Reading, Recording
from samd_data.table import read_rows, write_csv

_ENDINGS: Final = (".csv", ".jsonl", ".ndjson")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class Recordings(Dataset):
    """Every file is a patient, named by the file. Rows may stand in any order.

    Raises ``DataError`` for a file without a header, empty, or of a patient who has another file.
    """

    kind = "recordings"

    def __init__(self, path: Path, *, patients: Collection[str] | None = None) -> None:
        self.path = path
        self.rejections = []
        self._readings: dict[str, tuple[Reading, ...]] = {}
        files = [path] if path.is_file() else _files(path)
        for file in files:
            if patients is not None and file.stem not in patients:
                continue
            if file.stem in self._readings:
                raise DataError(f"{file}: the patient {file.stem} has two files here; keep one")
            self._readings[file.stem] = self._read(file)

    def patients(self) -> list[str]:
        present = [patient for patient, readings in self._readings.items() if readings]
        return sorted(present, key=lambda patient: (-len(self._readings[patient]), patient))

    def recording(self, patient: str) -> Recording:
        return Recording(patient, self._readings[patient])

    def _read(self, file: Path) -> tuple[Reading, ...]:
        readings: list[Reading] = []
        # A byte that is not UTF-8 spoils its cell, which is then rejected by name; not the whole file.
        with file.open(encoding="utf-8", errors="replace", newline="") as stream:
            for item in read_rows(stream, str(file)):
                if isinstance(item, Rejection):
                    self.rejections.append(item)
                else:
                    readings.append(item)
        return tuple(sorted(readings, key=lambda reading: reading.observed_at))


def holds_recordings(folder: Path) -> bool:
    """Whether a file of the folder starts as a recording does."""
    return any("observed_at" in _first_line(file) for file in _files(folder))


def write_recordings(folder: Path, recordings: Iterable[Recording], *, replace: bool = False) -> list[Path]:
    """Write each recording as ``PATIENT.csv`` into ``folder``, which is made if need be.

    Raises ``DataError`` when the folder holds files already and ``replace`` is not set, or when a patient's
    name does not make a file name.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: this is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not replace:
        raise DataError(f"{folder}: the folder is not empty; name another, or say --force to write into it")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for recording in recordings:
        if not _NAME.fullmatch(recording.patient):
            raise DataError(f"patient {recording.patient!r} makes no file name; use letters, digits, . _ -")
        write_csv(folder / f"{recording.patient}.csv", recording.readings)
        written.append(folder / f"{recording.patient}.csv")
    return written


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in _ENDINGS and file.name[0] != ".")


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline(4096)
