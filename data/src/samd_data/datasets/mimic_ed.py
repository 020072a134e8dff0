"""MIMIC-IV-ED, the emergency department: ``vitalsign``, and ``triage`` at the time of arrival.

Source of the format: Johnson A, Bulgarelli L, Pollard T, Celi LA, Mark R, Horng S. MIMIC-IV-ED. PhysioNet.
Temperatures are °F by its documentation; some were entered in °C. The two do not overlap on a living patient
(``plausibility.temperature_celsius``), so each is told by its value. Triage has no time of its own: it is
taken at ``intime`` of ``edstays``, and left out when that table is not there. Times are local and shifted
into the future per patient; they are taken as UTC. Oxygen and consciousness are not in these tables.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from samd_data.datasets.base import Stay
from samd_data.datasets.events import EVENT_COLUMNS, EventDataset
from samd_data.datasets.tables import (
    Frame,
    chunks,
    events_of,
    find_table,
    load_pandas,
    names_of,
    only,
    stays_of,
)
from samd_data.errors import DataError

_FIELDS: Final = {
    "heartrate": "heart_rate",
    "resprate": "respiratory_rate",
    "o2sat": "spo2",
    "sbp": "systolic_bp",
    "dbp": "diastolic_bp",
    "temperature": "temperature",
}


class MimicEd(EventDataset):
    """``path`` is the folder that holds ``vitalsign``.

    Raises ``DataError`` for a missing column or a table that is no CSV.
    """

    kind = "mimic-iv-ed"

    def __init__(self, path: Path, *, patients: Collection[str] | None, chunk_rows: int) -> None:
        self.path = path
        vitalsign = find_table(path, "vitalsign")
        if vitalsign is None:
            raise DataError(f"{path}: there is no vitalsign.csv or vitalsign.csv.gz")
        pd = load_pandas(vitalsign)
        events = [
            _events(chunk, patients, vitalsign, priority=1)
            for chunk in chunks(vitalsign, ("subject_id", "charttime", *_FIELDS), chunk_rows)
        ]
        self._stays: dict[str, list[Stay]] = {}
        edstays, triage = find_table(path, "edstays"), find_table(path, "triage")
        if edstays is not None:
            stays = pd.concat(chunks(edstays, ("subject_id", "stay_id", "intime", "outtime"), chunk_rows))
            self._stays = _stays(stays)
            if triage is not None:
                arrivals = stays.set_index("stay_id")["intime"]
                for chunk in chunks(triage, ("subject_id", "stay_id", *_FIELDS), chunk_rows):
                    timed = chunk.assign(charttime=chunk["stay_id"].map(arrivals))
                    events.append(_events(timed, patients, triage, priority=0))
        self._take(pd.concat(events)[list(EVENT_COLUMNS)])

    def stays(self, patient: str) -> list[Stay]:
        return self._stays.get(patient, [])


def _events(chunk: Frame, patients: Collection[str] | None, table: Path, *, priority: int) -> Frame:
    """One event per filled cell; at the same time a vital sign stays before one of triage."""
    pd = load_pandas(table)
    chunk = chunk[only(patients, names_of(chunk["subject_id"]))]
    columns = [
        events_of(
            chunk[chunk[column].notna()], value=column, time="charttime", patient="subject_id", file=table
        ).assign(field=field, priority=priority)
        for column, field in _FIELDS.items()
    ]
    return pd.concat(columns).sort_values("row", kind="stable")


def _stays(frame: Frame) -> dict[str, list[Stay]]:
    pd = load_pandas(Path("edstays"))
    times = frame.assign(
        intime=pd.to_datetime(frame["intime"], errors="coerce", format="ISO8601"),
        outtime=pd.to_datetime(frame["outtime"], errors="coerce", format="ISO8601"),
    ).dropna(subset=["intime", "outtime"])
    by_patient = times.groupby(names_of(times["subject_id"]))
    return {str(name): stays_of(list(rows["intime"]), list(rows["outtime"])) for name, rows in by_patient}
