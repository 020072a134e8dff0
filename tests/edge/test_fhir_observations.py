"""FHIR messages as readings: what is taken, what is refused and where, and that nothing is ever guessed."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samd_data.plausibility import RANGES, Rejection
from samd_data.reading import VITALS, Reading
from samd_edge.retraction import Retraction
from samd_edge.sources import fhir_json
from samd_edge.sources.fhir_message import MAX_ENTRIES, Decoded, MessageRefused, decode

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
REASONS = "http://terminology.hl7.org/CodeSystem/data-absent-reason"


def quantity(value: Any, unit: str, **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit, **more}


def concept(code: str, system: str = LOINC) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def observation(code: str | dict[str, Any] = "8867-4", **more: Any) -> dict[str, Any]:
    """An Observation, of a pulse of 80 where nothing else is said; None leaves an element out."""
    found = {
        "resourceType": "Observation",
        "status": "final",
        "code": concept(code) if isinstance(code, str) else code,
        "subject": {"reference": "Patient/17"},
        "effectiveDateTime": "2026-01-01T12:00:00Z",
        **({} if more.keys() & {"valueQuantity", "component"} else {"valueQuantity": quantity(80, "/min")}),
        **more,
    }
    return {name: value for name, value in found.items() if value is not None}


def pressure(systolic: Any, diastolic: Any, **more: Any) -> dict[str, Any]:
    parts = [("8480-6", systolic), ("8462-4", diastolic)]
    components = [
        {
            "code": concept(code),
            **(part if isinstance(part, dict) else {"valueQuantity": quantity(part, "mm[Hg]")}),
        }
        for code, part in parts
    ]
    return observation("85354-9", component=components, **more)


def bundle(*resources: Any, kind: str = "batch") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": [{"resource": one} for one in resources]}


def read(content: Any, now: datetime = NOON) -> Decoded:
    """As the listener reads it: through JSON."""
    return decode(fhir_json.parse(json.dumps(content).encode()), name="fhir:1", now=now)


def fields(reading: Reading) -> dict[str, Any]:
    return {name: getattr(reading, name) for name in reading.present()}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (observation(), {"heart_rate": 80.0}),
        (observation("9279-1", valueQuantity=quantity(16, "/min")), {"respiratory_rate": 16.0}),
        (observation("59408-5", valueQuantity=quantity(97, "%")), {"spo2": 97.0}),
        (observation("2708-6", valueQuantity=quantity(97, "%")), {"spo2": 97.0}),
        (pressure(120, 80), {"systolic_bp": 120.0, "diastolic_bp": 80.0}),
        (observation("8480-6", valueQuantity=quantity(120, "mm[Hg]")), {"systolic_bp": 120.0}),
        (observation("8310-5", valueQuantity=quantity(37.2, "Cel")), {"temperature": 37.2}),
        (observation("8310-5", valueQuantity=quantity(100.4, "[degF]")), {"temperature": 38.0}),
        (
            observation("8310-5", valueQuantity={"value": 100.4, "unit": "°F"}),
            {"temperature": 38.0},
        ),
        (observation("8480-6", valueQuantity=quantity(16, "kPa")), {"systolic_bp": 120.00987}),
        (observation("3151-8", valueQuantity=quantity(0, "L/min")), {"supplemental_oxygen": False}),
        (observation("3151-8", valueQuantity=quantity(2, "L/min")), {"supplemental_oxygen": True}),
        (observation(valueQuantity=None, valueInteger=80), {"heart_rate": 80.0}),
        (
            observation(code={"coding": [{"system": "urn:iso:std:iso:11073:10101", "code": "147842"}]}),
            {"heart_rate": 80.0},
        ),
        (
            observation(code={"coding": [{"system": "urn:x", "code": "HR"}, *concept("8867-4")["coding"]]}),
            {"heart_rate": 80.0},
        ),
        (
            # as US Core writes it: saturation with the flow of oxygen beside it
            observation(
                "59408-5",
                valueQuantity=quantity(94, "%"),
                component=[
                    {"code": concept("3151-8"), "valueQuantity": quantity(3, "L/min")},
                    {"code": concept("3150-6"), "valueQuantity": quantity(40, "%")},
                ],
            ),
            {"spo2": 94.0, "supplemental_oxygen": True},
        ),
        (
            observation("80288-4", valueQuantity=None, valueCodeableConcept=concept("LA9340-6")),
            {"consciousness": "A"},
        ),
        (
            observation("80288-4", valueQuantity=None, valueCodeableConcept=concept("300202002", SNOMED)),
            {"consciousness": "V"},
        ),
        (
            observation("80288-4", valueQuantity=None, valueCodeableConcept={"text": "Confusion"}),
            {"consciousness": "C"},
        ),
        (observation("80288-4", valueQuantity=None, valueString="U"), {"consciousness": "U"}),
    ],
)
def test_a_sign_is_read_in_its_own_unit(content: dict[str, Any], expected: dict[str, Any]) -> None:
    decoded = read(content)
    assert decoded.rejections == ()
    assert [fields(reading) for reading in decoded.readings] == [pytest.approx(expected)]
    assert decoded.readings[0].observed_at == NOON
    assert decoded.patient == "17"
    assert [entry.status for entry in decoded.entries] == [201]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"effectiveDateTime": "2026-01-01T13:00:00+01:00"}, NOON),
        ({"effectiveInstant": "2026-01-01T12:00:00.5Z"}, NOON + timedelta(seconds=0.5)),
        ({"effectivePeriod": {"start": "2026-01-01T11:00:00Z", "end": "2026-01-01T12:00:00Z"}}, NOON),
    ],
)
def test_the_time_is_that_of_the_measurement_in_utc(times: dict[str, Any], expected: datetime) -> None:
    content = (
        observation(effectiveDateTime=None, **times)
        if "effectiveDateTime" not in times
        else observation(**times)
    )
    assert read(content, now=NOON + timedelta(hours=1)).readings[0].observed_at == expected


def only(decoded: Decoded) -> Rejection:
    assert decoded.readings == ()
    assert len(decoded.rejections) == 1, decoded.rejections
    return decoded.rejections[0]


@pytest.mark.parametrize(
    ("content", "column", "place", "reason"),
    [
        (
            observation(valueQuantity=quantity(0, "/min")),
            "heart_rate",
            "valueQuantity",
            "0 is outside 15 to 300",
        ),
        (observation("59408-5", valueQuantity=quantity(120, "%")), "spo2", "valueQuantity", "120 is outside"),
        (
            observation("8310-5", valueQuantity=quantity(98.6, "Cel")),
            "temperature",
            "valueQuantity",
            "looks like °F",
        ),
        (
            observation("8310-5", valueQuantity=quantity(37, "[degF]")),
            "temperature",
            "valueQuantity",
            "37 °F is no body temperature",
        ),
        (
            observation("8480-6", valueQuantity=quantity(120, "kPa")),
            "systolic_bp",
            "valueQuantity",
            "outside",
        ),
        (
            observation("8480-6", valueQuantity={"value": 16}),
            "systolic_bp",
            "valueQuantity",
            "could be mmHg or kPa",
        ),
        (observation("8480-6", valueQuantity=quantity(120, "m[Hg]")), "systolic_bp", "valueQuantity", "unit"),
        (
            observation("8480-6", valueQuantity=None, valueString="120"),
            "systolic_bp",
            "valueString",
            "is text",
        ),
        (
            observation("85354-9", valueQuantity=None, valueString="120/80"),
            "systolic_bp",
            "",
            "holds no value",
        ),
        (observation(valueQuantity=quantity("80", "/min")), "heart_rate", "valueQuantity", "is not a number"),
        (
            observation(valueQuantity=quantity(10**300, "/min")),
            "heart_rate",
            "valueQuantity",
            "cannot be measured",
        ),
        (
            observation(valueQuantity=quantity(-1e308, "/min")),
            "heart_rate",
            "valueQuantity",
            "cannot be measured",
        ),
        (observation(valueQuantity=quantity(300, "/min", comparator=">")), "heart_rate", "comparator", "'>'"),
        (
            observation(valueQuantity=None, valueRange={"low": quantity(70, "/min")}),
            "heart_rate",
            "valueRange",
            "Range",
        ),
        (observation(valueQuantity=None), "heart_rate", "", "holds no value"),
        (
            observation("3151-8", valueQuantity=quantity(-1, "L/min")),
            "supplemental_oxygen",
            "valueQuantity",
            "no flow",
        ),
        (
            observation("80288-4", valueQuantity=None, valueCodeableConcept=concept("A", "urn:ward")),
            "consciousness",
            "valueCodeableConcept",
            "no level of consciousness",
        ),
        (observation(effectiveDateTime=None), "heart_rate", "effectivePeriod.end", "missing"),
        (observation(effectiveDateTime="2026-01-01"), "heart_rate", "effectiveDateTime", "no time of day"),
        (observation(effectiveDateTime="2026-01"), "heart_rate", "effectiveDateTime", "no time of day"),
        (
            observation(effectiveDateTime="2026-01-01T12:00:00"),
            "heart_rate",
            "effectiveDateTime",
            "not what FHIR R4",
        ),
        (observation(effectiveDateTime=1767268800), "heart_rate", "effectiveDateTime", "no time of day"),
        (
            observation(effectiveDateTime="2026-01-01T11:59:60Z"),
            "heart_rate",
            "effectiveDateTime",
            "no time of day",
        ),
        (
            observation(effectiveDateTime="0001-01-01T00:00:00+14:00"),
            "heart_rate",
            "effectiveDateTime",
            "no time",
        ),
        (
            observation(effectiveDateTime="2026-01-01T12:02:00Z"),
            "heart_rate",
            "effectiveDateTime",
            "ahead of",
        ),
        (observation(status="cancelled"), "heart_rate", "status", "'cancelled'"),
        (observation(status="unknown"), "heart_rate", "status", "'unknown'"),
        (observation(status="fine"), "heart_rate", "status", "'fine'"),
        (observation(status=None), "heart_rate", "status", "required element is missing"),
        (
            observation(modifierExtension=[{"url": "urn:not"}]),
            "heart_rate",
            "modifierExtension",
            "may change",
        ),
        (observation(implicitRules="urn:rules"), "heart_rate", "implicitRules", "may change"),
        (observation(focus=[{"reference": "Patient/child"}]), "heart_rate", "focus", "may change"),
        (observation(valueString="x"), "heart_rate", "", "not what FHIR R4"),
        (observation(colour="red"), "heart_rate", "colour", "not what FHIR R4"),
        (observation(subject={"reference": "Group/3"}), "", "subject", "not a patient"),
        (observation(subject={"reference": "urn:uuid:1"}), "", "subject", "does not resolve"),
        (observation(subject={"reference": "#p"}), "", "subject", "no identifier"),
        (
            observation(code={"coding": [*concept("8867-4")["coding"], *concept("9279-1")["coding"]]}),
            "",
            "code",
            "different signs",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_place_and_reason(
    content: dict[str, Any], column: str, place: str, reason: str
) -> None:
    decoded = read(content)
    rejection = only(decoded)
    assert rejection.column == column
    assert rejection.file == f"fhir:1 Observation{f'.{place}' if place else ''}".replace(
        ".comparator", ".valueQuantity.comparator"
    )
    assert reason in rejection.reason
    assert rejection.kind == "implausible"
    assert rejection.remedy
    assert decoded.entries[0].status in (400, 422)


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (
            observation(valueQuantity=None, dataAbsentReason=concept("not-performed", REASONS)),
            ["heart_rate"],
        ),
        (observation(valueQuantity=None, dataAbsentReason={"text": "not-performed"}), ["heart_rate"]),
        (
            observation(
                valueQuantity={
                    "unit": "/min",
                    "_value": {
                        "extension": [
                            {
                                "url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
                                "valueCode": "not-performed",
                            }
                        ]
                    },
                }
            ),
            ["heart_rate"],
        ),
        (
            observation("85354-9", valueQuantity=None, dataAbsentReason=concept("not-performed", REASONS)),
            ["systolic_bp", "diastolic_bp"],
        ),
    ],
)
def test_a_reason_why_nothing_was_measured_is_no_signal(content: dict[str, Any], columns: list[str]) -> None:
    decoded = read(content)
    assert decoded.readings == ()
    assert [one.column for one in decoded.rejections] == columns
    assert {one.kind for one in decoded.rejections} == {"no_signal"}
    assert {one.reason for one in decoded.rejections} == {"nothing was measured (not-performed)"}
    assert decoded.entries[0].status == 201, "it was taken over that nothing was measured"


def test_of_a_pressure_one_component_may_be_missing() -> None:
    decoded = read(pressure(120, {"dataAbsentReason": concept("error", REASONS)}))
    assert [fields(one) for one in decoded.readings] == [{"systolic_bp": 120.0}]
    assert [(one.column, one.kind, one.file) for one in decoded.rejections] == [
        ("diastolic_bp", "no_signal", "fhir:1 Observation.component[1].dataAbsentReason")
    ]
    assert decoded.entries[0].status == 201


def test_a_value_beside_a_reason_for_its_absence_is_not_believed() -> None:
    rejection = only(read(observation(dataAbsentReason=concept("error", REASONS))))
    assert "a reason why there is none" in rejection.reason
    assert rejection.kind == "implausible"


def test_a_diastolic_pressure_above_the_systolic_one_rejects_both() -> None:
    decoded = read(pressure(80, 120))
    assert decoded.readings == ()
    assert {one.column for one in decoded.rejections} == {"systolic_bp", "diastolic_bp"}
    assert decoded.entries[0].status == 422


def test_what_is_no_vital_sign_is_passed_over() -> None:
    decoded = read(observation("29463-7", valueQuantity=quantity(70, "kg")))
    assert (decoded.readings, decoded.rejections) == ((), ())
    assert decoded.entries[0].status == 422
    assert decoded.entries[0].problems[0].code == "not-supported"


def test_a_bundle_gives_one_reading_a_time_oldest_first() -> None:
    decoded = read(
        bundle(
            observation(effectiveDateTime="2026-01-01T12:00:00Z"),
            observation(
                "59408-5", valueQuantity=quantity(97, "%"), effectiveDateTime="2026-01-01T13:00:00+01:00"
            ),
            observation(
                "9279-1", valueQuantity=quantity(16, "/min"), effectiveDateTime="2026-01-01T11:00:00Z"
            ),
            observation(),  # the same once more
        )
    )
    assert [(one.observed_at, fields(one)) for one in decoded.readings] == [
        (NOON - timedelta(hours=1), {"respiratory_rate": 16.0}),
        (NOON, {"heart_rate": 80.0, "spo2": 97.0}),
    ]
    assert [entry.status for entry in decoded.entries] == [201] * 4
    assert decoded.rejections == ()


def test_an_entry_that_is_wrong_takes_nothing_from_the_others() -> None:
    deleted = {"request": {"method": "DELETE", "url": "Observation/1"}, "resource": observation()}
    content = bundle(
        observation(),
        observation(valueQuantity=quantity(0, "/min"), effectiveDateTime="2026-01-01T11:00:00Z"),
    )
    content["entry"] += [{"resource": {"resourceType": "Device", "id": "1"}}, {}, deleted, "nonsense"]
    decoded = read(content)
    assert [entry.status for entry in decoded.entries] == [201, 422, 422, 400, 422, 400]
    assert [fields(one) for one in decoded.readings] == [{"heart_rate": 80.0}]
    assert [one.file for one in decoded.rejections] == [
        "fhir:1 Bundle.entry[1].resource.valueQuantity",
        "fhir:1 Bundle.entry[3].resource",
        "fhir:1 Bundle.entry[4].resource",
        "fhir:1 Bundle.entry[5]",
    ]


def test_two_values_of_one_sign_at_one_time_are_both_refused_unless_one_corrects_the_other() -> None:
    decoded = read(bundle(observation(), observation(valueQuantity=quantity(120, "/min"))))
    assert decoded.readings == ()
    assert [one.column for one in decoded.rejections] == ["heart_rate", "heart_rate"]
    assert {entry.status for entry in decoded.entries} == {422}
    corrected = observation(valueQuantity=quantity(120, "/min"), status="corrected")
    assert fields(read(bundle(observation(), corrected)).readings[0]) == {"heart_rate": 120.0}


def test_the_better_method_counts() -> None:
    pulse = observation("8889-8", valueQuantity=quantity(79, "/min"))
    assert fields(read(bundle(pulse, observation())).readings[0]) == {"heart_rate": 80.0}
    invasive = observation("76215-3", valueQuantity=quantity(90, "mm[Hg]"))
    decoded = read(bundle(pressure(120, 80), invasive))
    assert fields(decoded.readings[0]) == {"systolic_bp": 90.0}, "the cuff's diastolic is no pair of it"
    assert decoded.rejections == ()
    lead_off = observation(valueQuantity=quantity(0, "/min"))
    decoded = read(bundle(lead_off, pulse))
    assert fields(decoded.readings[0]) == {"heart_rate": 79.0}, "what cannot be is no better method"
    assert [entry.status for entry in decoded.entries] == [422, 201]


def test_of_every_entry_something_is_said() -> None:
    cuff = observation("8462-4", valueQuantity=quantity(80, "mm[Hg]"))
    invasive = observation("76215-3", valueQuantity=quantity(90, "mm[Hg]"))
    decoded = read(bundle(invasive, cuff))
    assert fields(decoded.readings[0]) == {"systolic_bp": 90.0}
    assert decoded.rejections == ()
    assert [(entry.taken, entry.status, len(entry.problems)) for entry in decoded.entries] == [
        (True, 201, 0),
        (False, 201, 1),
    ]


@pytest.mark.parametrize(
    ("subjects", "resources", "expected"),
    [
        ([{"reference": "Patient/17"}, {"reference": "Patient/17/_history/2"}, None], [], "17"),
        ([{"identifier": {"value": "4711"}}], [], "4711"),
        (
            [{"reference": "Patient/17", "identifier": {"value": "4711"}}, {"reference": "Patient/17"}],
            [],
            "4711",
        ),
        ([{"reference": "http://example.org/fhir/Patient/17"}], [], "http://example.org/fhir/Patient/17"),
        (
            [{"reference": "urn:uuid:0b1c", "type": "Patient"}],
            [
                {
                    "resourceType": "Patient",
                    "identifier": [{"value": "X"}, {"value": "4711", "type": concept("MR", "urn:v2")}],
                }
            ],
            "4711",
        ),
        ([{"display": "in bed 3"}, None], [], None),
    ],
)
def test_one_patient_has_one_name(
    subjects: list[dict[str, Any] | None], resources: list[dict[str, Any]], expected: str | None
) -> None:
    content = bundle(*(observation(subject=subject) for subject in subjects))
    content["entry"] += [{"fullUrl": "urn:uuid:0b1c", "resource": one} for one in resources]
    decoded = read(content)
    assert decoded.patient == expected
    assert len(decoded.readings) == 1


def test_a_contained_patient_is_named_by_the_identifier() -> None:
    contained = [{"resourceType": "Patient", "id": "p", "identifier": [{"value": "4711"}]}]
    assert read(observation(subject={"reference": "#p"}, contained=contained)).patient == "4711"


def test_two_patients_in_one_bundle_are_refused_as_a_whole() -> None:
    weight = observation("29463-7", valueQuantity=quantity(70, "kg"), subject={"reference": "Patient/18"})
    for other in (observation(subject={"reference": "Patient/18"}), weight):
        with pytest.raises(MessageRefused, match="more than one patient") as caught:
            read(bundle(observation(), other))
        assert caught.value.status == 422
        assert caught.value.problem.place == "Bundle.entry[1].resource.subject"


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (bundle(*({} for _ in range(MAX_ENTRIES + 1))), 413, "1000 entries"),
        (bundle(kind="history"), 422, "'history'"),
        ({"resourceType": "Bundle"}, 422, "no type"),
        ({"resourceType": "Bundle", "type": "batch", "entry": {}}, 400, "no list"),
        ({"resourceType": "Patient"}, 400, "neither"),
        ([], 400, "neither"),
        (None, 400, "neither"),
    ],
)
def test_a_message_of_which_nothing_is_taken(content: Any, status: int, reason: str) -> None:
    with pytest.raises(MessageRefused, match=reason) as caught:
        read(content)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "no JSON"),
        (b"", "no JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"value": NaN}', "NaN is no JSON"),
        (b'{"value": -Infinity}', "is no JSON"),
        (b'{"value": 1e999}', "too large"),
        (b'{"value": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"value": 50, "value": 80}', "twice"),
        (b"[" * 41 + b"]" * 41, "nested deeper"),
        (b"[" * 500_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (rb'"\ud800"', "half a character"),
        (rb'{"\ud800": 1}', "half a character"),
        (rb'"\u001b[2J"', "control character"),
    ],
)
def test_json_is_read_within_bounds(data: bytes, reason: str) -> None:
    with pytest.raises(fhir_json.JsonError, match=reason):
        fhir_json.parse(data)


def test_nesting_of_40_levels_is_still_read() -> None:
    assert fhir_json.parse(b"[" * 40 + b"]" * 40) is not None


# What is sent is close to FHIR, so that the search gets behind the first check.
WORDS = st.sampled_from(
    [
        *(
            "resourceType",
            "Bundle",
            "Observation",
            "Patient",
            "type",
            "batch",
            "entry",
            "resource",
            "fullUrl",
        ),
        *(
            "status",
            "final",
            "corrected",
            "code",
            "coding",
            "system",
            LOINC,
            UCUM,
            "8867-4",
            "85354-9",
            "80288-4",
        ),
        *(
            "8310-5",
            "component",
            "valueQuantity",
            "value",
            "unit",
            "/min",
            "Cel",
            "%",
            "mm[Hg]",
            "valueString",
        ),
        *(
            "valueCodeableConcept",
            "text",
            "effectiveDateTime",
            "2026-01-01T12:00:00Z",
            "subject",
            "reference",
        ),
        *(
            "Patient/1",
            "#p",
            "contained",
            "id",
            "p",
            "identifier",
            "dataAbsentReason",
            "extension",
            "url",
            "_value",
        ),
        *(
            "request",
            "method",
            "POST",
            "comparator",
            "effectivePeriod",
            "end",
            "urn:uuid:1",
            "Group/1",
            "focus",
            "corrected",
            "entered-in-error",
        ),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | WORDS,
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), below, max_size=8)
    ),
    max_leaves=30,
)


def assert_safe(content: Any) -> None:
    """No exception but the two that are answers; nothing implausible, nothing of the future."""
    try:
        decoded = read(content)
    except (MessageRefused, fhir_json.JsonError):
        return
    for reading in decoded.readings:
        assert reading.observed_at <= NOON + timedelta(minutes=1)
        for name in VITALS:
            value = getattr(reading, name)
            assert value is None or RANGES[name].low <= value <= RANGES[name].high
    for rejection in decoded.rejections:
        assert "\n" not in rejection.line()
        assert rejection.reason
    assert all(entry.status in (201, 400, 422) for entry in decoded.entries)
    for item in decoded.items():
        assert not isinstance(item, Retraction) or (item.values and item.instead == decoded.readings)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_no_json_raises_or_gives_an_impossible_reading(content: Any) -> None:
    assert_safe(content)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(WORDS, VALUES, max_size=6),
    st.sampled_from(["8867-4", "8310-5", "85354-9", "80288-4", "3151-8"]),
)
def test_an_observation_with_anything_in_it_neither(changes: dict[str, Any], code: str) -> None:
    assert_safe(bundle({**observation(code), **changes}, observation()))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["8867-4", "9279-1", "59408-5", "8480-6", "8310-5", "3151-8"]),
    st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["/min", "%", "mm[Hg]", "kPa", "Cel", "[degF]", "K", "L/min", "", "1"]),
)
def test_any_number_in_any_unit_neither(code: str, value: float, unit: str) -> None:
    assert_safe(observation(code, valueQuantity=quantity(value, unit)))
