"""Assessments as FHIR R4: an Observation of the score each, and one of each vital sign that was shared.

The score's codes are those of the UK Core examples for NEWS2 (SNOMED CT, UK edition), as on the device
itself; LOINC has none for it. A score with inputs missing is `preliminary` with a range, and each input
without points says so: nothing is filled in. The subject is the admission's pseudonym; of messages that
belong to no admission nobody is named. Ids follow from device and message, the same in every export.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from samd_gateway import schema

SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
IDENTIFIERS = "urn:samd:admission"
_NAMES = uuid.UUID("8f1f5a0e-7a41-4c53-9d0c-5a3d5d6f0c11")
_RCP = "Royal College of Physicians NEWS2 (National Early Warning Score 2)"
SCORE = ("1104051000000101", f"{_RCP} total score")
SUBSCORES = {
    "respiratory_rate": ("1104301000000104", f"{_RCP} - respiration rate score"),
    "spo2": ("1104311000000102", f"{_RCP} - oxygen saturation scale 1 score"),
    "spo2 scale 2": ("1104321000000108", f"{_RCP} - oxygen saturation scale 2 score"),
    "supplemental_oxygen": ("1104331000000105", f"{_RCP} - air or oxygen score"),
    "systolic_bp": ("1104341000000101", f"{_RCP} - systolic blood pressure score"),
    "heart_rate": ("1104351000000103", f"{_RCP} - pulse score"),
    "consciousness": ("1104361000000100", f"{_RCP} - consciousness score"),
    "temperature": ("1104371000000107", f"{_RCP} - temperature score"),
}
VITAL_SIGNS = {
    "heart_rate": ("8867-4", "Heart rate", "/min"),
    "respiratory_rate": ("9279-1", "Respiratory rate", "/min"),
    "spo2": ("59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry", "%"),
    "temperature": ("8310-5", "Body temperature", "Cel"),
}
PRESSURES = {
    "systolic_bp": ("8480-6", "Systolic blood pressure"),
    "diastolic_bp": ("8462-4", "Diastolic blood pressure"),
}


class Admission(msgspec.Struct, frozen=True):
    """What a resource needs to know of the patient."""

    id: str
    spo2_scale: int


class Assessed(msgspec.Struct, frozen=True):
    """A row of `messages`, its body, and whose it is."""

    row: Mapping[str, Any]
    told: dict[str, Any]
    admission: Admission | None


class Admissions:
    """Whose a message is: by its place between the device's two answers, as the ward goes by it."""

    def __init__(self, connection: Connection, devices: Collection[str]) -> None:
        table = schema.admissions
        query = select(table).where(table.c.device.in_(devices), table.c.boot.is_not(None))
        self._rows: dict[str, list[Mapping[str, Any]]] = {}
        for row in connection.execute(query).mappings():
            self._rows.setdefault(row["device"], []).append(dict(row))

    def of(self, device: str, place: tuple[int, int]) -> Admission | None:
        for row in self._rows.get(device, ()):
            ended = row["end_boot"] is not None and place >= (row["end_boot"], row["end_seq"])
            if place > (row["boot"], row["seq"]) and not ended:
                return Admission(row["id"], row["spo2_scale"])
        return None


def resources(row: Mapping[str, Any], admissions: Admissions) -> Iterator[dict[str, Any]]:
    """The Observations of one assessment, a row of `messages`."""
    told = msgspec.json.decode(row["body"], type=dict[str, Any])
    assessed = Assessed(row, told, admissions.of(row["device"], (row["boot"], row["seq"])))
    yield _score(assessed)
    doubtful = {*told.get("stale", ()), *told.get("artefacts", {})}
    signs = {name: value for name, value in (told.get("signs") or {}).items() if name not in doubtful}
    for name, (code, display, unit) in VITAL_SIGNS.items():
        if name in signs:
            yield _sign(assessed, name, (code, display)) | {"valueQuantity": _quantity(signs[name], unit)}
    pressures = [name for name in PRESSURES if name in signs]
    if pressures:
        panel = ("85354-9", "Blood pressure panel with all children optional")
        parts = [
            {"code": _concept(LOINC, PRESSURES[name]), "valueQuantity": _quantity(signs[name], "mm[Hg]")}
            for name in pressures
        ]
        yield _sign(assessed, "blood_pressure", panel) | {"component": parts}
    if "consciousness" in signs:
        acvpu = ("67775-7", "Level of responsiveness")
        value = {"valueCodeableConcept": {"text": str(signs["consciousness"])}}
        yield _sign(assessed, "consciousness", acvpu) | value


def _sign(assessed: "Assessed", what: str, code: tuple[str, str]) -> dict[str, Any]:
    """An assessment has each sign's latest valid value, and does not tell when that was measured."""
    note = {"text": "the value that was valid at this time; it may have been measured before"}
    base = _base(assessed, what, category="vital-signs", code=_concept(LOINC, code))
    return base | {"status": "final", "note": [note]}


def _score(assessed: Assessed) -> dict[str, Any]:
    news2 = assessed.told["news2"]
    code = _concept(SNOMED, SCORE) | {"text": "NEWS2 total score"}
    observation = _base(assessed, "news2", category="survey", code=code)
    observation["interpretation"] = [{"text": f"clinical risk {news2['band']}"}]
    if news2["total"] is None:
        observation["status"] = "preliminary"
        observation["valueRange"] = {"low": _points(news2["low"]), "high": _points(news2["high"])}
    else:
        observation["status"] = "final"
        observation["valueQuantity"] = _points(news2["total"])
    names = [name for name in SUBSCORES if name != "spo2 scale 2"]
    observation["component"] = [_component(name, assessed) for name in names]
    return observation


def _component(name: str, assessed: Assessed) -> dict[str, Any]:
    told, admission = assessed.told, assessed.admission
    component: dict[str, Any] = {"code": _concept(SNOMED, SUBSCORES[name])}
    if name == "spo2" and admission is None:  # which scale was prescribed is not known here
        component["code"] = {"text": "NEWS2 oxygen saturation score, scale not known"}
    elif name == "spo2" and admission is not None and admission.spo2_scale == 2:
        component["code"] = _concept(SNOMED, SUBSCORES["spo2 scale 2"])
    points = told["news2"]["points"].get(name)
    if points is not None:
        return {**component, "valueQuantity": _points(points)}
    reason = {
        "system": "http://terminology.hl7.org/CodeSystem/data-absent-reason",
        "code": "unknown",
        "display": "Unknown",
    }
    why = told.get("artefacts", {}).get(name)
    if why is not None:
        text = f"the newest value is not scored: {why.replace('_', ' ')}"
    elif name in told.get("stale", ()):
        text = "its last value is too old"
    else:
        text = "it is missing"
    return {**component, "dataAbsentReason": {"coding": [reason], "text": text}}


def _base(assessed: Assessed, what: str, *, category: str, code: dict[str, Any]) -> dict[str, Any]:
    row = assessed.row
    system = "http://terminology.hl7.org/CodeSystem/observation-category"
    observation: dict[str, Any] = {
        "resourceType": "Observation",
        "id": str(uuid.uuid5(_NAMES, f"{row['device']}\0{row['id']}\0{what}")),
        "category": [{"coding": [{"system": system, "code": category}]}],
        "code": code,
        "effectiveDateTime": assessed.told["observed_at"],
        "issued": datetime.fromtimestamp(row["received_at"], UTC).isoformat(timespec="milliseconds"),
        "device": {"display": row["device"]},
    }
    if assessed.admission is not None:
        identifier = {"system": IDENTIFIERS, "value": assessed.admission.id}
        observation["subject"] = {"identifier": identifier}
    return observation


def _concept(system: str, code: tuple[str, str]) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code[0], "display": code[1]}]}


def _points(points: int) -> dict[str, Any]:
    return {"value": points, "unit": "score", "system": UCUM, "code": "{score}"}


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}
