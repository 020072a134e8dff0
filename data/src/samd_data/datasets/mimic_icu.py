"""MIMIC-IV, the intensive-care part: ``chartevents``, one charted value a row.

Source of the format: Johnson A, Bulgarelli L, Pollard T, Horng S, Celi LA, Mark R. MIMIC-IV. PhysioNet.
The whole table has over 300 million rows: it streams by in chunks, and only the items below are kept. Times
are local and shifted into the future per patient; taken as UTC, they keep their order and distance.

Of a cuff and an arterial pressure at the same minute the cuff stays: NEWS2 was made with cuffs. Oxygen is
known only where a flow is charted (above 0 is yes); consciousness comes from the Glasgow Coma Scale.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

from samd_data.datasets.base import Stay
from samd_data.datasets.events import EVENT_COLUMNS, EventDataset
from samd_data.datasets.tables import (
    Frame,
    chunks,
    events_of,
    find_table,
    gcs_events,
    load_pandas,
    names_of,
    only,
    stays_of,
)
from samd_data.errors import DataError


class Item(NamedTuple):
    field: str
    unit: str = ""
    priority: int = 0


ITEMS: Final = {
    220045: Item("heart_rate"),
    220210: Item("respiratory_rate"),
    220277: Item("spo2"),
    220179: Item("systolic_bp", priority=1),
    220050: Item("systolic_bp"),
    220180: Item("diastolic_bp", priority=1),
    220051: Item("diastolic_bp"),
    223761: Item("temperature", unit="F"),
    223762: Item("temperature", unit="C"),
    223834: Item("supplemental_oxygen"),
}
"""Vital signs and the oxygen flow, by ``itemid``."""

GCS_ITEMS: Final = {220739: "eye", 223900: "verbal", 223901: "motor"}
_COLUMNS: Final = ("subject_id", "charttime", "itemid", "valuenum")


class MimicIcu(EventDataset):
    """``path`` is the folder that holds ``chartevents``; ``icustays`` beside it gives the stays.

    Raises ``DataError`` for a missing column or a table that is no CSV.
    """

    kind = "mimic-iv"

    def __init__(self, path: Path, *, patients: Collection[str] | None, chunk_rows: int) -> None:
        self.path = path
        table = find_table(path, "chartevents")
        if table is None:
            raise DataError(f"{path}: there is no chartevents.csv or chartevents.csv.gz")
        pd = load_pandas(table)
        events = pd.concat([_events(chunk, patients, table) for chunk in chunks(table, _COLUMNS, chunk_rows)])
        is_gcs = events["part"].isin(list(GCS_ITEMS))
        both = pd.concat([events[~is_gcs], gcs_events(events[is_gcs], GCS_ITEMS)])
        self._take(both[list(EVENT_COLUMNS)])
        self._stays = _stays(path)

    def stays(self, patient: str) -> list[Stay]:
        return self._stays.get(patient, [])


def _events(chunk: Frame, patients: Collection[str] | None, table: Path) -> Frame:
    chunk = chunk[chunk["itemid"].isin([*ITEMS, *GCS_ITEMS]) & chunk["valuenum"].notna()]
    chunk = chunk[only(patients, names_of(chunk["subject_id"]))]
    events = events_of(chunk, value="valuenum", time="charttime", patient="subject_id", file=table)
    items = [ITEMS.get(item, Item("consciousness")) for item in chunk["itemid"]]
    events = events.assign(
        part=chunk["itemid"],
        field=[item.field for item in items],
        unit=[item.unit for item in items],
        priority=[item.priority for item in items],
    )
    flow = events["field"].eq("supplemental_oxygen")
    return events.assign(value=events["value"].where(~flow, (events["value"] > 0).astype(float)))


def _stays(folder: Path) -> dict[str, list[Stay]]:
    table = find_table(folder, "icustays")
    if table is None:
        return {}
    pd = load_pandas(table)
    frame = pd.concat(chunks(table, ("subject_id", "intime", "outtime"), 1_000_000))
    for column in ("intime", "outtime"):
        frame[column] = pd.to_datetime(frame[column], errors="coerce", format="ISO8601")
    frame = frame.dropna()
    by_patient = frame.groupby(names_of(frame["subject_id"]))
    return {str(name): stays_of(list(rows["intime"]), list(rows["outtime"])) for name, rows in by_patient}
