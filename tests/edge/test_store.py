"""The store of an admission: nothing lost, nothing invented, nothing read twice."""

import logging
import shutil
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samd_data.reading import Reading
from samd_edge.artefacts import Flag
from samd_edge.database import StoreError
from samd_edge.store import FILE, MIGRATIONS, AdmissionStore, Stored, erase, read_readings

START = datetime(2026, 1, 1, tzinfo=UTC)


def reading(minute: int, **values: object) -> Reading:
    return Reading(observed_at=START + timedelta(minutes=minute), **({"heart_rate": 70.0} | values))  # type: ignore[arg-type]


def assessed(store: AdmissionStore, minute: int, *, alert: Stored | None = None) -> tuple[int, int | None]:
    at = START + timedelta(minutes=minute)
    return store.add(
        reading(minute), assessed_at=at, severity=1, assessment=Stored(0, f"m{minute}", b"{}"), alert=alert
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "admission"


def test_history_is_read_in_order_and_never_taken_twice(folder: Path) -> None:
    store = AdmissionStore(folder)
    past = [reading(3), reading(1, ages={"heart_rate": 5.0}), reading(2), reading(2, spo2=97.0)]
    assert store.add_history(past) == 4
    assert store.add_history(past) == 0
    assert list(read_readings(store.path)) == [past[1], past[2], past[3], past[0]]
    assert store.num_readings() == 4
    assert store.latest_at() == START + timedelta(minutes=3)
    store.close()


def test_microseconds_survive(folder: Path) -> None:
    exact = Reading(observed_at=START + timedelta(microseconds=123_457), spo2=91.5)
    store = AdmissionStore(folder)
    store.add_history([exact])
    assert [found.observed_at for found in read_readings(store.path)] == [exact.observed_at]
    store.close()


def test_a_reading_and_its_assessment_are_one_commit(folder: Path) -> None:
    store = AdmissionStore(folder)
    with pytest.raises(sqlite3.IntegrityError):
        store.add(
            reading(1),
            assessed_at=START,
            severity=1,
            assessment=Stored(0, None, b"{}"),  # type: ignore[arg-type]
        )
    assert (store.num_readings(), store.num_assessments()) == (0, 0)
    assert assessed(store, 1) == (1, None)
    assert (store.num_readings(), store.num_assessments()) == (1, 1)
    store.close()


def test_what_the_outbox_has_not_yet_is_found_by_row(folder: Path) -> None:
    store = AdmissionStore(folder)
    assessed(store, 1)
    assert assessed(store, 2, alert=Stored(0, "a2", b"[]")) == (2, 1)
    store.close()
    store = AdmissionStore(folder)
    assert [row.message_id for row in store.assessments_after(0)] == ["m1", "m2"]
    assert [row.message_id for row in store.assessments_after(1)] == ["m2"]
    assert list(store.alerts_after(0)) == [Stored(1, "a2", b"[]")]
    latest = store.latest_assessment()
    assert latest is not None
    assert latest.message_id == "m2"
    store.close()


def test_what_is_struck_out_is_kept_and_never_read_again(folder: Path) -> None:
    store = AdmissionStore(folder)
    store.add_history([reading(1), reading(2, spo2=88.0, ages={"spo2": 9.0}), reading(3)])
    store.strike(1, by="nurse", corrected_at=START)
    store.strike(2, by="nurse", corrected_at=START, field="spo2")
    assert list(read_readings(store.path)) == [reading(2), reading(3)]
    assert store.num_readings() == 2
    assert store.add_history([reading(1)]) == 0, "a struck reading must not come back from the same source"
    with pytest.raises(ValueError, match="no reading 99"):
        store.strike(99, by="nurse", corrected_at=START)
    with pytest.raises(ValueError, match="no field"):
        store.strike(3, by="nurse", corrected_at=START, field="pulse")
    store.close()


def test_an_observation_is_a_reading_with_a_name(folder: Path) -> None:
    store = AdmissionStore(folder)
    seen = Reading(observed_at=START, supplemental_oxygen=True, consciousness="V")
    store.add_observation(seen, by="nurse", entered_at=START)
    assert list(read_readings(store.path)) == [seen]
    assert store.latest_at() is None, "the age of the last reading is the sensors' matter"
    store.close()


def test_growth_is_bounded_and_the_oldest_go(folder: Path) -> None:
    store = AdmissionStore(folder)
    store.add_observation(Reading(observed_at=START, consciousness="A"), by="nurse", entered_at=START)
    for minute in range(1, 31):
        assessed(store, minute)
    store.strike(2, by="nurse", corrected_at=START)
    assert store.prune(21, step=6) == 6
    assert store.prune(21, step=6) == 4
    assert store.prune(21, step=6) == 0
    minutes = [round((found.observed_at - START).total_seconds() / 60) for found in read_readings(store.path)]
    assert minutes == [0, *range(12, 31)], "observations and corrections stay"
    assert store.num_assessments() == 20
    store.close()


def test_settings(folder: Path) -> None:
    store = AdmissionStore(folder)
    store.set(spo2_scale=2, consent=False)
    store.close()
    store = AdmissionStore(folder)
    assert (store.setting("spo2_scale"), store.setting("consent"), store.setting("none", 7)) == (2, False, 7)
    store.close()


def test_a_damaged_store_is_moved_aside_and_a_new_one_begun(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = AdmissionStore(folder)
    store.add_history(reading(minute) for minute in range(2000))
    store.close()
    path = folder / FILE
    content = bytearray(path.read_bytes())
    content[8192:40960] = b"\xff" * 32768
    path.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        store = AdmissionStore(folder)
    assert store.num_readings() == 0
    store.add_history([reading(1)])
    store.close()
    aside = [found for found in folder.iterdir() if "damaged" in found.name]
    assert [found.read_bytes() for found in aside] == [bytes(content)]
    assert len(caplog.records) == 1
    assert "is damaged" in caplog.text
    assert "a new one is begun" in caplog.text


def test_a_file_that_is_no_database_is_moved_aside(folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(b"not a database at all, but long enough to be looked at" * 20)
    for _ in range(2):  # a second damage in the same second gets a name of its own
        AdmissionStore(folder).close()
        (folder / FILE).write_bytes(b"garbage" * 100)
    AdmissionStore(folder).close()
    assert len([found for found in folder.iterdir() if "damaged" in found.name]) == 3


def test_a_store_of_a_newer_client_is_left_alone(folder: Path) -> None:
    AdmissionStore(folder).close()
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="update samd-edge"):
        AdmissionStore(folder)


def test_opened_twice_it_is_migrated_once(folder: Path) -> None:
    for _ in range(2):
        store = AdmissionStore(folder)
        store.close()
    with sqlite3.connect(folder / FILE) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    connection.close()


def test_a_store_of_the_first_schema_is_read_and_migrated(folder: Path) -> None:
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "fixtures" / "store-1.sqlite", folder / FILE)
    before = list(read_readings(folder / FILE))
    assert [found.heart_rate for found in before] == [70.0, 72.0, None]
    assert before[1].systolic_bp is None, "what was struck stays struck"
    for _ in range(2):
        store = AdmissionStore(folder)
        assert store.setting("alert")["alert_id"] == "a1"
        assert [found.message_id for found in store.alerts_after(0)] == ["a1"]
        store.close()
    assert list(read_readings(folder / FILE)) == before
    store = AdmissionStore(folder)
    store.strike(1, by="nurse", corrected_at=START, field="spo2", reason="probe off")
    assert store.as_corrected(before[0]) == Reading(observed_at=START, heart_rate=70.0)
    store.close()


def test_artefacts_are_kept_and_never_trained_on(folder: Path) -> None:
    store = AdmissionStore(folder)
    wild = reading(1, spo2=61.0)
    flag = Flag("jump", "spo2 went from 97 to 61", wild.observed_at)
    row = Stored(0, "m1", b"{}")
    store.add(wild, assessed_at=START, severity=0, assessment=row, flags={"spo2": flag})
    lost = Flag("no_signal", "probe off", START)
    store.add(None, assessed_at=START, severity=0, assessment=row, flags={"spo2": lost})
    assert [found.spo2 for found in read_readings(store.path)] == [None]
    assert [kept.reading.spo2 for kept in store.recent(START)] == [61.0], "judging looks at it anew"
    store.close()
    with sqlite3.connect(folder / FILE) as connection:
        kinds = connection.execute("SELECT reading, field, kind FROM artefacts ORDER BY id").fetchall()
        assert kinds == [(1, "spo2", "jump"), (None, "spo2", "no_signal")]
    connection.close()


def test_a_value_is_found_by_its_time(folder: Path) -> None:
    store = AdmissionStore(folder)
    store.add_history([reading(1, spo2=95.0), reading(2, spo2=96.0, ages={"spo2": 90.0}), reading(3)])
    newest, by_time = store.find_value("spo2", None), store.find_value("spo2", START + timedelta(seconds=30))
    assert (newest and newest.row, by_time and by_time.row) == (2, 2)
    assert store.find_value("spo2", START + timedelta(seconds=45)) is None
    assert store.find_value("consciousness", None) is None
    store.strike(2, by="nurse", corrected_at=START, field="spo2")
    next_newest = store.find_value("spo2", None)
    assert next_newest is not None
    assert next_newest.row == 1
    store.close()


def test_the_trainer_reads_while_the_agent_writes(folder: Path) -> None:
    store = AdmissionStore(folder)
    store.add_history(reading(minute) for minute in range(100))
    found = read_readings(store.path)
    first = next(found)
    assessed(store, 200)
    assert len([first, *found]) == 100, "a reader sees the store as it was when it began"
    assert len(list(read_readings(store.path))) == 101
    store.close()


def test_no_store_and_a_damaged_store_are_a_sentence(folder: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        list(read_readings(folder / FILE))
    folder.mkdir()
    (folder / FILE).write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError, match="is damaged"):
        list(read_readings(folder / FILE))


def test_sealed_it_is_one_read_only_file(folder: Path) -> None:
    store = AdmissionStore(folder)
    store.add_history([reading(1)])
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    store.seal()
    assert [found.name for found in folder.iterdir()] == [FILE]
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o400
    assert list(read_readings(store.path)) == [reading(1)]


def test_erased_nothing_is_left(folder: Path) -> None:
    store = AdmissionStore(folder)
    store.add_history([reading(1)])
    store.close()
    erase(folder)
    assert not folder.exists()
