"""Three days of the ICU demo, replayed, against a table that was made by hand for 30 of their hours.

``icu_day_news2.csv`` holds points only, no vital sign. It was computed from the raw table ``chartevents``
without any code of this project: per moment the latest value of each sign, looked up in the chart of the
Royal College of Physicians; each of the 30 sums was checked by eye. A sign counts for 3 hours, temperature,
oxygen and consciousness for 12 (an empty cell: not known, or older). At a minute with both, the cuff's
pressure goes before the arterial one. Oxygen is given where the charted flow is above 0. Consciousness
follows the eyes of the Glasgow Coma Scale: 3, 2, 1 are V, P, U; open eyes are A with full verbal and motor
scores, unknown where somebody obeys and cannot speak (a tube), else C.
"""

import csv
import itertools
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).with_name("icu_day_news2.csv")
SIGNS = (
    "respiratory_rate",
    "spo2",
    "supplemental_oxygen",
    "systolic_bp",
    "heart_rate",
    "consciousness",
    "temperature",
)


def rows_by_patient() -> dict[str, list[dict[str, str]]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: list(group) for name, group in itertools.groupby(rows, lambda row: row["patient"])}


@pytest.fixture(scope="module")
def icu_folder() -> Path:
    root = Path(os.environ.get("SAMD_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / "mimic-iv-demo-2.2").is_dir():
        pytest.skip(f"{root} has no mimic-iv-demo-2.2; set SAMD_TEST_DATA to the folder that holds it")
    return root / "mimic-iv-demo-2.2"


def replayed(folder: Path, patient: str, begin: str) -> dict[datetime, dict[str, Any]]:
    """What ``samd-edge infer`` says of a replay from ``begin`` on, by the time in the recording."""
    command = [sys.executable, "-m", "samd_edge", "infer", "--json"]
    command += ["--source", f"replay:{folder}?patient={patient}&from={begin}&speed=1000000"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    # A replay is shifted so that its first moment is now; ``begin`` is the time of a reading.
    shift = datetime.fromisoformat(lines[0]["assessed_at"]) - datetime.fromisoformat(begin)
    return {datetime.fromisoformat(line["assessed_at"]) - shift: line["news2"] for line in lines}


def test_the_table_covers_what_it_should() -> None:
    """30 moments, each band, each number of points that a sign can give but two, and what is not known."""
    rows = [row for group in rows_by_patient().values() for row in group]
    assert len(rows) == len({(row["patient"], row["moment"]) for row in rows}) == 30
    lows = [int(row["low"]) for row in rows]
    assert min(lows) == 0
    assert {1 <= low <= 4 for low in lows} == {5 <= low <= 6 for low in lows} == {True, False}
    assert sum(low >= 7 for low in lows) == 14
    assert sum(row["low"] != row["high"] for row in rows) == 17
    assert {sign: {row[sign] for row in rows} for sign in SIGNS} == {
        "respiratory_rate": {"0", "1", "2", "3"},
        "spo2": {"0", "1", "2", "3"},
        "supplemental_oxygen": {"2", ""},
        "systolic_bp": {"0", "1", "2", "3", ""},
        "heart_rate": {"0", "1", "2", "3"},
        "consciousness": {"0", "3"},
        "temperature": {"0", "1", "2", ""},
    }


@pytest.mark.parametrize("patient", sorted(rows_by_patient()))
def test_a_day_of_the_icu_demo_scores_as_by_hand(icu_folder: Path, patient: str) -> None:
    by_hand = rows_by_patient()[patient]
    found = replayed(icu_folder, patient, by_hand[0]["moment"])
    for row in by_hand:
        news2 = found[datetime.fromisoformat(row["moment"])]
        points = {sign: int(row[sign]) for sign in SIGNS if row[sign]}
        low, high = int(row["low"]), int(row["high"])
        assert (news2["points"], news2["low"], news2["high"]) == (points, low, high), row["moment"]
        assert news2["total"] == (low if low == high else None)
        assert sorted(news2["missing"]) == sorted(sign for sign in SIGNS if not row[sign])
