"""CLIF, the Common Longitudinal ICU data Format: one parquet file per table.

Source of the format: Rojas JC, Lyons PG, Chhikara K, et al. A common longitudinal intensive care unit data
format (CLIF) for critical illness research. Intensive Care Med 2025.

``clif_vitals`` gives the vital signs; ``clif_respiratory_support``, if there, oxygen;
``clif_patient_assessments``, if there, the Glasgow Coma Scale and with it consciousness;
``clif_hospitalization``, if there, the patient of each hospitalization, else each counts as one patient.

A site's times are UTC. Those of the public demo say UTC but are MIMIC's shifted local times plus a fixed five
hours, which are taken off again, so that they equal the times in MIMIC. The demo is known by its years: MIMIC
moves all patients beyond 2100.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from samd_data.datasets.events import EVENT_COLUMNS, EventDataset
from samd_data.datasets.tables import Column, Frame, events_of, gcs_events, load_pandas, names_of, only
from samd_data.errors import DataError

_FIELDS: Final = {
    "heart_rate": "heart_rate",
    "respiratory_rate": "respiratory_rate",
    "spo2": "spo2",
    "sbp": "systolic_bp",
    "dbp": "diastolic_bp",
    "temp_c": "temperature",
}
_GCS: Final = {"gcs_eye": "eye", "gcs_verbal": "verbal", "gcs_motor": "motor"}
_ALWAYS_OXYGEN: Final = ("nasal cannula", "face mask", "high flow nc", "trach collar")
_DEMO_YEAR: Final = 2100
_DEMO_SHIFT_HOURS: Final = 5
_ROOM_AIR: Final = 0.21  # the fraction of oxygen in air


class Clif(EventDataset):
    """``path`` is the folder of the parquet files.

    Raises ``DataError`` for a missing column, a damaged file, or when pyarrow cannot be loaded.
    """

    kind = "clif"

    def __init__(self, path: Path, *, patients: Collection[str] | None) -> None:
        self.path = path
        pd = load_pandas(path / "clif_vitals.parquet")
        patient_of = self._patients()
        tables = [
            self._vitals(),
            *([self._oxygen()] if (path / "clif_respiratory_support.parquet").is_file() else []),
            *([self._consciousness()] if (path / "clif_patient_assessments.parquet").is_file() else []),
        ]
        events = pd.concat(tables)
        if patient_of is not None:
            events["patient"] = events["patient"].map(patient_of).fillna(events["patient"])
        events = events[only(patients, events["patient"])]
        self._take(events[list(EVENT_COLUMNS)])

    def _patients(self) -> Column | None:
        file = self.path / "clif_hospitalization.parquet"
        if not file.is_file():
            return None
        frame = read_parquet(file, ("hospitalization_id", "patient_id"))
        return (
            names_of(frame["patient_id"])
            .set_axis(names_of(frame["hospitalization_id"]))
            .groupby(level=0)
            .first()
        )

    def _vitals(self) -> Frame:
        file = self.path / "clif_vitals.parquet"
        frame = read_parquet(
            file, ("hospitalization_id", "recorded_dttm", "vital_category", "vital_value"), ("vital_name",)
        )
        frame = frame[frame["vital_category"].isin(list(_FIELDS)) & frame["vital_value"].notna()]
        name = (
            frame["vital_name"].astype(str).str.lower() if "vital_name" in frame else frame["vital_category"]
        )
        events = _timed_events(frame, "vital_value", file)
        return events.assign(
            field=frame["vital_category"].map(_FIELDS),
            unit=np.where(frame["vital_category"].eq("temp_c"), "C", ""),
            priority=(~name.str.contains("arterial|art bp")).astype(int),  # at the same minute the cuff stays
        )

    def _oxygen(self) -> Frame:
        file = self.path / "clif_respiratory_support.parquet"
        frame = read_parquet(
            file, ("hospitalization_id", "recorded_dttm", "device_category", "fio2_set", "lpm_set")
        )
        device = frame["device_category"].astype(str).str.lower()
        oxygen = np.select(
            [
                frame["fio2_set"] > _ROOM_AIR + 1e-6,
                frame["fio2_set"].notna(),  # 0.21 or less
                frame["lpm_set"] > 0,
                device.eq("room air"),
                device.isin(_ALWAYS_OXYGEN) & frame["lpm_set"].isna(),
                frame["lpm_set"].eq(0),
            ],
            [1.0, 0.0, 1.0, 0.0, 1.0, 0.0],
            default=np.nan,  # a ventilator or CPAP without its fraction of oxygen: not known
        )
        frame = frame.assign(oxygen=oxygen)
        frame = frame[frame["oxygen"].notna()]
        return _timed_events(frame, "oxygen", file).assign(field="supplemental_oxygen")

    def _consciousness(self) -> Frame:
        file = self.path / "clif_patient_assessments.parquet"
        columns = ("hospitalization_id", "recorded_dttm", "assessment_category", "numerical_value")
        frame = read_parquet(file, columns)
        frame = frame[frame["assessment_category"].isin(list(_GCS)) & frame["numerical_value"].notna()]
        events = _timed_events(frame, "numerical_value", file).assign(part=frame["assessment_category"])
        return gcs_events(events, _GCS)


def read_parquet(file: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Frame:
    """The ``columns`` of a parquet file, and those of ``optional`` that it has."""
    pd = load_pandas(file)
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        remedy = (
            "install samd-data[datasets]" if missing else "install a pyarrow that fits the numpy that is here"
        )
        raise DataError(f"{file}: pyarrow is needed here and cannot be loaded ({error}); {remedy}") from error
    try:
        known = parquet.read_schema(file).names
        for column in columns:
            if column not in known:
                raise DataError(
                    f"{file}: there is no column {column}; this is not a table of CLIF: check the file"
                )
        names = [*columns, *(column for column in optional if column in known)]
        return pd.read_parquet(file, columns=names, engine="pyarrow").reset_index(drop=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file}: the file is damaged ({' '.join(str(error).split())}); get it again"
        ) from error


def _timed_events(frame: Frame, value: str, file: Path) -> Frame:
    pd = load_pandas(file)
    times = pd.to_datetime(frame["recorded_dttm"], utc=True, errors="coerce").dt.tz_localize(None)
    shift = pd.Timedelta(hours=_DEMO_SHIFT_HOURS if times.dt.year.min() >= _DEMO_YEAR else 0)
    events = events_of(
        frame.assign(time=times - shift), value=value, time="time", patient="hospitalization_id", file=file
    )
    return events.assign(row=frame.index + 1)  # a parquet file has no header line
