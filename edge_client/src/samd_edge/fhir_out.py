"""An assessment as FHIR R4: a Bundle with an Observation for the score and a RiskAssessment for the model.

Codes are those of the UK Core examples for NEWS2 (SNOMED CT, UK edition). No LOINC code is written: 88330-6,
which is given for it here and there, is "Mobility - admission performance" (HL7's guides on functioning use
it so), and a score under that name would be a wrong one. Who needs a code besides gives it as
``further_code``.

The score is ``final`` with a value when it is complete. With inputs missing it is ``preliminary`` with a
``valueRange``, and each input without points says why; nothing is filled in. Probabilities are percentages,
as R4 asks for (RiskAssessment.prediction.probability: "max = 100").
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, Literal, NamedTuple

from samd_data.errors import DataError
from samd_data.reading import COLUMNS
from samd_data.severity import CLASSES
from samd_edge.assessment import Judgement, ModelJudgement

SNOMED: Final = "http://snomed.info/sct"
_RCP: Final = "Royal College of Physicians NEWS2 (National Early Warning Score 2)"
SCORE: Final = ("1104051000000101", f"{_RCP} total score")
SUBSCORES: Final[Mapping[str, tuple[str, str]]] = {
    "respiratory_rate": ("1104301000000104", f"{_RCP} - respiration rate score"),
    "spo2": ("1104311000000102", f"{_RCP} - oxygen saturation scale 1 score"),
    "spo2 scale 2": ("1104321000000108", f"{_RCP} - oxygen saturation scale 2 score"),
    "supplemental_oxygen": ("1104331000000105", f"{_RCP} - air or oxygen score"),
    "systolic_bp": ("1104341000000101", f"{_RCP} - systolic blood pressure score"),
    "heart_rate": ("1104351000000103", f"{_RCP} - pulse score"),
    "consciousness": ("1104361000000100", f"{_RCP} - consciousness score"),
    "temperature": ("1104371000000107", f"{_RCP} - temperature score"),
}
_TOTALS: Final = ("0", "1 to 4", "5 to 6", "7 or more")
_NOBODY: Final = {"display": "the patient at this device"}
_PATIENT: Final = re.compile(r"(https?://\S+/)?Patient/[A-Za-z0-9.-]{1,64}|urn:(uuid|oid):[A-Za-z0-9.-]+")


class Coding(NamedTuple):
    """A further code for the score, as the receiver expects it."""

    system: str
    code: str


def subject_of(text: str) -> dict[str, Any]:
    """The patient as a user names them: ``Patient/ID``, a URL or URN, or an identifier ``SYSTEM|VALUE``.

    Raises DataError.
    """
    system, bar, value = text.partition("|")
    if bar and value.strip():
        identifier = {"value": value.strip()}
        return {"identifier": {"system": system, **identifier} if system else identifier}
    if not bar and _PATIENT.fullmatch(text):
        return {"reference": text}
    raise DataError(f"--subject {text!r}: write Patient/ID, or SYSTEM|VALUE for an identifier")


def coding_of(text: str) -> Coding:
    """A code as a user writes it, ``SYSTEM|CODE``. Raises DataError."""
    system, _, code = text.partition("|")
    if not re.fullmatch(r"\S+:\S+", system) or not re.fullmatch(r"[^\s|]+( [^\s|]+)*", code):
        raise DataError(f"--score-code {text!r}: write SYSTEM|CODE, as in http://example.org/codes|news2")
    return Coding(system, code)


@dataclass(frozen=True, slots=True)
class FhirWriter:
    """What stays the same from one assessment to the next. ``subject``: a Reference, see ``subject_of``."""

    subject: dict[str, Any] | None = None
    further_code: Coding | None = None
    spo2_scale: Literal[1, 2] = 1
    model_name: str | None = None
    new_id: Callable[[], uuid.UUID] = field(default=uuid.uuid4)

    def line(self, judgement: Judgement) -> str:
        """The assessment as one line: a collection Bundle in JSON, checked by ``fhir.resources``."""
        from fhir.resources.R4B.bundle import Bundle

        bundle: str = Bundle.model_validate(self.bundle(judgement)).model_dump_json()
        return bundle

    def bundle(self, judgement: Judgement) -> dict[str, Any]:
        """The assessment as a collection Bundle; the RiskAssessment only where the model has a view."""
        score_url = f"urn:uuid:{self.new_id()}"
        entries = [{"fullUrl": score_url, "resource": self._observation(judgement)}]
        if judgement.model is not None:
            risk = self._risk(judgement, judgement.model, score_url)
            entries.append({"fullUrl": f"urn:uuid:{self.new_id()}", "resource": risk})
        return {"resourceType": "Bundle", "type": "collection", "entry": entries}

    def _observation(self, judgement: Judgement) -> dict[str, Any]:
        score = judgement.news2
        complete = score.total is not None
        codings = [_coding(SCORE)]
        if self.further_code is not None:
            codings.append({"system": self.further_code.system, "code": self.further_code.code})
        category = {
            "system": "http://terminology.hl7.org/CodeSystem/observation-category",
            "code": "survey",
            "display": "Survey",
        }
        observation: dict[str, Any] = {
            "resourceType": "Observation",
            "contained": [_device()],
            "status": "final" if complete else "preliminary",
            "category": [{"coding": [category]}],
            "code": {"coding": codings, "text": "NEWS2 total score"},
            "effectiveDateTime": judgement.at.isoformat(),
            "device": {"reference": "#device"},
            "interpretation": [{"text": self._band(judgement)}],
            "component": [self._component(judgement, name) for name in COLUMNS],
        }
        if self.subject is not None:
            observation["subject"] = self.subject
        if complete:
            observation["valueQuantity"] = _points(score.low)
        else:
            observation["valueRange"] = {"low": _points(score.low), "high": _points(score.high)}
        if judgement.model_error is not None:
            observation["note"] = [{"text": f"no model's view: {judgement.model_error}"}]
        return observation

    def _band(self, judgement: Judgement) -> str:
        score = judgement.news2
        if score.total is not None or score.band_high == score.band:
            return f"clinical risk {score.band}"
        return f"clinical risk at least {score.band}, possibly {score.band_high}"

    def _component(self, judgement: Judgement, name: str) -> dict[str, Any]:
        code = SUBSCORES["spo2 scale 2" if name == "spo2" and self.spo2_scale == 2 else name]
        component: dict[str, Any] = {"code": {"coding": [_coding(code)]}}
        points = judgement.news2.points.get(name)
        if points is not None:
            component["valueQuantity"] = _points(points)
            if name in judgement.artefacts:
                component["interpretation"] = [{"text": f"of an older value; {_flagged(judgement, name)}"}]
            return component
        reasons = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
        known = {"system": reasons, "code": "unknown", "display": "Unknown"}
        return {**component, "dataAbsentReason": {"coding": [known], "text": _why_not(judgement, name)}}

    def _risk(self, judgement: Judgement, view: ModelJudgement, score_url: str) -> dict[str, Any]:
        name = self.model_name or "model"
        risk: dict[str, Any] = {
            "resourceType": "RiskAssessment",
            "contained": [_device()],
            "status": "final",
            "method": {"text": f"samd severity model {name}, version {view.version}"},
            "subject": _NOBODY if self.subject is None else self.subject,
            "occurrenceDateTime": judgement.at.isoformat(),
            "performer": {"reference": "#device"},
            "basis": [{"reference": score_url}],
            "prediction": [_prediction(number, view) for number in range(len(CLASSES))],
        }
        if judgement.disagreement:
            risk["note"] = [{"text": "the score and the model differ by two classes or more"}]
        return risk


def _prediction(number: int, view: ModelJudgement) -> dict[str, Any]:
    prediction: dict[str, Any] = {
        "outcome": {"text": f"severity {CLASSES[number]} (NEWS2 {_TOTALS[number]})"},
        "probabilityDecimal": round(100 * view.probabilities[number], 4),
    }
    return {**prediction, "rationale": "the model's class"} if number == view.severity else prediction


def _why_not(judgement: Judgement, name: str) -> str:
    """Why an input has no points."""
    if name in judgement.artefacts:
        return _flagged(judgement, name)
    if name in judgement.stale:
        return "its last value is too old"
    if name in judgement.missing:
        return "it was never measured"
    return "it depends on whether oxygen is given, which is not known"


def _flagged(judgement: Judgement, name: str) -> str:
    return f"the newest value is not scored: {judgement.artefacts[name].replace('_', ' ')}"


def _coding(code: tuple[str, str]) -> dict[str, Any]:
    return {"system": SNOMED, "code": code[0], "display": code[1]}


def _points(points: int) -> dict[str, Any]:
    return {"value": points, "unit": "score", "system": "http://unitsofmeasure.org", "code": "{score}"}


def _device() -> dict[str, Any]:
    return {
        "resourceType": "Device",
        "id": "device",
        "deviceName": [{"name": "samd-edge", "type": "model-name"}],
        "version": [{"value": version("samd-edge")}],
    }
