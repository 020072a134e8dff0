"""FHIR R4 Observations and Bundles (`samd_edge.sources.fhir_*`)."""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from samd_data.plausibility import Rejection
from samd_data.reading import VITALS
from samd_edge.sources import fhir_answers, fhir_json
from samd_edge.sources.codes import field_of
from samd_edge.sources.fhir_json import JsonError
from samd_edge.sources.fhir_message import Decoded, MessageRefused, decode
from samd_scripts.fuzzing.choices import Choices, signs
from samd_scripts.fuzzing.claims import Claim, all_claimed, all_withdrawn, sorted_out
from samd_scripts.fuzzing.json_parts import changed
from samd_scripts.fuzzing.oracle import attempt, insist, one_line, parsed
from samd_scripts.fuzzing.target import Target
from samd_scripts.fuzzing.units import in_some_unit, stated

_NOW: Final = datetime(2026, 3, 1, 8, tzinfo=UTC)
_NAME: Final = "fhir:8080"
_UCUM: Final = "http://unitsofmeasure.org"
_LOINC: Final = "http://loinc.org"
_SNOMED: Final = "http://snomed.info/sct"

_CODES: Final = {
    "8867-4": "heart_rate",
    "9279-1": "respiratory_rate",
    "59408-5": "spo2",
    "2708-6": "spo2",
    "8480-6": "systolic_bp",
    "8462-4": "diastolic_bp",
    "8310-5": "temperature",
    "80288-4": "consciousness",
    "3151-8": "supplemental_oxygen",
}
_LETTERS: Final = {
    "A": ((_LOINC, "LA9340-6"), (_SNOMED, "248234008"), ("", "Alert")),
    "C": ((_LOINC, "LA6560-2"), (_SNOMED, "130987000"), ("", "Confused")),
    "V": ((_LOINC, "LA17108-4"), (_SNOMED, "300202002"), ("", "responds to voice")),
    "P": ((_LOINC, "LA17107-6"), (_SNOMED, "450847001"), ("", "pain")),
    "U": ((_LOINC, "LA9343-0"), (_SNOMED, "422768004"), ("", "Unresponsive")),
}
_WORDS_OF: Final = {"A": "alert", "C": "confus", "V": "v", "P": "pain", "U": "unresponsive"}
_TAKEN: Final = ("registered", "preliminary", "final", "amended", "corrected")
_ODD: Final = (
    {"modifierExtension": [{"url": "http://example.org/not", "valueBoolean": True}]},
    {"dataAbsentReason": {"coding": [{"code": "error"}]}},
    {"status": "entered-in-error"},
    {"status": "corrected"},
    {"focus": [{"reference": "Patient/18"}]},
    {"subject": {"reference": "Patient/18"}},
    {"subject": {"reference": "Device/17"}},
    {"implicitRules": "http://example.org/rules"},
    {"effectiveDateTime": "2026-03-01"},
    {"effectiveDateTime": "0001-01-01T00:00:00+14:00"},
    {"valueString": "97"},
    {"valueInteger": 97},
)


def _decoded(body: bytes) -> Decoded | None:
    """As the listener reads a request."""

    def work() -> Decoded:
        return decode(fhir_json.parse(body), name=_NAME, now=_NOW)

    try:
        found = attempt(work, JsonError)
    except MessageRefused as refusal:
        one_line(str(refusal))
        insist(400 <= refusal.status < 500, "a refusal that is none", refusal.status)
        json.dumps(fhir_answers.outcome([refusal.problem]))
        return None
    if found is not None:
        for entry in found.entries:
            json.dumps(fhir_answers.outcome(entry.problems))
            insist(entry.taken or entry.problems, "an entry that nothing is said of", entry)
        json.dumps(fhir_answers.batch_response(found.entries))
    return found


def check_fhir(body: bytes) -> None:
    """Any bytes: each value that is taken is claimed by an Observation of one patient, at its time, in its
    unit, and no other Observation of that time says otherwise."""
    found = _decoded(body)
    if found is None:
        return
    readings, _, withdrawn = sorted_out(found.items())
    tree = parsed(body, unique=True)
    claims = list(_claims(tree))
    all_withdrawn(withdrawn, list(_claims(tree, whatever_status=True)))
    for reading in readings:
        insist(reading.observed_at <= _NOW + timedelta(minutes=1), "a reading from the future", reading)
    all_claimed(readings, claims)


def _claims(tree: Any, *, whatever_status: bool = False) -> Iterator[Claim]:
    entries = [entry.get("resource") for entry in _list(tree, "entry") if isinstance(entry, dict)]
    for resource in (tree, *entries):
        if isinstance(resource, dict) and resource.get("resourceType") == "Observation":
            yield from _claims_of(resource, whatever_status=whatever_status)


def _claims_of(resource: dict[str, Any], *, whatever_status: bool) -> Iterator[Claim]:
    barred = any(resource.get(name) for name in ("modifierExtension", "implicitRules", "focus"))
    period = resource.get("effectivePeriod")
    said = resource.get("effectiveDateTime") or resource.get("effectiveInstant")
    said = said or (period.get("end") if isinstance(period, dict) else None)
    sound = resource.get("status") in _TAKEN or whatever_status
    if barred or not sound or not isinstance(said, str):
        return
    try:
        at = datetime.fromisoformat(said).astimezone(UTC)
    except (ValueError, OverflowError):
        return
    subject = resource.get("subject")
    reference = str((subject.get("reference") if isinstance(subject, dict) else None) or "")
    known = re.search(r"Patient/([A-Za-z0-9.-]{1,64})", reference)
    named = known[1] if known else reference.strip()
    corrected = resource.get("status") in ("amended", "corrected")
    for element in (resource, *_list(resource, "component")):
        if (
            not isinstance(element, dict)
            or element.get("modifierExtension")
            or element.get("dataAbsentReason")
        ):
            continue
        for code, field in _fields(element.get("code")):
            values = tuple(_values(element, field))
            yield Claim(field, values, at, named, code, partial(_alone, resource, field), corrected)


def _alone(resource: dict[str, Any], field: str) -> bool:
    """Whether an Observation that stands alone is taken; else it says nothing against another one."""
    found = _decoded(json.dumps(resource).encode("utf-8", "replace"))
    return found is not None and any(getattr(one, field) is not None for one in found.readings)


def _fields(concept: Any) -> Iterator[tuple[str, str]]:
    for coding in _list(concept, "coding"):
        code = str(coding.get("code")).strip() if isinstance(coding, dict) else ""
        field = _CODES.get(code) or field_of("loinc", code) or field_of("mdc", code)
        if field is not None:
            yield code, field


def _list(tree: Any, name: str) -> list[Any]:
    found = tree.get(name) if isinstance(tree, dict) else None
    return found if isinstance(found, list) else []


def _values(element: dict[str, Any], field: str) -> Iterator[float | bool | str]:
    if field == "consciousness":
        said = json.dumps([element.get("valueCodeableConcept"), element.get("valueString")]).lower()
        for letter, ways in _LETTERS.items():
            if (
                any(text.lower() in said for _, text in ways)
                or _WORDS_OF[letter] in said
                or f'"{letter.lower()}"' in said
            ):
                yield letter
        return
    quantity = element.get("valueQuantity")
    value, unit = element.get("valueInteger"), None
    if isinstance(quantity, dict) and not quantity.get("comparator"):
        value = quantity.get("value")
        coded = str(quantity.get("system")).rstrip("/") == _UCUM and quantity.get("code")
        unit = coded or quantity.get("unit") or quantity.get("code")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if field == "supplemental_oxygen":
        yield value > 0
    else:
        yield from stated(field, value, unit)


# --- written by us, one part changed ------------------------------------------------------------------------


def check_fhir_written(data: bytes) -> None:
    """A message that is written, one part changed: refused there, or taken as it stands."""
    choices = Choices(data)
    tree, fields = _message(choices)
    match choices.below(4):
        case 0:
            body = json.dumps(tree).encode()
            check_fhir(body)
            _complete(body, fields)
        case 1 if "entry" in tree:
            observation = choices.pick(tree["entry"])["resource"]
            observation |= choices.pick(_ODD)
            check_fhir(json.dumps(tree).encode())
        case _:
            check_fhir(changed(choices, tree).encode("utf-8", "replace"))


def _complete(body: bytes, fields: dict[str, str | bool]) -> None:
    """Nothing of a sound message is lost; what was converted may have ended up just beyond its range."""
    found = _decoded(body)
    insist(found is not None, "a sound message that is refused", body)
    assert found is not None
    readings, rejections, _ = sorted_out(found.items())
    told = {rejection.column for rejection in rejections if isinstance(rejection, Rejection)}
    for field in fields:
        present = readings and getattr(readings[0], field) is not None
        insist(present or (field in VITALS and field in told), f"{field} is gone", body, rejections)


def _message(choices: Choices) -> tuple[Any, dict[str, str | bool]]:
    fields = signs(choices) or {"heart_rate": "88"}
    time = (_NOW - timedelta(seconds=choices.below(90_000))).isoformat()
    observations = []
    panel = [field for field in ("systolic_bp", "diastolic_bp") if field in fields]
    unit = choices.pick(("mm[Hg]", "kPa"))
    if panel and choices.flag():
        components = [
            {"code": _concept(_code(field)), "valueQuantity": _pressure(str(fields[field]), unit)}
            for field in panel
        ]
        observations.append(_observation(_concept("85354-9"), time, {"component": components}))
    else:
        observations += [
            _observation(_concept(_code(field)), time, {"valueQuantity": _pressure(str(fields[field]), unit)})
            for field in panel
        ]
    for field, value in fields.items():
        if field not in panel:
            observations.append(_observation(_concept(_code(field)), time, _value(choices, field, value)))
    if len(observations) == 1 and choices.flag():
        return observations[0], fields
    kind = choices.pick(("batch", "transaction", "collection"))
    entries = [{"resource": observation} for observation in observations]
    return {"resourceType": "Bundle", "type": kind, "entry": entries}, fields


def _value(choices: Choices, field: str, value: str | bool) -> dict[str, Any]:
    if field == "consciousness":
        system, text = choices.pick(_LETTERS[str(value)])
        concept = {"text": text} if not system else {"coding": [{"system": system, "code": text}]}
        return {"valueCodeableConcept": concept}
    if field == "supplemental_oxygen":
        return {"valueQuantity": _quantity("2" if value else "0", "L/min")}
    return {"valueQuantity": _quantity(*in_some_unit(choices, field))}


def _pressure(text: str, unit: str) -> dict[str, Any]:
    return _quantity(text if unit == "mm[Hg]" else f"{float(text) / 7.5:.3f}", unit)


def _quantity(text: str, unit: str) -> dict[str, Any]:
    return {"value": float(text), "unit": unit, "system": _UCUM, "code": unit}


def _concept(code: str) -> dict[str, Any]:
    return {"coding": [{"system": _LOINC, "code": code}]}


def _code(field: str) -> str:
    return next(code for code, of in _CODES.items() if of == field)


def _observation(code: dict[str, Any], time: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": code,
        "subject": {"reference": "Patient/17"},
        "effectiveDateTime": time,
        **value,
    }


def _seeds() -> Iterable[bytes]:
    for data in (b"", b"\x55" * 60, b"\xa5\x01\xff" * 20, b"\x01" * 90, b"\xff" * 90):
        yield json.dumps(_message(Choices(data))[0]).encode()


TARGETS: Final = (
    Target(
        name="fhir",
        about="a FHIR message: any bytes",
        check=check_fhir,
        seeds=_seeds,
        words=(
            *("resourceType", "Observation", "Bundle", "entry", "resource", "status", "final", "component"),
            *(
                "code",
                "coding",
                "system",
                "subject",
                "reference",
                "effectiveDateTime",
                "effectivePeriod",
                "end",
            ),
            *(
                "valueQuantity",
                "valueInteger",
                "valueString",
                "comparator",
                "dataAbsentReason",
                "value",
                "unit",
            ),
            *_CODES,
            *("[degF]", "Cel", "kPa", "mm[Hg]", "/min", _UCUM, _LOINC, _SNOMED, "corrected", "1e9", '":"'),
        ),
    ),
    Target(
        name="fhir-written",
        about="a FHIR message, one part changed",
        check=check_fhir_written,
        choices=True,
    ),
)
