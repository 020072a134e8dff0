"""What is rejected, why, and what is said about it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.errors import DataError
from samd_data.plausibility import RANGES, Rejection, check, clean, shown, temperature_celsius
from samd_data.reading import FIELDS, VITALS


def test_every_vital_sign_has_a_range_with_a_reason() -> None:
    assert set(RANGES) == set(VITALS)
    for field, limits in RANGES.items():
        assert check(field, limits.low) is None
        assert check(field, limits.high) is None
        assert check(field, limits.low - 0.1) is not None
        assert check(field, limits.high + 0.1) is not None
        assert limits.reason


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("heart_rate", 0, "outside 15 to 300"),
        ("heart_rate", "80", "'80' is not a number"),
        ("heart_rate", True, "not a number"),
        ("heart_rate", float("nan"), "measured"),
        ("heart_rate", 10**400, "30 digits"),
        ("spo2", 10, "outside"),
        ("spo2", 0.97, "fraction"),
        ("systolic_bp", 11, "outside"),
        ("diastolic_bp", 879, "outside"),
        ("temperature", 98.6, "looks like °F"),
        ("supplemental_oxygen", 1, "neither true nor false"),
        ("supplemental_oxygen", "on", "neither true nor false"),
        ("consciousness", "alert", "A C V P U"),
        ("consciousness", "", "A C V P U"),
        ("consciousness", ["A"], "A C V P U"),
    ],
)
def test_reasons(field: str, value: Any, part: str) -> None:
    assert part in (check(field, value) or "")


def test_an_unknown_field_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no field"):
        check("pulse", 80)


@given(
    st.sampled_from(FIELDS),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
)
def test_check_never_fails_on_what_it_is_given(field: str, value: Any) -> None:
    reason = check(field, value)
    assert reason is None or "\n" not in reason


@pytest.mark.parametrize(
    ("value", "unit", "celsius"),
    [(37, "C", 37), (98.6, "F", 37), (98.6, None, 37), (31.4, None, 31.4), (45, None, 45), (77, None, 25)],
)
def test_celsius(value: float, unit: Any, celsius: float) -> None:
    assert temperature_celsius(value, unit) == celsius


@pytest.mark.parametrize(
    ("value", "unit", "hint"),
    [
        (99, "C", "looks like °F"),
        (37, "F", "looks like °C"),
        (50, "C", "measure again"),
        (0, "F", "measure again"),
        (60, None, "neither|no body temperature in"),
        (float("nan"), None, "no body temperature"),
    ],
)
def test_what_is_no_temperature(value: float, unit: Any, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        temperature_celsius(value, unit)
    with pytest.raises(ValueError, match="'C', 'F' or None"):
        temperature_celsius(37, "K")  # type: ignore[arg-type]


def test_clean_keeps_the_good_and_names_the_bad() -> None:
    fields = {
        "heart_rate": 80,
        "spo2": 10,
        "temperature": None,
        "supplemental_oxygen": False,
        "consciousness": "A",
    }
    accepted, rejections = clean(fields, file="a.csv", row=3)
    assert accepted == {"heart_rate": 80.0, "supplemental_oxygen": False, "consciousness": "A"}
    assert isinstance(accepted["heart_rate"], float)
    (rejection,) = rejections
    assert (rejection.file, rejection.row, rejection.column, rejection.value) == ("a.csv", 3, "spo2", "10")
    assert rejection.line().startswith("a.csv:3: spo2: 10 is outside 30 to 100 %; check the probe")


def test_crossed_pressures_reject_both() -> None:
    accepted, rejections = clean({"systolic_bp": 90, "diastolic_bp": 100, "spo2": 98})
    assert accepted == {"spo2": 98.0}
    assert [rejection.column for rejection in rejections] == ["systolic_bp", "diastolic_bp"]
    assert clean({"systolic_bp": 90, "diastolic_bp": 89})[1] == []


def test_a_rejection_is_one_line_whatever_it_holds() -> None:
    line = Rejection("a.csv", 2, "spo2", "x", f"{shown('9' * 100 + chr(10) + 'x')} is bad", "mend it").line()
    assert "\n" not in line
    assert len(line) < 100
    assert Rejection("a.csv", 0, "", "", "r", "m").line() == "a.csv: r; m"
