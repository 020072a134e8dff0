"""Fields found in somebody else's JSON: paths, units, times, ages, and what is refused."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.plausibility import Rejection, check
from samd_data.reading import Reading
from samd_edge.sources.json_fields import patient_of, read_json
from samd_edge.sources.json_mapping import mapping_of

NOW = datetime(2026, 6, 1, 8, tzinfo=UTC)


def read(content: object, table: dict[str, Any], arrived: datetime | None = NOW) -> list[Reading | Rejection]:
    return list(read_json(content, mapping_of(table), file="mqtt:a", row=7, arrived=arrived))


def one(content: object, **fields: Any) -> Reading | Rejection:
    (item,) = read(content, fields)
    return item


def rejected(content: object, **fields: Any) -> Rejection:
    item = one(content, **fields)
    assert isinstance(item, Rejection)
    assert (item.file, item.row) == ("mqtt:a", 7)
    return item


# -- paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["a.b[1].c", "a.b.1.c", ["a", "b", 1, "c"], {"path": "a.b[1].c"}, {"path": ["a", "b", "1", "c"]}],
)
def test_a_path_leads_through_objects_and_lists(path: Any) -> None:
    assert one({"a": {"b": [{}, {"c": 61}]}}, heart_rate=path) == Reading(observed_at=NOW, heart_rate=61)


def test_a_key_with_dots_is_written_in_a_list() -> None:
    assert one({"a.b": {"1": 62}}, heart_rate=["a.b", 1]) == Reading(observed_at=NOW, heart_rate=62)


@pytest.mark.parametrize("path", ["a[2]", "a.b", "b", "a[0].x", ["a", 99]])
def test_a_path_that_leads_nowhere_is_missing_and_never_zero(path: Any) -> None:
    content = {"a": [70, None], "hr": 80}
    assert read(content, {"spo2": path, "heart_rate": "hr"}) == [Reading(observed_at=NOW, heart_rate=80)]
    assert rejected(content, heart_rate=path).reason == "nothing that is mapped stands in the message"


@pytest.mark.parametrize(
    "path", ["", ".", "a.", "a[", "a[-1]", "a[1", "a[1]b", "[0]", [], ["a", -1], "__import__('os')[x]"]
)
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match=r"fields\.heart_rate: .* is no path; write keys with dots between"):
        mapping_of({"heart_rate": path})


# -- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "where", "content", "value"),
    [
        ("temperature", {"unit": "[degF]"}, 101.3, 38.5),
        ("temperature", {"unit": "Cel"}, 38.5, 38.5),
        ("temperature", {"unit_path": "u"}, {"v": 311.65, "u": "K"}, 38.5),
        ("systolic_bp", {"unit": "kPa"}, 16, 120.009869),
        ("respiratory_rate", {"unit": "{breaths}/min"}, 18, 18.0),
        ("supplemental_oxygen", {"unit": "L/min"}, 2.5, True),
        ("supplemental_oxygen", {"unit": "L/min"}, 0, False),
        ("supplemental_oxygen", {}, False, False),
        ("supplemental_oxygen", {"values": {"1": True, "0": False}}, 0, False),
        ("supplemental_oxygen", {"values": {"true": True}}, True, True),
        ("consciousness", {"values": {"3": "V"}}, 3, "V"),
        ("consciousness", {}, "Alert", "A"),
        ("consciousness", {}, "u", "U"),
    ],
)
def test_units_and_words_are_translated(field: str, where: Any, content: Any, value: object) -> None:
    content = content if isinstance(content, dict) else {"v": content}
    item = one(content, **{field: {"path": "v", **where}})
    assert isinstance(item, Reading)
    assert getattr(item, field) == value
    assert item.present() == (field,)


@pytest.mark.parametrize(
    ("field", "where", "content", "reason"),
    [
        ("temperature", {}, 101.3, "101.3 is outside 25 to 45 °C, and looks like °F"),
        ("temperature", {"unit": "[degF]"}, 38.5, "38.5 °F is no body temperature (77 to 113 °F)"),
        ("temperature", {"unit": "furlong"}, 38.5, "the unit 'furlong' is not known for this sign"),
        ("temperature", {"unit_path": "u"}, 38.5, "the message does not name its unit"),
        ("spo2", {}, 0.98, "0.98 is outside 30 to 100 %, and looks like a fraction"),
        ("spo2", {}, 120, "120 is outside 30 to 100 %"),
        ("systolic_bp", {}, "120 mmHg", "'120 mmHg' is not a number"),
        ("supplemental_oxygen", {}, 1, "1 is neither true nor false"),
        ("supplemental_oxygen", {"unit": "L/min"}, True, "True is not a number"),
        ("supplemental_oxygen", {"unit": "L/min"}, 500, "500 is no flow of oxygen (0 to 100 L/min)"),
        ("supplemental_oxygen", {"values": {"1": True}}, True, "True is none of 1"),
        (
            "consciousness",
            {"values": {"Alert": "A", "Voice": "V"}},
            "alert?",
            "'alert?' is none of Alert, Voice",
        ),
        ("consciousness", {}, "GCS 15", "'GCS 15' is not one of A C V P U"),
        ("consciousness", {}, 15, "15 is not one of A C V P U"),
        ("heart_rate", {}, 10**400, "a number of more than 30 digits is outside 15 to 300 /min"),
        ("systolic_bp", {"unit": "kPa"}, -(10**400), "a number of more than 30 digits is outside"),
    ],
)
def test_what_cannot_be_used_says_why(field: str, where: Any, content: object, reason: str) -> None:
    item = rejected({"v": content}, **{field: {"path": "v", **where}})
    assert item.column == field
    assert reason in item.reason
    assert item.kind == "implausible"


@pytest.mark.parametrize("written", [-1, 32767, "---", ""])
def test_a_monitor_that_measures_nothing_is_believed(written: object) -> None:
    where = {"path": "v", "no_signal": [-1, 32767, "---", ""]}
    assert rejected({"v": written}, spo2=where).kind == "no_signal"
    assert rejected({"v": True}, spo2={"path": "v", "no_signal": [1]}).kind == "implausible", "true is not 1"


# -- times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "told", "moment"),
    [
        ({}, "2026-06-01T10:00:00+02:00", NOW),
        ({}, " 2026-06-01 08:00:00.5Z ", NOW + timedelta(milliseconds=500)),
        ({"format": "s"}, 1780300800, NOW),
        ({"format": "s"}, 1780300800.25, NOW + timedelta(milliseconds=250)),
        ({"format": "ms"}, 1780300800250, NOW + timedelta(milliseconds=250)),
        ({"zone": "Europe/Berlin"}, "2026-06-01T10:00:00", NOW),
        ({"zone": "Europe/Berlin"}, "2026-06-01T08:00:00Z", NOW),
        # the hour that is there twice: 02:30 in summer time, which is the older, 00:30 UTC
        ({"zone": "Europe/Berlin"}, "2026-10-25T02:30:00", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        # the hour that is left out: by the clock that has not been changed or by the one that has
        ({"zone": "Europe/Berlin"}, "2026-03-29T02:30:00", datetime(2026, 3, 29, 0, 30, tzinfo=UTC)),
    ],
)
def test_times_as_monitors_write_them(when: Any, told: object, moment: datetime) -> None:
    fields = {"observed_at": {"path": "t", **when}, "heart_rate": "hr"}
    assert read({"t": told, "hr": 60}, fields, None) == [Reading(observed_at=moment, heart_rate=60)]


@pytest.mark.parametrize(
    ("when", "told", "reason"),
    [
        ({}, "2026-06-01T08:00:00", "has no time zone"),
        ({"zone": "Europe/Berlin"}, "2026-06-01", "is a date without a time of day"),
        ({}, "0001-01-01T00:00:00+23:00", "is no time in ISO 8601"),
        ({"zone": "Europe/Berlin"}, "0001-01-01T00:00:00", "is no time in ISO 8601"),
        ({}, "yesterday", "'yesterday' is no time in ISO 8601"),
        ({}, 1780300800, "1780300800 is no time in ISO 8601"),
        ({}, None, "there is no time of observation"),
        ({"format": "s"}, 1780300800250, "1780300800250 s since 1970 is no time of this century"),
        ({"format": "ms"}, 1780300800, "1780300800 ms since 1970 is no time of this century"),
        ({"format": "s"}, "1780300800", "'1780300800' is no number of s"),
        ({"format": "s"}, True, "True is no number of s"),
        ({"format": "s"}, 10**400, "is no time of this century"),
        ({"format": "s"}, -1, "is no time of this century"),
    ],
)
def test_a_message_without_a_sure_time_is_refused_whole(when: Any, told: object, reason: str) -> None:
    fields = {"observed_at": {"path": "t", **when}, "heart_rate": "hr"}
    (item,) = read({"t": told, "hr": 60}, fields, None)
    assert isinstance(item, Rejection)
    assert item.column == "observed_at"
    assert reason in item.reason


def test_each_value_may_have_an_age_or_a_time_of_its_own() -> None:
    table = {
        "observed_at": {"path": "t", "format": "s"},
        "heart_rate": "hr",
        "systolic_bp": {"path": "sys", "time": "nibp"},
        "temperature": {"path": "temp", "age": "temp_age"},
    }
    content = {"t": 1780300800, "hr": 60, "sys": 120, "nibp": 1780299000, "temp": 37, "temp_age": 900.5}
    assert read(content, table, None) == [
        Reading(
            observed_at=NOW,
            heart_rate=60,
            systolic_bp=120,
            temperature=37,
            ages={"systolic_bp": 1800.0, "temperature": 900.5},
        )
    ]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "there is no time of observation, so the value may be stale"),
        ({"nibp": 1780300806}, "was measured after the message says it was sent"),
        ({"nibp": "10 min"}, "'10 min' is no number of s, so the value may be stale"),
    ],
)
def test_a_value_of_unknown_age_is_stale(more: dict[str, object], reason: str) -> None:
    table = {"observed_at": {"path": "t", "format": "s"}, "systolic_bp": {"path": "sys", "time": "nibp"}}
    (item,) = read({"t": 1780300800, "sys": 120, **more}, table, None)
    assert isinstance(item, Rejection)
    assert (item.column, item.reason) == ("systolic_bp", reason)


@pytest.mark.parametrize("age", [None, -1, "5", True, 10**400, 2e9, []])
def test_an_age_is_a_number_of_seconds(age: object) -> None:
    item = rejected({"sys": 120, "age": age}, systolic_bp={"path": "sys", "age": "age"})
    assert item.reason.endswith("is no number of seconds, so the value may be stale")


# -- the patient --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "identifier"),
    [
        ("4711", "4711"),
        (" 4711 ", "4711"),
        (4711, "4711"),
        ("", None),
        (None, None),
        (True, None),
        (1.5, None),
        (["4711"], None),
        (10**400, None),
    ],
)
def test_a_patient_is_named_by_a_text_or_a_whole_number(told: object, identifier: str | None) -> None:
    mapping = mapping_of({"patient": "p.id", "heart_rate": "hr"})
    assert patient_of({"p": {"id": told}}, mapping) == identifier


# -- the mapping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({}, "names no vital sign"),
        ({"heart_rate": 5}, "fields.heart_rate: Expected `object`, got `int`"),
        ({"heart_rate": {"unit": "/min"}}, "missing required field `path`"),
        ({"heart_rate": {"path": "x", "values": {"a": True}}}, "is a number and has no values"),
        ({"heart_rate": {"path": "x", "unit": "/min", "unit_path": "u"}}, "give unit or unit_path, not both"),
        ({"heart_rate": {"path": "x", "age": "a", "time": "t"}}, "give age or time, not both"),
        ({"heart_rate": {"path": "x", "time": "t"}}, "time needs observed_at"),
        ({"consciousness": {"path": "x", "unit": "1"}}, "these values have no unit"),
        ({"consciousness": {"path": "x", "values": {"awake": "awake"}}}, "give one of A C V P U"),
        ({"supplemental_oxygen": {"path": "x", "values": {"mask": "A"}}}, "give true or false"),
        ({"observed_at": {"path": "x", "format": "h"}, "spo2": "s"}, "Invalid enum value 'h'"),
        ({"observed_at": {"path": "x", "zone": "Middle/Earth"}, "spo2": "s"}, "no time zone 'Middle/Earth'"),
        ({"observed_at": {"path": "x", "zone": "../x"}, "spo2": "s"}, "no time zone '../x'"),
        ({"observed_at": {"path": "x", "format": "s", "zone": "UTC"}, "spo2": "s"}, "leave zone out"),
        ({"patient": {"path": "x"}, "spo2": "s"}, "fields.patient"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused(table: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=r"^(fields|zone)") as caught:
        mapping_of(table)
    assert reason in str(caught.value)


# -- anything -----------------------------------------------------------------------------------------------

ANYTHING = mapping_of(
    {
        "observed_at": "t",
        "patient": "p",
        "heart_rate": "a",
        "spo2": {"path": "b[0]", "no_signal": [-1, "x"]},
        "temperature": {"path": "c", "unit_path": "d", "age": "e"},
        "systolic_bp": {"path": "f", "unit": "kPa", "time": "g"},
        "consciousness": {"path": "h", "values": {"1": "A"}},
        "supplemental_oxygen": {"path": "i", "unit_path": "d"},
    }
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["2026-06-01T08:00:00Z", "Cel", "kPa", "L/min", "[degF]", "1", 16, 37.5, 98.6])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("tpabcdefghi"), JSON), st.booleans())
def test_any_json_gives_readings_in_range_or_reasons(content: dict[str, Any], decoded: bool) -> None:
    if decoded:
        content = msgspec.json.decode(msgspec.json.encode(content))
    patient_of(content, ANYTHING)
    for item in read_json(content, ANYTHING, file="mqtt:a", row=1):
        if isinstance(item, Rejection):
            assert item.reason
            assert item.remedy
            assert "\n" not in item.line()
        else:
            assert item.present()
            for field in item.present():
                assert check(field, getattr(item, field)) is None
            assert all(math.isfinite(age) for age in item.ages.values())
