"""Assessments as FHIR: another library reads them back, strictly, with the same content."""

import dataclasses
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fhirclient.models.bundle import Bundle
from fhirclient.models.observation import Observation
from fhirclient.models.riskassessment import RiskAssessment

from samd_data.errors import DataError
from samd_data.reading import COLUMNS, Reading
from samd_edge.assessment import Assessor, Judgement, ModelJudgement
from samd_edge.fhir_out import SUBSCORES, Coding, FhirWriter, coding_of, subject_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ILL: dict[str, Any] = {
    "heart_rate": 135.0,
    "respiratory_rate": 26.0,
    "spo2": 90.0,
    "systolic_bp": 95.0,
    "temperature": 38.5,
    "supplemental_oxygen": True,
    "consciousness": "A",
}
VIEW = ModelJudgement(1, (0.05, 0.7, 0.2, 0.05), 3)


def judged(fields: dict[str, Any], *, view: ModelJudgement | None = None, **assessor: Any) -> Judgement:
    judgement = Assessor(**assessor).update(Reading(observed_at=NOON, **fields), NOON)
    return dataclasses.replace(judgement, model=view)


def numbered() -> Callable[[], uuid.UUID]:
    count = iter(range(1, 100))
    return lambda: uuid.UUID(int=next(count))


def read_back(judgement: Judgement, **writer: Any) -> tuple[Observation, RiskAssessment | None]:
    """By fhirclient, which refuses unknown, missing and wrongly typed elements; nothing is lost."""
    line = FhirWriter(new_id=numbered(), **writer).line(judgement)
    assert "\n" not in line
    content = json.loads(line)
    bundle = Bundle(content)
    assert bundle.as_json() == content
    assert bundle.type == "collection"
    assert [entry.fullUrl for entry in bundle.entry] == [
        f"urn:uuid:{uuid.UUID(int=number)}" for number in range(1, len(bundle.entry) + 1)
    ]
    resources = [entry.resource for entry in bundle.entry]
    assert [type(one) for one in resources] == [Observation, RiskAssessment][: len(resources)]
    return resources[0], resources[1] if len(resources) == 2 else None


def test_a_complete_score_is_final_with_the_points_of_each_sign() -> None:
    score, risk = read_back(judged(ILL))
    assert risk is None, "there is no model's view"
    assert score.status == "final"
    assert (score.valueQuantity.value, score.valueQuantity.code) == (14, "{score}")
    assert score.valueRange is None
    assert score.effectiveDateTime.date == NOON
    assert [(one.system, one.code, one.display) for one in score.code.coding] == [
        (
            "http://snomed.info/sct",
            "1104051000000101",
            "Royal College of Physicians NEWS2 (National Early Warning Score 2) total score",
        )
    ]
    points = {one.code.coding[0].code: one.valueQuantity.value for one in score.component}
    assert points == {
        "1104351000000103": 3,  # pulse
        "1104301000000104": 3,  # respiration
        "1104311000000102": 3,  # saturation, scale 1
        "1104341000000101": 2,  # systolic
        "1104371000000107": 1,  # temperature
        "1104331000000105": 2,  # oxygen
        "1104361000000100": 0,  # consciousness
    }
    assert score.interpretation[0].text == "clinical risk high"
    assert score.contained[0].deviceName[0].name == "samd-edge"
    assert score.device.reference == f"#{score.contained[0].id}"
    assert score.subject is None


def test_an_incomplete_score_is_a_range_and_nothing_is_filled_in() -> None:
    score, _ = read_back(judged({"heart_rate": 135.0}))
    assert score.status == "preliminary"
    assert score.valueQuantity is None
    assert (score.valueRange.low.value, score.valueRange.high.value) == (3, 20)
    assert score.interpretation[0].text == "clinical risk at least low-medium, possibly high"
    with_points = [one for one in score.component if one.valueQuantity is not None]
    assert [one.valueQuantity.value for one in with_points] == [3]
    absent = [one.dataAbsentReason for one in score.component if one.valueQuantity is None]
    assert len(absent) == 6
    assert {(one.coding[0].code, one.text) for one in absent} == {("unknown", "it was never measured")}


def test_nothing_known_is_a_range_from_0_to_20() -> None:
    score, _ = read_back(Assessor().assess(NOON))
    assert (score.status, score.valueRange.low.value, score.valueRange.high.value) == ("preliminary", 0, 20)


def test_why_an_input_has_no_points_is_said_of_each() -> None:
    assessor = Assessor(spo2_scale=2)
    later = NOON + timedelta(hours=4)
    assessor.take(Reading(observed_at=NOON, respiratory_rate=16.0))
    assessor.take(Reading(observed_at=later - timedelta(minutes=5), heart_rate=80.0))
    assessor.flag("heart_rate", "no_signal", "the lead is off", later)
    assessor.flag("temperature", "implausible", "it was 99 °C", later)
    score, _ = read_back(assessor.update(Reading(observed_at=later, spo2=97.0), later), spo2_scale=2)
    by_code = {one.code.coding[0].code: one for one in score.component}
    assert by_code[SUBSCORES["heart_rate"][0]].valueQuantity.value == 0
    assert by_code[SUBSCORES["heart_rate"][0]].interpretation[0].text == (
        "of an older value; the newest value is not scored: no signal"
    )
    texts = {
        name: by_code[SUBSCORES[name][0]].dataAbsentReason.text
        for name in ("respiratory_rate", "temperature", "systolic_bp", "spo2 scale 2")
    }
    assert texts == {
        "respiratory_rate": "its last value is too old",
        "temperature": "the newest value is not scored: implausible",
        "systolic_bp": "it was never measured",
        "spo2 scale 2": "it depends on whether oxygen is given, which is not known",
    }


def test_the_models_view_is_a_risk_assessment_based_on_the_score() -> None:
    judgement = dataclasses.replace(judged(ILL, view=VIEW), disagreement=True)
    score, risk = read_back(judgement, model_name="severity-7", subject=subject_of("Patient/17"))
    assert risk is not None
    assert (risk.status, risk.method.text) == ("final", "samd severity model severity-7, version 3")
    assert risk.basis[0].reference == f"urn:uuid:{uuid.UUID(int=1)}"
    assert [(one.outcome.text, one.probabilityDecimal, one.rationale) for one in risk.prediction] == [
        ("severity none (NEWS2 0)", 5.0, None),
        ("severity low (NEWS2 1 to 4)", 70.0, "the model's class"),
        ("severity medium (NEWS2 5 to 6)", 20.0, None),
        ("severity high (NEWS2 7 or more)", 5.0, None),
    ], "probabilities of R4 are percentages"
    assert risk.occurrenceDateTime.date == NOON
    assert risk.subject.reference == score.subject.reference == "Patient/17"
    assert risk.note[0].text == "the score and the model differ by two classes or more"


def test_without_a_subject_the_risk_is_of_the_patient_at_this_device() -> None:
    _, risk = read_back(judged(ILL, view=VIEW))
    assert risk is not None
    assert risk.subject.as_json() == {"display": "the patient at this device"}


def test_why_the_model_has_no_view_is_noted() -> None:
    score, risk = read_back(dataclasses.replace(judged(ILL), model_error="the graph is broken"))
    assert risk is None
    assert score.note[0].text == "no model's view: the graph is broken"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Patient/17", {"reference": "Patient/17"}),
        ("https://example.org/r4/Patient/17", {"reference": "https://example.org/r4/Patient/17"}),
        ("urn:uuid:0b1c", {"reference": "urn:uuid:0b1c"}),
        ("urn:oid:1.2.3|4711", {"identifier": {"system": "urn:oid:1.2.3", "value": "4711"}}),
        ("|4711", {"identifier": {"value": "4711"}}),
    ],
)
def test_a_subject_is_a_reference_or_an_identifier(text: str, expected: dict[str, Any]) -> None:
    assert subject_of(text) == expected
    score, _ = read_back(judged(ILL), subject=subject_of(text))
    assert score.subject.as_json() == expected


@pytest.mark.parametrize("text", ["", "17", "Group/1", "Patient/", "Patient/a b", "urn:oid:1|", "x\n|"])
def test_another_subject_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="write Patient/ID"):
        subject_of(text)


def test_a_further_code_stands_beside_the_first() -> None:
    score, _ = read_back(judged(ILL), further_code=coding_of("http://example.org/codes|news2"))
    assert [one.code for one in score.code.coding] == ["1104051000000101", "news2"]
    assert coding_of("http://example.org/codes|news2") == Coding("http://example.org/codes", "news2")
    for text in ("news2", "|news2", "http://example.org|", "http://example.org|a|b"):
        with pytest.raises(DataError, match="write SYSTEM"):
            coding_of(text)


def test_each_input_has_a_code_of_its_own() -> None:
    codes = [code for code, _ in SUBSCORES.values()]
    assert set(COLUMNS) | {"spo2 scale 2"} == set(SUBSCORES)
    assert len(set(codes)) == len(codes)
    assert all(_is_valid(code) for code in codes), "their check digits are right"
    assert not _is_valid("1104351000000108")


def _is_valid(code: str) -> bool:
    """The check digit of a SNOMED CT identifier (Verhoeff, the dihedral group of ten elements)."""
    check = 0
    for place, digit in enumerate(reversed(code)):
        value = int(digit)
        for _ in range(place % 8):
            value = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[value]
        turned = value + check if check < 5 else check - value
        check = turned % 5 + (5 if (check < 5) != (value < 5) else 0)
    return check == 0
