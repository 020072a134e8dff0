"""Codes of HL7 and FHIR: what field they fill, their units, answers on consciousness."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.plausibility import RANGES
from samd_data.reading import FIELDS
from samd_edge.sources.codes import (
    PANELS,
    System,
    UnitError,
    consciousness_of,
    field_of,
    in_unit,
    oxygen_of,
    rank_of,
)


@pytest.mark.parametrize(
    ("system", "code", "field"),
    [
        ("loinc", "8867-4", "heart_rate"),
        ("loinc", "8889-8", "heart_rate"),
        ("loinc", "9279-1", "respiratory_rate"),
        ("loinc", "59408-5", "spo2"),
        ("loinc", "2708-6", "spo2"),
        ("loinc", "8480-6", "systolic_bp"),
        ("loinc", "8462-4", "diastolic_bp"),
        ("loinc", "8310-5", "temperature"),
        ("loinc", "80288-4", "consciousness"),
        ("loinc", "67775-7", "consciousness"),
        ("loinc", "3151-8", "supplemental_oxygen"),
        ("mdc", "147842", "heart_rate"),
        ("mdc", "MDC_ECG_HEART_RATE", "heart_rate"),
        ("mdc", "149530", "heart_rate"),
        ("mdc", "151562", "respiratory_rate"),
        ("mdc", "MDC_TTHOR_RESP_RATE", "respiratory_rate"),
        ("mdc", " 150456 ", "spo2"),
        ("mdc", "150021", "systolic_bp"),
        ("mdc", "150022", "diastolic_bp"),
        ("mdc", "150301", "systolic_bp"),
        ("mdc", "MDC_PRESS_BLD_ART_ABP_DIA", "diastolic_bp"),
        ("mdc", "150344", "temperature"),
        ("loinc", "8339-4", None),  # skin temperature
        ("mdc", "150388", None),  # MDC_TEMP_SKIN
        ("mdc", "150017", None),  # any invasive pressure, also a venous one
        ("mdc", "150023", None),  # mean pressure
        ("loinc", "8478-0", None),
        ("loinc", "147842", None),  # an MDC code is no LOINC code
        ("loinc", "", None),
        ("mdc", "", None),
    ],
)
def test_the_field_of_a_code(system: System, code: str, field: str | None) -> None:
    assert field_of(system, code) == field


def test_panels_mean_nothing_themselves() -> None:
    assert [field_of("loinc", code) for code in sorted(PANELS)] == [None, None]


def test_the_better_method_goes_before() -> None:
    assert rank_of("mdc", "147842") < rank_of("mdc", "149530") < rank_of("mdc", "149546")
    assert rank_of("mdc", "150368") < rank_of("mdc", "150392") < rank_of("mdc", "150344")
    assert rank_of("mdc", "150037") == rank_of("mdc", "150038") < rank_of("mdc", "150301")
    with pytest.raises(KeyError):
        rank_of("loinc", "8478-0")


@pytest.mark.parametrize(
    ("field", "value", "unit", "expected"),
    [
        ("heart_rate", 72.0, "/min", 72.0),
        ("heart_rate", 72.0, "{beats}/min", 72.0),
        ("heart_rate", 72.0, "{Beats}/min", 72.0),
        ("heart_rate", 72.0, "BPM", 72.0),
        ("heart_rate", 1.2, "Hz", 72.0),
        ("heart_rate", 72.0, "264864", 72.0),
        ("heart_rate", 72.0, "MDC_DIM_BEAT_PER_MIN", 72.0),
        ("heart_rate", 72.0, None, 72.0),
        ("heart_rate", 72.0, "262656", 72.0),  # MDC_DIM_DIMLESS says nothing
        ("respiratory_rate", 16.0, "{breaths}/min", 16.0),
        ("respiratory_rate", 16.0, "264928", 16.0),
        ("respiratory_rate", 16.0, "", 16.0),
        ("spo2", 97.0, "%", 97.0),
        ("spo2", 97.0, "%{oxygen}", 97.0),
        ("spo2", 97.0, None, 97.0),
        ("systolic_bp", 120.0, "mm[Hg]", 120.0),
        ("systolic_bp", 120.0, "mmHg", 120.0),
        ("systolic_bp", 120.0, "266016", 120.0),
        ("systolic_bp", 16.0, "kPa", 120.009869),
        ("diastolic_bp", 100.0, "cm[H2O]", 73.555912),
        ("systolic_bp", 120.0, None, 120.0),
        ("diastolic_bp", 60.0, None, 60.0),
        ("temperature", 37.2, "Cel", 37.2),
        ("temperature", 37.2, "268192", 37.2),
        ("temperature", 100.4, "[degF]", 38.0),
        ("temperature", 100.4, "266560", 38.0),
        ("temperature", 310.15, "K", 37.0),
        ("temperature", 98.6, None, 37.0),
        ("temperature", 37.0, None, 37.0),
        ("temperature", 98.6, "Cel", 98.6),  # stays what it says, so that plausibility rejects it
        ("supplemental_oxygen", 2.0, "L/min", 2.0),
        ("supplemental_oxygen", 2000.0, "mL/min", 2.0),
        ("supplemental_oxygen", 2.0, None, 2.0),
    ],
)
def test_units_are_converted(field: str, value: float, unit: str | None, expected: float) -> None:
    assert in_unit(field, value, unit) == expected


@pytest.mark.parametrize(
    ("field", "value", "unit", "line"),
    [
        (
            "heart_rate",
            72.0,
            "/h",
            "the unit '/h' is not known for this sign; known are /min, {beats}/min, Hz",
        ),
        ("heart_rate", 72.0, "{beats}", "the unit '{beats}' is not known for this sign; known are /min, "),
        ("spo2", 0.97, "1", "the unit '1' is not known for this sign; known are %"),
        ("systolic_bp", 120.0, "Cel", "the unit 'Cel' is not known for this sign; known are mm[Hg], kPa"),
        ("temperature", 37.0, "mm[Hg]", "the unit 'mm[Hg]' is not known for this sign; known are Cel"),
        ("systolic_bp", 16.0, None, "16 without a unit could be mmHg or kPa; give the unit"),
        ("systolic_bp", 39.9, None, "39.9 without a unit could be mmHg or kPa; give the unit"),
        ("diastolic_bp", 26.0, "", "26 without a unit could be mmHg or kPa; give the unit"),
        ("temperature", 37.0, "[degF]", "37 °F is no body temperature (77 to 113 °F); it looks like °C"),
        ("temperature", 60.0, None, "60 is no body temperature in °C (25 to 45) or °F (77 to 113); measure"),
    ],
)
def test_what_has_no_known_unit_is_refused(field: str, value: float, unit: str | None, line: str) -> None:
    with pytest.raises(UnitError) as caught:
        in_unit(field, value, unit)
    assert str(caught.value).startswith(line)
    assert str(caught.value) == f"{caught.value.reason}; {caught.value.remedy}"


@given(st.sampled_from(sorted(RANGES)), st.floats(allow_nan=False, allow_infinity=False), st.text())
def test_any_text_as_a_unit_converts_or_is_refused(field: str, value: float, unit: str) -> None:
    with contextlib.suppress(UnitError):
        assert isinstance(in_unit(field, value, unit), float)


@given(st.floats(min_value=0.5, max_value=42))
def test_a_pressure_in_kpa_is_never_taken_for_mmhg(kilopascal: float) -> None:
    for field in ("systolic_bp", "diastolic_bp"):
        limits = RANGES[field]
        if limits.low <= kilopascal * 7.500616827 <= limits.high:
            with pytest.raises(UnitError):
                in_unit(field, kilopascal, None)


def test_oxygen_is_a_flow_above_nothing() -> None:
    assert [oxygen_of(flow) for flow in (0.0, 0.25, 15.0, 60.0)] == [False, True, True, True]
    for flow in (-1.0, 2000.0, float("nan"), float("inf")):
        with pytest.raises(UnitError, match="is no flow of oxygen"):
            oxygen_of(flow)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("A",), "A"),
        (("alert",), "A"),
        (("LA9340-6", "Alert"), "A"),
        (("248234008", "Mentally alert (finding)"), "A"),
        (("New Confusion",), "C"),
        (("130987000",), "C"),
        (("LA6560-2",), "C"),
        (("Responds to voice",), "V"),
        (("300202002", None), "V"),
        (("LA17108-4",), "V"),
        (("LA17107-6",), "P"),
        (("450847001",), "P"),
        (("LA9343-0",), "U"),
        (("422768004", "somewhere else"), "U"),
        (("LA9340-6", "Unresponsive"), None),  # a contradiction is no answer
        (("15",), None),
        (("0", "1"), None),
        (("drowsy",), None),
        (("",), None),
        ((None,), None),
        ((), None),
    ],
)
def test_consciousness_of_an_answer(answers: tuple[str | None, ...], expected: str | None) -> None:
    assert consciousness_of(*answers) == expected


@given(st.sampled_from(["loinc", "mdc"]), st.text())
def test_any_text_is_a_code_of_a_field_or_of_none(system: System, code: str) -> None:
    assert field_of(system, code) in (None, *FIELDS)
