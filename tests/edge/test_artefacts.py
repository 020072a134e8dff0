"""Values that no body makes: held back, confirmed, withdrawn; and how rare flags are on real recordings."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.reading import VITALS, Reading
from samd_edge.artefacts import JUMPS, ArtefactPolicy, Screen

AT = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float, **values: Any) -> Reading:
    return Reading(observed_at=AT + timedelta(seconds=seconds), **values)


def kinds(screen: Screen, *readings: Reading) -> list[dict[str, str]]:
    return [{field: flag.kind for field, flag in screen.flags(reading).items()} for reading in readings]


def test_a_single_wild_value_is_held_back_and_the_next_good_one_counts() -> None:
    found = kinds(Screen(), *(at(5 * k, spo2=value) for k, value in enumerate([97.0, 61.0, 97.0, 96.0])))
    assert found == [{}, {"spo2": "jump"}, {}, {}]


def test_a_change_that_stays_is_confirmed_after_ten_seconds() -> None:
    rates = [80.0, 180.0, 178.0, 182.0, 181.0]
    found = kinds(Screen(), *(at(5 * k, heart_rate=value) for k, value in enumerate(rates)))
    assert found == [{}, {"heart_rate": "jump"}, {"heart_rate": "jump"}, {}, {}]


def test_wild_values_far_from_each_other_confirm_nothing() -> None:
    storm = [80.0, 180.0, 250.0, 290.0, 200.0, 81.0]
    found = kinds(Screen(), *(at(20 * k, heart_rate=value) for k, value in enumerate(storm)))
    assert [bool(flags) for flags in found] == [False, True, True, True, True, False]


def test_a_value_held_back_long_ago_confirms_nothing() -> None:
    found = kinds(Screen(), at(0, temperature=37.0), at(60, temperature=40.0), at(60 + 901, temperature=40.5))
    assert found == [{}, {"temperature": "jump"}, {"temperature": "jump"}]


@pytest.mark.parametrize("field", VITALS)
def test_the_limit_widens_with_time(field: str) -> None:
    start = {"temperature": 35.0, "spo2": 60.0}.get(field, 50.0)
    at_once, per_minute = JUMPS[field]
    inside, beyond = start + at_once + per_minute * 2 - 0.01, start + at_once + per_minute * 2 + 0.01
    assert kinds(Screen(), at(0, **{field: start}), at(120, **{field: inside})) == [{}, {}]
    assert kinds(Screen(), at(0, **{field: start}), at(120, **{field: beyond})) == [{}, {field: "jump"}]


def test_the_reason_says_what_happened_and_what_would_end_it() -> None:
    screen = Screen()
    screen.flags(at(0, systolic_bp=120.0))
    reason = screen.flags(at(10, systolic_bp=200.0))["systolic_bp"].reason
    assert (
        reason == "systolic_bp went from 120 to 200 within 10 s; it counts once a second reading confirms it"
    )


def test_a_flat_line_takes_both_time_and_number() -> None:
    policy = ArtefactPolicy(flat_after_s=600, flat_readings=60)
    dense = kinds(Screen(policy), *(at(10 * k, heart_rate=72.0) for k in range(62)))
    assert [index for index, flags in enumerate(dense) if flags] == [60, 61]
    sparse = kinds(Screen(policy), *(at(60 * k, heart_rate=72.0) for k in range(59)))
    assert not any(sparse), "59 minutes, and 59 readings"
    beating = kinds(Screen(policy), *(at(10 * k, heart_rate=72.0 + (k % 30 == 0)) for k in range(200)))
    assert not any(beating)


def test_a_flat_line_says_since_when() -> None:
    screen = Screen(ArtefactPolicy(flat_after_s=60, flat_readings=10))
    screen.flags(at(0, heart_rate=80.0))
    flags = [screen.flags(at(10 * k, heart_rate=72.0)) for k in range(1, 11)]
    assert flags[-1]["heart_rate"].since == AT + timedelta(seconds=10)


def test_a_paced_patient_is_taken_off_the_list() -> None:
    policy = ArtefactPolicy(flat_lines=("systolic_bp",), flat_after_s=60, flat_readings=10)
    assert not any(kinds(Screen(policy), *(at(10 * k, heart_rate=70.0) for k in range(100))))


def test_what_comes_late_is_no_news() -> None:
    screen = Screen()
    assert kinds(screen, at(100, spo2=97.0), at(50, spo2=40.0), at(110, spo2=96.0)) == [{}, {}, {}]
    assert kinds(screen, at(115, spo2=40.0, ages={"spo2": 60.0})) == [{}], "measured before the last one"


@given(
    st.lists(
        st.tuples(st.floats(0.5, 3600), st.sampled_from(VITALS), st.floats(1, 300)), min_size=1, max_size=60
    )
)
def test_quarter_hourly_readings_are_never_held_back_for_jumping(
    steps: list[tuple[float, str, float]],
) -> None:
    screen = Screen()
    seconds = 0.0
    for gap, field, value in steps:
        if field in ("temperature", "spo2"):
            continue
        seconds += 900 + gap
        assert not screen.flags(at(seconds, **{field: value}))


def test_flags_are_rare_on_real_recordings(icu_folder: Path) -> None:
    """Nurses have looked at these values before they were charted: a flag is nearly always a false one."""
    from samd_data.datasets import open_dataset

    dataset = open_dataset(icu_folder)
    values = flags = 0
    for patient in dataset.patients():
        screen = Screen()
        for reading in dataset.recording(patient).readings:
            values += sum(getattr(reading, field) is not None for field in VITALS)
            flags += len(screen.flags(reading))
    assert values > 50_000
    assert flags / values < 0.002
