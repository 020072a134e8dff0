"""FHIR R4 Observations as readings: one Observation, or a Bundle of them, decoded without a guess.

Structure and formats are checked by ``fhir.resources`` (R4B, whose Observation is that of R4). Where that
library is lenient (numbers as text, times as numbers, unknown codes), this module is not. An Observation that
cannot be understood wholly is not taken: with a modifier extension, with implicit rules, with a focus (it is
about somebody else than its subject), with a comparator, without a time zone.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from samd_data.plausibility import shown
from samd_edge.clock import AHEAD
from samd_edge.sources.codes import System, field_of, rank_of
from samd_edge.sources.fhir_values import (
    Element,
    Problem,
    Value,
    codings_of,
    not_measured,
    read_value,
    reason_text,
)

BLOOD_PRESSURE_PANEL: Final = "85354-9"
TAKEN: Final = ("registered", "preliminary", "final", "amended", "corrected")
CORRECTED: Final = ("amended", "corrected")
IN_ERROR: Final = "entered-in-error"

_SYSTEMS: Final[dict[str, System]] = {
    "http://loinc.org": "loinc",
    "urn:oid:2.16.840.1.113883.6.1": "loinc",
    "urn:iso:std:iso:11073:10101": "mdc",
    "urn:oid:2.16.840.1.113883.6.24": "mdc",
}


class Refused(Exception):  # noqa: N818  (it is an answer, with its reason)
    """An Observation of which nothing is taken."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.reason)
        self.problem = problem


class Measured(NamedTuple):
    """What one Observation says. ``corrected``: it replaces what was said of the same time before."""

    at: datetime
    fields: tuple[str, ...]
    values: tuple[Value, ...]
    problems: tuple[Problem, ...]
    corrected: bool


class InError(NamedTuple):
    """An Observation that says nothing any more. ``at``: None where it does not tell its time; ``values``:
    those that can still be read."""

    at: datetime | None
    fields: tuple[str, ...]
    values: tuple[Value, ...]


def load() -> None:
    """Load the library now, not at the first message: it takes a while."""
    import fhir.resources.R4B.observation  # noqa: F401


def measured(observation: dict[str, Any], place: str, now: datetime) -> Measured | InError:
    """Read one Observation, an object of JSON that stands at ``place``. Raises Refused."""
    elements = tuple(_elements(observation, place))
    panel = BLOOD_PRESSURE_PANEL in _codes(observation.get("code"), "loinc")
    if not elements and not panel:
        reason, remedy = "none of its codes is a vital sign that is read here", "send LOINC or MDC codes"
        raise Refused(Problem("not-supported", f"{place}.code", "", reason, remedy, severity="information"))
    fields = tuple(element.field for element in elements) or ("systolic_bp", "diastolic_bp")
    _check_structure(observation, place, fields[0])
    _check_meaning(observation, place, fields[0])
    found = [read_value(element) for element in elements]
    values = tuple(one for one in found if isinstance(one, Value))
    problems = tuple(one for one in found if isinstance(one, Problem))
    if observation["status"] == IN_ERROR:
        try:
            return InError(_time(observation, place, fields[0], now), fields, values)
        except Refused:
            return InError(None, fields, values)
    at = _time(observation, place, fields[0], now)
    if not values and not problems:
        problems = _nothing(observation, place, fields)
    return Measured(at, fields, values, problems, observation["status"] in CORRECTED)


def _elements(observation: dict[str, Any], place: str) -> Iterator[Element]:
    """The Observation itself and its components, as far as they are vital signs."""
    components = observation.get("component")
    places = [
        (f"{place}.component[{number}]", component)
        for number, component in enumerate(components if isinstance(components, list) else ())
        if isinstance(component, dict)
    ]
    for where, content in ((place, observation), *places):
        found = _meaning(content.get("code"), where)
        if found is not None:
            yield Element(content, where, *found)


def _codes(concept: Any, system: System) -> list[str]:
    return [code for uri, code in codings_of(concept) if _SYSTEMS.get(uri) == system]


def _meaning(concept: Any, place: str) -> tuple[str, int] | None:
    """Field and rank that the codes of a concept mean, or None; raises Refused when they contradict."""
    ranks: dict[str, int] = {}
    for uri, code in codings_of(concept):
        system = _SYSTEMS.get(uri)
        field = None if system is None else field_of(system, code)
        if system is not None and field is not None:
            rank = rank_of(system, code)
            ranks[field] = min(rank, ranks.get(field, rank))
    if len(ranks) > 1:
        reason = f"its codes mean different signs ({', '.join(sorted(ranks))})"
        raise Refused(Problem("value", f"{place}.code", "", reason, "give the codes of one sign"))
    return next(iter(ranks.items()), None)


def _check_structure(observation: dict[str, Any], place: str, field: str) -> None:
    from fhir.resources.R4B.observation import Observation
    from pydantic import ValidationError

    # What is contained is of any type: the library would load all of FHIR for it.
    plain = {name: value for name, value in observation.items() if name != "contained"}
    try:
        Observation.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # a name that FHIR does not have may be as long as the message
        parts = [f"[{part}]" if isinstance(part, int) else f".{part[:40]}" for part in first["loc"]]
        where = "".join(parts)
        missing = "missing" in first["type"]
        raise Refused(
            Problem(
                "required" if missing else "structure",
                place + where,
                field,
                "a required element is missing" if missing else "it is not what FHIR R4 has at this place",
                "send a valid FHIR R4 Observation",
            )
        ) from error
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise Refused(
            Problem("structure", place, field, "it is no FHIR R4 Observation", "send a valid one")
        ) from error


def _check_meaning(observation: dict[str, Any], place: str, field: str) -> None:
    for name in ("modifierExtension", "implicitRules", "focus"):
        if observation.get(name):
            raise Refused(
                Problem(
                    "not-supported",
                    f"{place}.{name}",
                    field,
                    f"its {name} may change what it means",
                    "send a plain Observation of the patient",
                )
            )
    status = observation.get("status")
    if status not in (*TAKEN, IN_ERROR):
        raise Refused(
            Problem(
                "business-rule" if status in ("cancelled", "unknown") else "value",
                f"{place}.status",
                field,
                f"its status is {shown(status)}",
                "send what was measured as preliminary or final",
            )
        )


def _time(observation: dict[str, Any], place: str, field: str, now: datetime) -> datetime:
    """When it was measured, in UTC: of a period, its end. Raises Refused."""
    name = next((name for name in ("effectiveDateTime", "effectiveInstant") if name in observation), None)
    if name is not None:
        where, text = f"{place}.{name}", observation[name]
    else:
        where, period = f"{place}.effectivePeriod.end", observation.get("effectivePeriod")
        text = period.get("end") if isinstance(period, dict) else None
    remedy = "give the time with its zone, as in 2026-01-31T08:00:00Z"
    if text is None:
        reason = "the time of the measurement is missing"
        raise Refused(Problem("required", where, field, reason, remedy))
    try:
        moment = datetime.fromisoformat(text)  # a number is no text: TypeError
        if moment.utcoffset() is None:
            raise ValueError(text)
        moment = moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        reason = "it is no time of day with a zone"
        raise Refused(Problem("value", where, field, reason, remedy, shown(text))) from error
    if moment > now + AHEAD:
        reason, remedy = "it lies ahead of this device's clock", "have both clocks set by a time service"
        raise Refused(Problem("value", where, field, reason, remedy, shown(text)))
    return moment


def _nothing(observation: dict[str, Any], place: str, fields: tuple[str, ...]) -> tuple[Problem, ...]:
    """There is no value at all: because of a reason, or because the Observation is incomplete."""
    absent = observation.get("dataAbsentReason")
    if absent is not None:
        reason = reason_text(absent)
        return tuple(not_measured(field, f"{place}.dataAbsentReason", reason) for field in fields)
    remedy = "give a value, or a dataAbsentReason"
    return (Problem("required", place, fields[0], "it holds no value", remedy),)
