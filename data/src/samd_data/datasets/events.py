"""From a long table of single values to recordings: what the readers of hospital tables share."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from samd_data.datasets.base import Dataset
from samd_data.datasets.tables import Frame
from samd_data.errors import DataError
from samd_data.plausibility import RANGES, Rejection, check, remedy, shown, temperature_celsius
from samd_data.reading import CONSCIOUSNESS, FIELDS, VITALS, Reading, Recording

EVENT_COLUMNS: Final = ("patient", "time", "field", "value", "unit", "priority", "file", "row", "raw")
"""patient: str. time: datetime64, naive, NaT where the cell is no time. field: of ``FIELDS``. value: float64;
oxygen 0 or 1, consciousness the index in ``CONSCIOUSNESS``. unit: "C", "F" or "" (temperature only).
priority: of two values of a field at one time the higher stays. file, row: where it stands. raw: the cell,
where it was no number."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class EventDataset(Dataset):
    """A data set made of single values. A subclass fills it by ``_take``."""

    def _take(self, events: Frame) -> None:
        """Check ``events`` (``EVENT_COLUMNS``), keep what is plausible, list the rest in ``rejections``."""
        events = events.reset_index(drop=True)
        no_time = events.index[events["time"].isna()]
        reasons = dict.fromkeys(no_time, "the time of this value cannot be read")
        reasons |= _convert_temperatures(events.drop(index=no_time), events)
        for field, limits in RANGES.items():
            of_field = events["field"].eq(field) & ~events.index.isin(list(reasons))
            for index in events.index[of_field & ~events["value"].between(limits.low, limits.high)]:
                raw = events.at[index, "raw"] or float(events.at[index, "value"])
                reasons[index] = check(field, raw) or "is not plausible"
        kept = events.drop(index=list(reasons))
        reasons |= _crossed_pressures(kept)
        kept = events.drop(index=list(reasons))

        self.rejections = []
        for index in sorted(reasons):
            file, row, field, raw, number = events.loc[index, ["file", "row", "field", "raw", "value"]]
            value = raw or float(number)
            rejection = Rejection(file, int(row), field, shown(value), reasons[index], remedy(field, value))
            self.rejections.append(rejection)
        kept = kept.sort_values(["patient", "time", "priority", "row"], kind="stable")
        codes = {field: code for code, field in enumerate(FIELDS)}
        self._times = kept["time"].to_numpy().astype("datetime64[us]").astype(np.int64)
        self._fields = kept["field"].map(codes).to_numpy(dtype=np.int8)
        self._values = kept["value"].to_numpy(dtype=np.float64)
        patients = kept["patient"].to_numpy(dtype=str)
        names, first = np.unique(patients, return_index=True)
        ends = [*first[1:].tolist(), len(patients)]
        self._rows = {str(name): slice(int(a), int(b)) for name, a, b in zip(names, first, ends, strict=True)}

    def patients(self) -> list[str]:
        counts = {name: len(np.unique(self._times[rows])) for name, rows in self._rows.items()}
        return sorted(counts, key=lambda name: (-counts[name], name))

    def recording(self, patient: str) -> Recording:
        rows = self._rows[patient]
        readings: list[Reading] = []
        present: dict[str, Any] = {}
        times = self._times[rows].tolist()
        fields = self._fields[rows].tolist()
        values = self._values[rows].tolist()
        for index, (time, code, value) in enumerate(zip(times, fields, values, strict=True)):
            field = FIELDS[code]
            if field in VITALS:
                present[field] = value
            else:
                present[field] = bool(value) if field == "supplemental_oxygen" else CONSCIOUSNESS[int(value)]
            if index + 1 == len(times) or times[index + 1] != time:
                readings.append(Reading(observed_at=_EPOCH + timedelta(microseconds=time), **present))
                present = {}
        return Recording(patient, tuple(readings))


def _convert_temperatures(timed: Frame, events: Frame) -> dict[int, str]:
    """Convert in ``events`` the temperatures of ``timed`` to °C; the reasons of what is none, by index."""
    reasons: dict[int, str] = {}
    chosen = timed.index[timed["field"].eq("temperature") & timed["raw"].eq("")]
    values = events.loc[chosen, "value"].to_numpy(dtype=np.float64, copy=True)
    units = events.loc[chosen, "unit"].to_list()
    for position, (index, unit) in enumerate(zip(chosen, units, strict=True)):
        try:
            values[position] = temperature_celsius(float(values[position]), unit or None)
        except DataError as error:
            reasons[index] = str(error).partition(";")[0]
    events.loc[chosen, "value"] = values
    return reasons


def _crossed_pressures(events: Frame) -> dict[int, str]:
    """The reasons for pressures whose diastolic value is not below the systolic one, by index."""
    keys = ["patient", "time", "file", "priority"]
    pairs = (
        events[events["field"].eq("systolic_bp")]
        .reset_index()
        .merge(events[events["field"].eq("diastolic_bp")].reset_index(), on=keys, suffixes=("_s", "_d"))
    )
    crossed = pairs[pairs["value_d"] >= pairs["value_s"]]
    reasons: dict[int, str] = {}
    for systolic, diastolic, high, low in crossed[["index_s", "index_d", "value_s", "value_d"]].itertuples(
        index=False
    ):
        reasons[systolic] = reasons[diastolic] = f"diastolic {low:g} is not below systolic {high:g}"
    return reasons
