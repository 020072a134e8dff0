"""The value of a FHIR Observation, or of a component of one, in the unit of its field; or why there is none.

A number is a number of JSON, never a text; with a comparator it is no measurement; what has no value says
why by a ``dataAbsentReason``, or by the extension of that name.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from samd_data.plausibility import shown
from samd_edge.sources.codes import UnitError, consciousness_of, in_unit, oxygen_of

_ANSWERS: Final = ("http://loinc.org", "http://snomed.info/sct")
_UCUM: Final = "http://unitsofmeasure.org"
_ABSENT: Final = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_LARGEST: Final = 10**9  # beyond it a number is no measurement, and may not fit into a float


class Problem(NamedTuple):
    """Something that was not taken. ``code`` and ``severity``: those of an OperationOutcome's issue.

    ``place``: the element, as a FHIRPath. ``field``: what it would have been, or "". ``value``: what stood
    there.
    """

    code: str
    place: str
    field: str
    reason: str
    remedy: str
    value: str = ""
    kind: Literal["implausible", "no_signal"] = "implausible"
    severity: Literal["error", "warning", "information"] = "error"


class Value(NamedTuple):
    """One value in the unit of its field, not yet checked for plausibility, and where it stood.

    ``rank``: of several methods at one time, the lowest counts (``codes.rank_of``).
    """

    field: str
    value: float | bool | str
    place: str
    rank: int


class Element(NamedTuple):
    """An Observation or a component of it that is a vital sign."""

    content: dict[str, Any]
    place: str
    field: str
    rank: int


def read_value(element: Element) -> Value | Problem | None:
    """The value of one element; None when it has neither a value nor a reason why not."""
    content, place, field, _ = element
    if content.get("modifierExtension"):
        reason, remedy = "its modifierExtension may change what it means", "send a plain component"
        return Problem("not-supported", f"{place}.modifierExtension", field, reason, remedy)
    names = [name for name in content if name.startswith("value") and content[name] is not None]
    absent = content.get("dataAbsentReason")
    if absent is not None:
        if names:
            reason = "it has a value, and a reason why there is none"
            return Problem("invariant", f"{place}.dataAbsentReason", field, reason, "send one of the two")
        return not_measured(field, f"{place}.dataAbsentReason", reason_text(absent))
    if not names:
        left_out = _absent_extension(*(content[name] for name in content if name.startswith("_value")))
        return None if left_out is None else not_measured(field, place, left_out)
    name = names[0]
    value, where = content[name], f"{place}.{name}"
    if field == "consciousness":
        return _consciousness(value, where, element.rank)
    if name == "valueQuantity" and isinstance(value, dict):
        return _quantity(value, where, element)
    if name == "valueInteger":
        return _number(value, None, where, element)
    reason = f"it is a {name.removeprefix('value')}, not one quantity"
    if name == "valueString":
        reason = f"{shown(value)} is text, not a quantity"
    remedy = "give a Quantity: a number with its unit"
    return Problem("value", where, field, reason, remedy, shown(value) if isinstance(value, str) else "")


def _quantity(quantity: dict[str, Any], where: str, element: Element) -> Value | Problem:
    field = element.field
    if quantity.get("comparator") is not None:
        reason = f"it is known only with {shown(quantity['comparator'])} before the number"
        return Problem("value", f"{where}.comparator", field, reason, "give what was measured")
    if quantity.get("value") is None:
        left_out = _absent_extension(quantity, quantity.get("_value"))
        if left_out is not None:
            return not_measured(field, where, left_out)
        return Problem("required", f"{where}.value", field, "it has no value", "give a dataAbsentReason")
    system, code, text = quantity.get("system"), quantity.get("code"), quantity.get("unit")
    coded = isinstance(system, str) and system.rstrip("/") == _UCUM and code
    return _number(quantity["value"], code if coded else text or code, where, element)


def _number(value: Any, unit: str | None, where: str, element: Element) -> Value | Problem:
    field = element.field
    said = f"{shown(value)} {unit}" if unit else shown(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        reason, remedy = f"{shown(value)} is not a number of JSON", "give the number without quotation marks"
        return Problem("value", where, field, reason, remedy, said)
    if abs(value) > _LARGEST:
        return Problem("value", where, field, f"{shown(value)} cannot be measured", "measure again", said)
    try:
        found: float | bool = in_unit(field, float(value), unit)
        if field == "supplemental_oxygen":
            found = oxygen_of(found)
    except UnitError as error:
        return Problem("value", where, field, error.reason, error.remedy, said)
    return Value(field, found, where, element.rank)


def _consciousness(value: Any, where: str, rank: int) -> Value | Problem:
    """By answer codes of LOINC and SNOMED CT, and by the texts; never by a code of another system."""
    said: list[str | None] = []
    if isinstance(value, str):
        said.append(value)
    elif isinstance(value, dict):
        said += [code for system, code in codings_of(value) if system in _ANSWERS]
        codings = value.get("coding")
        displays = [coding.get("display") for coding in codings] if isinstance(codings, list) else []
        said += [text for text in (*displays, value.get("text")) if isinstance(text, str)]
    found = consciousness_of(*said)
    if found is not None:
        return Value("consciousness", found, where, rank)
    reason = "it is no level of consciousness that is known here, or more than one"
    remedy = "give the LOINC or SNOMED CT code of one of A C V P U"
    return Problem("value", where, "consciousness", reason, remedy, shown(said[-1]) if said else "")


def not_measured(field: str, place: str, reason: str) -> Problem:
    return Problem(
        "informational",
        place,
        field,
        f"nothing was measured ({reason})",
        "check the sensor",
        kind="no_signal",
        severity="information",
    )


def reason_text(concept: Any) -> str:
    """The reason of a dataAbsentReason: its code, else its text."""
    codings = concept.get("coding") if isinstance(concept, dict) else None
    for coding in codings if isinstance(codings, list) else ():
        if isinstance(coding, dict) and isinstance(coding.get("code"), str):
            return shown(coding["code"]).strip("'")
    text = concept.get("text") if isinstance(concept, dict) else None
    return shown(text).strip("'") if isinstance(text, str) and text.strip() else "no reason given"


def _absent_extension(*elements: Any) -> str | None:
    """The reason that the data-absent-reason extension of one of these elements gives, or None."""
    for element in elements:
        extensions = element.get("extension") if isinstance(element, dict) else None
        for extension in extensions if isinstance(extensions, list) else ():
            if isinstance(extension, dict) and extension.get("url") == _ABSENT:
                return shown(extension.get("valueCode")).strip("'")
    return None


def codings_of(concept: Any) -> Iterator[tuple[str, str]]:
    """System and code of each coding that has both."""
    codings = concept.get("coding") if isinstance(concept, dict) else None
    for coding in codings if isinstance(codings, list) else ():
        if isinstance(coding, dict):
            system, code = coding.get("system"), coding.get("code")
            if isinstance(system, str) and isinstance(code, str):
                yield system.strip().rstrip("/"), code
