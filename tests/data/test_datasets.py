"""The readers against the counts of the real recordings, and against folders that are not what they seem."""

import csv
import gzip
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from samd_data.datasets import Dataset, catalog, open_dataset
from samd_data.datasets.recordings import write_recordings
from samd_data.datasets.tables import consciousness_of_gcs
from samd_data.errors import DataError
from samd_data.reading import CONSCIOUSNESS, Reading, Recording
from samd_data.severity import labels

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def icu(icu_folder: Path) -> Dataset:
    return open_dataset(icu_folder)


@pytest.fixture(scope="module")
def ed(ed_folder: Path) -> Dataset:
    return open_dataset(ed_folder)


def check_order(dataset: Dataset) -> None:
    patients = dataset.patients()
    counts = [len(dataset.recording(patient).readings) for patient in patients]
    assert list(zip([-count for count in counts], patients, strict=True)) == sorted(
        zip([-count for count in counts], patients, strict=True)
    )
    assert min(counts) > 0


# --- MIMIC-IV, intensive care ------------------------------------------------------------------------------


def test_the_icu_demo_is_read_whole(icu: Dataset) -> None:
    assert icu.kind == "mimic-iv"
    assert len(icu.patients()) == 100
    check_order(icu)
    assert sum(len(icu.stays(patient)) for patient in icu.patients()) == 140


def test_the_oddities_of_the_icu_demo_are_rejected_by_line(icu: Dataset) -> None:
    by_column: dict[str, int] = {}
    for rejection in icu.rejections:
        by_column[rejection.column] = by_column.get(rejection.column, 0) + 1
    assert by_column == {
        "respiratory_rate": 47,
        "heart_rate": 3,
        "temperature": 3,
        "spo2": 1,
        "systolic_bp": 1,
    }
    table = icu.path / "chartevents.csv.gz"
    with gzip.open(table, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    for rejection in icu.rejections:
        assert rejection.file == str(table)
        assert float(lines[rejection.row - 1].split(",")[8]) == float(rejection.value)
    celsius = [rejection for rejection in icu.rejections if rejection.column == "temperature"]
    assert all("°C" in rejection.reason for rejection in celsius)
    assert any("convert it" in rejection.remedy for rejection in celsius)


def test_the_stay_hours_of_the_icu_demo(icu: Dataset) -> None:
    """One hour more is complete than when stays are kept apart by their number (``test_hourly``): a
    patient's readings are pooled here, and the last hour of one stay holds the first readings of the next."""
    tables = {patient: icu.hourly_tables(patient) for patient in icu.patients()}
    flat = [table for each in tables.values() for table in each]
    assert sum(len(table) for table in flat) == 12_428
    assert sum(int(table.measured()[:, :4].all(axis=1).sum()) for table in flat) == 10_997  # 10,996 by stay
    assert sum(int(table.measured()[:, :5].all(axis=1).sum()) for table in flat) == 3_302  # 3,301 by stay
    known = {
        patient: np.concatenate([labels(t.values, "five") for t in each]) for patient, each in tables.items()
    }
    assert sum(int((each >= 0).sum()) for each in known.values()) == 11_688  # 11,687 by stay
    assert sum((each >= 0).sum() >= 10 for each in known.values()) == 97


def test_a_small_chunk_and_chosen_patients_give_the_same(icu: Dataset, icu_folder: Path) -> None:
    chosen = icu.patients()[:3]
    few = open_dataset(icu_folder / "icu", patients=chosen, chunk_rows=5_000)
    assert few.patients() == chosen
    for patient in chosen:
        assert few.recording(patient) == icu.recording(patient)


def test_of_a_cuff_and_an_arterial_line_at_one_minute_the_cuff_stays(icu: Dataset) -> None:
    charted: dict[tuple[str, str], dict[str, float]] = {}
    with gzip.open(icu.path / "chartevents.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["itemid"] in ("220179", "220050"):
                charted.setdefault((row["subject_id"], row["charttime"]), {})[row["itemid"]] = float(
                    row["valuenum"]
                )
    both = {
        key: items for key, items in charted.items() if len(items) == 2 and items["220179"] != items["220050"]
    }
    assert len(both) > 50
    for (patient, time), items in list(both.items())[:50]:
        observed_at = datetime.fromisoformat(time).replace(tzinfo=UTC)
        (reading,) = [r for r in icu.recording(patient).readings if r.observed_at == observed_at]
        assert reading.systolic_bp == items["220179"]


@pytest.mark.parametrize(
    ("gcs", "level"),
    [
        ((4, 5, 6), "A"),
        ((4, 4, 6), "C"),
        ((4, 5, 5), "C"),
        ((4, 1, 5), "C"),
        ((4, 1, 6), None),
        ((3, 5, 6), "V"),
        ((2, 1, 4), "P"),
        ((1, 1, 1), "U"),
        ((4, float("nan"), 6), None),
        ((4, 5, float("nan")), None),
        ((float("nan"), 5, 6), None),
        ((4, 9, 6), None),
        ((0, 5, 6), None),
    ],
)
def test_consciousness_from_the_coma_scale(gcs: tuple[float, float, float], level: str | None) -> None:
    code = consciousness_of_gcs(*gcs)
    assert (None if np.isnan(code) else CONSCIOUSNESS[int(code)]) == level


# --- MIMIC-IV-ED -------------------------------------------------------------------------------------------


def test_the_ed_demo(ed: Dataset) -> None:
    assert ed.kind == "mimic-iv-ed"
    check_order(ed)
    with gzip.open(ed.path / "vitalsign.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1_038
    subjects = {row["subject_id"] for row in rows}
    assert len(subjects) == 54
    assert subjects <= set(ed.patients())
    assert len(ed.patients()) == 57  # three more have vital signs at triage only
    missing = {"temperature": 44.2, "heartrate": 2.9, "resprate": 4.6, "o2sat": 6.5, "sbp": 3.9}
    for column, percent in missing.items():
        assert sum(not row[column] for row in rows) / len(rows) * 100 == pytest.approx(percent, abs=0.05)


def test_every_value_of_the_ed_demo_is_taken_over_or_rejected(ed: Dataset) -> None:
    names = {
        "temperature": "temperature",
        "heartrate": "heart_rate",
        "resprate": "respiratory_rate",
        "o2sat": "spo2",
        "sbp": "systolic_bp",
        "dbp": "diastolic_bp",
    }
    by_time = {
        (patient, reading.observed_at): reading
        for patient in ed.patients()
        for reading in ed.recording(patient).readings
    }
    rejected = {(rejection.file, rejection.row, rejection.column) for rejection in ed.rejections}
    file_name = str(ed.path / "vitalsign.csv.gz")
    celsius = 0
    stays = set()
    with gzip.open(file_name, "rt", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            reading = by_time.get(
                (row["subject_id"], datetime.fromisoformat(row["charttime"]).replace(tzinfo=UTC))
            )
            for column, field in names.items():
                if not row[column] or (file_name, line, field) in rejected:
                    continue
                value = float(row[column])
                if field == "temperature":
                    if value < 50:
                        celsius += 1
                        stays.add(row["stay_id"])
                    else:
                        value = (value - 32) * 5 / 9
                assert reading is not None
                assert getattr(reading, field) == pytest.approx(value), (line, column)
    assert (celsius, len(stays)) == (36, 5)


def test_the_outliers_of_the_ed_demo_are_rejected_by_line(ed: Dataset) -> None:
    assert [
        (rejection.file.rpartition("/")[2], rejection.column, rejection.value) for rejection in ed.rejections
    ] == [
        ("vitalsign.csv.gz", "systolic_bp", "11"),
        ("vitalsign.csv.gz", "spo2", "10"),
        ("triage.csv.gz", "diastolic_bp", "879"),
    ]


def test_the_ed_demo_without_its_other_tables(ed: Dataset, tmp_path: Path) -> None:
    with (
        gzip.open(ed.path / "vitalsign.csv.gz", "rb") as packed,
        (tmp_path / "vitalsign.csv").open("wb") as plain,
    ):
        shutil.copyfileobj(packed, plain)
    alone = open_dataset(tmp_path)
    assert len(alone.patients()) == 54
    assert alone.stays(alone.patients()[0]) == []
    shutil.copy(ed.path / "triage.csv.gz", tmp_path)
    assert len(open_dataset(tmp_path).patients()) == 54  # triage has no time without edstays


def test_hospital_tables_with_bad_cells(tmp_path: Path) -> None:
    (tmp_path / "vitalsign.csv").write_text(
        "subject_id,stay_id,charttime,temperature,heartrate,resprate,o2sat,sbp,dbp,rhythm,pain\n"
        "1,2,2125-03-19 13:22:00,98.6,eighty,24,100,93,65,,severe\n"
        "1,2,2125-03-19 13:22:61,98.6,80,24,100,93,65,,\n"
        "1,2,2125-03-19 14:00:00,60,80,24,100,65,93,,\n",
        encoding="utf-8",
    )
    dataset = open_dataset(tmp_path)
    told = {(rejection.row, rejection.column) for rejection in dataset.rejections}
    six = {"temperature", "heart_rate", "respiratory_rate", "spo2", "systolic_bp", "diastolic_bp"}
    assert told == {
        (2, "heart_rate"),
        *((3, field) for field in six),
        (4, "temperature"),
        (4, "systolic_bp"),
        (4, "diastolic_bp"),
    }
    assert "'eighty' is not a number" in dataset.rejections[0].line()
    first, second = dataset.recording("1").readings
    assert (first.temperature, first.systolic_bp) == (37, 93)
    assert second == Reading(observed_at=second.observed_at, heart_rate=80, respiratory_rate=24, spo2=100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"a,b\n1,2\n", "no column subject_id"),
        (b"subject_id,charttime,itemid\n", "no column valuenum"),
    ],
)
def test_a_table_that_is_not_what_it_is_named_after(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "chartevents.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path)
    assert "chartevents.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torn_archive(icu: Dataset, tmp_path: Path) -> None:
    whole = (icu.path / "chartevents.csv.gz").read_bytes()
    for content in (whole[: len(whole) // 2], b"no gzip at all"):
        (tmp_path / "chartevents.csv.gz").write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            open_dataset(tmp_path)


# --- our own format ----------------------------------------------------------------------------------------


def readings(number: int) -> tuple[Reading, ...]:
    return tuple(
        Reading(observed_at=NOW + timedelta(hours=hour), spo2=90 + hour % 10) for hour in range(number)
    )


def test_recordings_round_trip(tmp_path: Path) -> None:
    recordings = [Recording("b", readings(3)), Recording("a", readings(3)), Recording("c", readings(5))]
    write_recordings(tmp_path / "out", recordings)
    dataset = open_dataset(tmp_path / "out")
    assert (dataset.kind, dataset.patients(), dataset.rejections) == ("recordings", ["c", "a", "b"], [])
    assert [dataset.recording(patient) for patient in "bac"] == recordings
    with pytest.raises(KeyError):
        dataset.recording("d")
    assert open_dataset(tmp_path / "out", patients=["a"]).patients() == ["a"]
    assert open_dataset(tmp_path / "out/a.csv").patients() == ["a"]
    with pytest.raises(DataError, match="not empty"):
        write_recordings(tmp_path / "out", recordings)
    write_recordings(tmp_path / "out", recordings, replace=True)


def test_recordings_are_sorted_and_tell_what_they_reject(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(
        b"observed_at,spo2\n2026-01-01T02:00:00Z,97\n2026-01-01T01:00:00Z,9\xff\n2026-01-01T00:00:00Z,96\n"
    )
    dataset = open_dataset(tmp_path)
    assert [reading.spo2 for reading in dataset.recording("p").readings] == [96, None, 97]
    assert [(rejection.row, rejection.column) for rejection in dataset.rejections] == [(3, "spo2")]
    (tmp_path / "p.jsonl").write_text('{"observed_at":"2026-01-01T00:00:00Z"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="two files"):
        open_dataset(tmp_path)


def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file name"):
        write_recordings(tmp_path / "out", [Recording("../p", readings(1))])


def test_a_folder_that_holds_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="looked for clif_vitals") as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such file or folder"):
        open_dataset(tmp_path / "nowhere")


def test_the_catalog_names_a_licence_and_a_way_for_each() -> None:
    entries = catalog()
    assert {"synthetic", "clif-demo", "mimic-iv-demo", "mimic-iv-ed-demo", "mimic-iv"} == {
        e.name for e in entries
    }
    for entry in entries:
        assert entry.what
        assert entry.where
        assert entry.licence
        assert entry.command.startswith("samd-data ")
