"""What a policy would have done: counted by hand on small recordings, and against a run minute by minute."""

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from samd_data.reading import Reading
from samd_data.table import write_csv
from samd_edge import alerts
from samd_edge.alarms import Item, Tally, judge, stays
from samd_edge.alerts import AlertState, Policy, Seen
from samd_edge.artefacts import ArtefactPolicy
from samd_edge.assessment import Assessor
from samd_edge.cli import main
from samd_edge.sources.extract_many import Recordings

BEGIN = datetime(2024, 3, 1, 8, tzinfo=UTC)
QUIET = Policy(raise_at="high", min_dwell_s=1800, emergency_refractory_s=3600)
QUIET_TOML = '[alerts]\nraise_at = "high"\nmin_dwell_s = 1800\nemergency_refractory_s = 3600\n'
MORE: dict[int, dict[str, Any]] = {  # what makes these totals
    0: {},
    5: {"respiratory_rate": 25, "supplemental_oxygen": True},
    7: {"respiratory_rate": 25, "supplemental_oxygen": True, "systolic_bp": 95},
}
FIRST = {0: 0, 10: 5, 30: 7, 60: 5, 90: 0, 110: 7, 140: 0, 200: 0}
SECOND = {0: 0, 30: 7, 60: 0, 110: 7, 170: 7}


def reading(minute: float, total: int) -> Reading:
    normal: dict[str, Any] = {
        "heart_rate": 70,
        "respiratory_rate": 16,
        "spo2": 98,
        "systolic_bp": 120,
        "temperature": 37.0,
        "supplemental_oxygen": False,
        "consciousness": "A",
    }
    return Reading(observed_at=BEGIN + timedelta(minutes=minute), **normal | MORE[total])


def readings(totals: dict[int, int]) -> list[Reading]:
    return [reading(minute, total) for minute, total in totals.items()]


def items(found: list[Reading]) -> list[Item]:
    return [(each.observed_at, each) for each in found]


def tallied(policy: Policy, *patients: list[Reading]) -> Tally:
    tally = Tally()
    for patient in patients:
        tally.add_patient([judge(stay) for stay in stays(items(patient))], policy)
    return tally


# -- by hand ----------------------------------------------------------------------------------------------


def test_the_default_policy_by_hand() -> None:
    """First patient: raised (2) at minute 10, escalated at 30, down at 70, cleared at 100, raised (3) at 110,
    cleared at 150. Second one: raised (3) at 30, cleared at 70, raised (3) at 110, and open at the end."""
    tally = tallied(Policy(), readings(FIRST), readings(SECOND))
    assert tally.changes == {
        ("raised", 2): 1,
        ("raised", 3): 3,
        ("escalated", 3): 1,
        ("deescalated", 2): 1,
        ("cleared", 2): 1,
        ("cleared", 3): 2,
    }
    assert (tally.patients, tally.silent_patients, tally.stays) == (2, 0, 2)
    assert tally.observed_s == (200 + 170) * 60
    assert tally.in_alert_s == {1: 0, 2: (20 + 30) * 60, 3: (40 + 40 + 40 + 60) * 60}
    assert tally.longest_s == 90 * 60
    assert tally.open_at_end == 1
    assert tally.delays_s == [0, 0, 0, 0]
    assert tally.unanswered == 0


def test_a_quiet_policy_by_hand() -> None:
    """First patient: raised at 30, cleared at 90; the 7 of minute 110 is over before the hour of silence is.
    Second one: raised at 30, cleared at 90; the 7 of minute 110 rings at 150."""
    tally = tallied(QUIET, readings(FIRST), readings(SECOND))
    assert tally.changes == {("raised", 3): 3, ("cleared", 3): 2}
    assert tally.in_alert_s == {1: 0, 2: 0, 3: (60 + 60 + 20) * 60}
    assert tally.longest_s == 60 * 60
    assert tally.open_at_end == 1
    assert tally.delays_s == [0, 0, 40 * 60]
    assert tally.unanswered == 1


def test_a_patient_without_an_alert_and_a_single_3() -> None:
    well = readings({0: 0, 60: 0})
    three = [*readings({0: 0}), Reading(observed_at=BEGIN + timedelta(minutes=60), respiratory_rate=25)]
    tally = tallied(Policy(), well, three)
    assert (tally.patients, tally.silent_patients, tally.raised) == (2, 2, 0)
    ward = tallied(Policy(raise_at="low-medium"), well, three)
    assert (ward.silent_patients, ward.changes) == (1, {("raised", 1): 1})


def test_what_becomes_too_old_is_noticed_at_the_next_minute() -> None:
    """Signs count for three hours and at that age still; the agent looks once a minute."""
    first = Reading(observed_at=BEGIN, heart_rate=135)
    second = Reading(observed_at=BEGIN + timedelta(minutes=1.5), respiratory_rate=30, consciousness="A")
    late = Reading(observed_at=BEGIN + timedelta(hours=12), heart_rate=70)
    seen = judge(items([first, second, late]))
    assert [((each.at - BEGIN).total_seconds() / 60, each.low, each.high) for each in seen] == [
        (0, 3, 20),
        (1.5, 6, 17),
        (181, 3, 17),
        (182, 0, 17),
        (720, 0, 14),
    ]


def test_a_long_pause_begins_a_new_stay_without_an_alert() -> None:
    found = readings({0: 7, 30: 7, 751: 7, 781: 7})
    assert [len(stay) for stay in stays(items(found))] == [2, 2]
    tally = tallied(Policy(), found)
    assert (tally.stays, tally.patients, tally.raised, tally.open_at_end) == (2, 1, 2, 2)
    assert tally.observed_s == 3600
    assert len(list(stays(items(readings({0: 7, 720: 7}))))) == 1


# -- against a run of minute by minute --------------------------------------------------------------------


def by_minutes(stay: list[Item], policy: Policy) -> tuple[Counter[tuple[str, int]], float, float]:
    """As the agent does it: judged at each reading and each minute, whether anything can change or not."""
    assessor, state = Assessor(), AlertState()
    changes: Counter[tuple[str, int]] = Counter()
    in_alert = longest = 0.0
    opened = last = stay[0][0]
    coming: dict[datetime, list[Reading]] = {}
    for at, item in stay:
        assert isinstance(item, Reading)
        coming.setdefault(at, []).append(item)
    minutes = int((stay[-1][0] - stay[0][0]) / timedelta(minutes=1))
    for at in sorted({*coming, *(stay[0][0] + timedelta(minutes=minute) for minute in range(minutes + 1))}):
        for each in coming.get(at, ()):
            assessor.take(each)
        if state.active:
            in_alert += (at - last).total_seconds()
        last = at
        score = assessor.assess(at).news2
        seen = Seen(low=score.low, high=score.high, points=score.points, at=at, observed_at=at)
        before = state.severity
        state, message = alerts.step(state, seen, lambda: "alert", policy)
        if message is None:
            continue
        changes[message.state, before if message.state == "cleared" else state.severity] += 1
        if message.state == "raised":
            opened = at
        elif message.state == "cleared":
            longest = max(longest, (at - opened).total_seconds())
    return changes, in_alert, max(longest, (last - opened).total_seconds() if state.active else 0.0)


def real_data(name: str) -> Path:
    root = Path(os.environ.get("SAMD_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"{root / name} is not there; set SAMD_TEST_DATA to the folder that holds it")
    return root / name


@pytest.fixture(scope="module")
def icu_folder() -> Path:
    return real_data("mimic-iv-demo-2.2")


@pytest.fixture(scope="module")
def ed_folder() -> Path:
    return real_data("mimic-iv-ed-demo-2.2")


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        QUIET,
        Policy(raise_at="low-medium", min_dwell_s=300, ward_refractory_s=600, emergency_refractory_s=5000),
    ],
)
def test_leaving_out_the_minutes_in_which_nothing_can_happen_changes_nothing(
    icu_folder: Path, policy: Policy
) -> None:
    checked = 0
    with Recordings(icu_folder, ["10007928", "10004235"]) as recordings:
        assert recordings.patients == 2
        for recording in recordings:
            for stay in stays(items(list(recording.readings))):
                tally = Tally()
                tally.add_patient([judge(stay)], policy)
                found = (tally.changes, sum(tally.in_alert_s.values()), tally.longest_s)
                assert found == by_minutes(stay, policy)
                checked += sum(tally.changes.values())
    assert checked > 10


# -- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ward").mkdir()
    write_csv(tmp_path / "ward" / "7.csv", readings(FIRST))
    write_csv(tmp_path / "ward" / "8.csv", readings(SECOND))
    return tmp_path / "ward"


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    (tmp_path / "quiet.toml").write_text(f'device = "bed-01"\n{QUIET_TOML}')  # as an agent's configuration
    return tmp_path / "quiet.toml"


def alarms(*arguments: object) -> int:
    return main(["alarms", *(str(argument) for argument in arguments)])


def test_json_tells_what_was_counted(folder: Path, quiet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert alarms("--replay", folder, "--policy", quiet, "--json") == 0
    out = capsys.readouterr()
    told = json.loads(out.out)
    assert out.err == ""
    policies = told.pop("policies")
    assert told == {"patients": 2, "stays": 2, "patient_days": 370 / 1440, "spo2_scale": 1}
    default, second = policies
    assert (default["name"], second["name"]) == ("default", "quiet")
    assert second["alerts"]["min_dwell_s"] == 1800
    per_day = {
        change: {k: v * 370 / 1440 for k, v in by.items()} for change, by in default["per_day"].items()
    }
    assert per_day == {
        "raised": pytest.approx({"1": 0, "2": 1, "3": 3}),
        "escalated": pytest.approx({"2": 0, "3": 1}),
        "deescalated": pytest.approx({"1": 0, "2": 1}),
        "cleared": pytest.approx({"1": 0, "2": 1, "3": 2}),
    }
    assert default["in_alert_share"] == 230 / 370
    assert default["in_emergency_share"] == 180 / 370
    assert (default["longest_s"], second["longest_s"]) == (5400, 3600)
    assert (default["silent_patients"], default["open_at_end"]) == (0, 1)
    assert (second["answered"], second["unanswered"], second["delay_median_s"]) == (3, 1, 0)


def test_the_table_puts_the_policies_side_by_side(
    folder: Path, quiet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert alarms("--replay", folder, "--policy", quiet) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 patients, 2 stays, 0.3 patient-days; NEWS2 on SpO2 scale 1"
    rows = {" ".join(line.split()[:-2]): line.split()[-2:] for line in lines[2:]}
    assert lines[2].split() == ["default", "quiet"]
    assert rows["alerts"] == ["4", "3"]
    assert rows["times it rings per patient-day"] == [f"{5 * 1440 / 370:.2f}", f"{3 * 1440 / 370:.2f}"]
    assert rows["it never rang"] == ["0", "1"]
    assert rows["open at the end of a stay"] == ["1", "1"]
    assert "at level 3" not in rows  # "48.6 %" are two words
    assert [line.split()[-4:] for line in lines if line.startswith("  at level 3")] == [
        ["48.6", "%", "37.8", "%"]
    ]
    assert {len(line) for line in lines[2:]} == {len(lines[2])}


def test_one_patient_or_one_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("--replay", folder, "--patient", "8"), ("--replay", folder / "8.csv")):
        assert alarms(*arguments, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["patients"], told["policies"][0]["raised"]) == (1, 2)


def test_a_scenario_can_be_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert alarms("--scenario", "copd", "--hours", "8", "--spo2-scale", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["patient_days"] == pytest.approx(8 / 24, rel=0.001)
    assert told["policies"][0]["raised"] == 1
    assert 3600 < told["policies"][0]["longest_s"] < 5400


def test_the_ed_demo(ed_folder: Path, tmp_path: Path) -> None:
    """As a person calls it; the policy is pinned, so that another default leaves this test alone."""
    pinned = tmp_path / "pinned.toml"
    pinned.write_text(
        '[alerts]\nraise_at = "medium"\nhysteresis = 1\nmin_dwell_s = 600\nurgent_refractory_s = 1800\n'
        "emergency_refractory_s = 0\n[artefacts]\njumps = false\nflat_lines = []\n"
    )
    command = [sys.executable, "-m", "samd_edge", "alarms", "--json"]
    done = subprocess.run(
        [*command, "--replay", str(ed_folder), "--policy", str(pinned)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["patients"], told["stays"]) == (57, 213)
    assert told["patient_days"] == pytest.approx(67.1, abs=0.05)
    found = told["policies"][1]
    counts = {
        change: {level: round(rate * told["patient_days"]) for level, rate in by.items()}
        for change, by in found["per_day"].items()
    }
    assert counts == {
        "raised": {"1": 0, "2": 38, "3": 9},
        "escalated": {"2": 0, "3": 3},
        "deescalated": {"1": 0, "2": 5},
        "cleared": {"1": 0, "2": 22, "3": 2},
    }
    assert found["raised"] == sum(counts["raised"].values())
    assert found["open_at_end"] == 47 - 24
    assert found["in_alert_share"] == 274_980 / 5_800_800
    assert found["longest_s"] == 5.6 * 3600
    assert (found["silent_patients"], found["answered"], found["unanswered"]) == (33, 12, 0)


def test_a_device_without_pandas_is_told_the_remedy(ed_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("raise ImportError('not on this device')\n")
    done = subprocess.run(
        [sys.executable, "-m", "samd_edge", "alarms", "--replay", str(ed_folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "install samd-data[datasets]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--replay", "nowhere"], "nowhere: there is no such file or folder"),
        (["--replay", "{ward}", "--patient", "9"], "has no patient '9'; it has "),
        (["--scenario", "flu"], "no scenario 'flu'"),
        (["--scenario", "well", "--patient", "7"], "--patient belongs to --replay"),
        (["--scenario", "well", "--hours", "nan"], "--hours is above 0"),
        (["--replay", "{ward}", "--policy", "nowhere.toml"], "nowhere.toml: cannot be read"),
    ],
)
def test_what_cannot_be_played_is_said_in_words(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert alarms(*(argument.format(ward=folder) for argument in arguments)) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert reason in out.err
    assert "Traceback" not in out.err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("alerts = 3\n", "[alerts]: Expected `object`"),
        ("[artefacts]\n", "has no table [alerts]"),
        ("[alerts\n", "is no TOML"),
        ("[alerts]\nmin_dwel_s = 3\n", "unknown field `min_dwel_s`"),
        ('[alerts]\nraise_at = "never"\n', "$.raise_at"),
        ("[alerts]\nmin_dwell_s = nan\n", "$.min_dwell_s"),
        ("[alerts]\n[artefacts]\nflat_after_s = 1\n", "[artefacts]: Expected `float` >= 60"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, reason: str
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(content)
    assert alarms("--replay", folder, "--policy", file) == 2
    assert reason in capsys.readouterr().err


def test_two_policies_may_flag_other_artefacts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A single wild value: held back by default, counted where jumps are not looked for."""
    wild = readings({0: 0, 10: 0, 11: 7, 12: 0, 60: 0})
    wild[2] = Reading(observed_at=wild[2].observed_at, heart_rate=220, systolic_bp=45)
    write_csv(tmp_path / "7.csv", wild)
    blind = tmp_path / "blind.toml"
    blind.write_text("[alerts]\n[artefacts]\njumps = false\n")
    assert alarms("--replay", tmp_path / "7.csv", "--policy", blind, "--json") == 0
    assert [each["raised"] for each in json.loads(capsys.readouterr().out)["policies"]] == [0, 1]
    assert ArtefactPolicy().jumps
