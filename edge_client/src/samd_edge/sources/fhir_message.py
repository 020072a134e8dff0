"""What a FHIR message holds for this device: an Observation, or a Bundle of them, as readings of one patient.

Every Observation of a Bundle stands alone: what is wrong with one takes nothing from the others. Two patients
in one Bundle are refused as a whole. Values of the same time are one reading; two different values of one
sign at one time are both refused, unless one of them is marked as the correction of the other.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from samd_data.plausibility import Rejection, check, clean, remedy, shown
from samd_data.reading import Reading
from samd_edge.sources.fhir_observations import Measured, Refused, measured
from samd_edge.sources.fhir_patient import Patients, SubjectError
from samd_edge.sources.fhir_values import Problem, Value

MAX_ENTRIES: Final = 1000
BUNDLES: Final = ("batch", "transaction", "collection", "searchset", "message")

_MALFORMED: Final = ("structure", "required", "invalid")


class MessageRefused(Exception):  # noqa: N818  (it is an answer, with its reason)
    """A message of which nothing is taken. ``status``: that of an HTTP answer."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(f"{problem.reason}; {problem.remedy}")
        self.status = status
        self.problem = problem


@dataclass(slots=True)
class Entry:
    """What became of one entry of a Bundle, or of a single Observation. ``taken``: at least one value was."""

    place: str
    taken: bool = False
    problems: list[Problem] = field(default_factory=list)

    @property
    def status(self) -> int:
        """201: what it says was taken over, which may be that nothing was measured."""
        if self.taken or all(problem.code == "informational" for problem in self.problems):
            return 201
        return 400 if any(problem.code in _MALFORMED for problem in self.problems) else 422


class Decoded(NamedTuple):
    """The readings of one message, oldest first, what could not be used, and what became of each entry.

    ``patient``: whom they are of, or None when nobody is named.
    """

    patient: str | None
    readings: tuple[Reading, ...]
    rejections: tuple[Rejection, ...]
    entries: tuple[Entry, ...]

    def items(self) -> Iterator[Reading | Rejection]:
        """The readings, then what could not be used: a flag is newer than what was measured before."""
        yield from self.readings
        yield from self.rejections


def decode(content: Any, *, name: str, now: datetime, base: str | None = None) -> Decoded:
    """Read a message, as ``fhir_json.parse`` gives it.

    ``name``: stands in the rejections as where it came from. ``base``: as in ``Patients``. Raises
    MessageRefused.
    """
    kind = content.get("resourceType") if isinstance(content, dict) else None
    if kind == "Observation":
        found = [("Observation", None, content)]
    elif kind == "Bundle":
        found = _entries(content)
    else:
        raise MessageRefused(
            400,
            Problem(
                "invalid",
                "resourceType",
                "",
                "the content is neither an Observation nor a Bundle",
                "send one of the two",
            ),
        )
    patients = Patients(((url, resource) for _, url, resource in found), base=base)
    entries = [Entry(place) for place, _, _ in found]
    names: dict[str, str] = {}
    read: list[tuple[Entry, Measured]] = []
    for entry, (place, _, resource) in zip(entries, found, strict=True):
        try:
            patient, values = _one(resource, place, patients, now)
        except Refused as refusal:
            entry.problems.append(refusal.problem)
            continue
        if patient is not None:
            names.setdefault(patient, place)
        if isinstance(values, Problem):
            entry.problems.append(values)
        else:
            entry.problems.extend(values.problems)
            read.append((entry, values))
    if len(names) > 1:
        raise MessageRefused(
            422,
            Problem(
                "business-rule",
                f"{list(names.values())[1]}.subject",
                "",
                "the message is about more than one patient",
                "send each patient's Observations to their own device",
            ),
        )
    readings = tuple(_readings(read))
    rejections = tuple(
        as_rejection(problem, name)
        for entry in entries
        for problem in entry.problems
        if problem.severity != "information" or problem.kind == "no_signal"
    )
    return Decoded(next(iter(names), None), readings, rejections, tuple(entries))


def as_rejection(problem: Problem, name: str) -> Rejection:
    """The problem as people at the device see it."""
    place = f"{name} {problem.place}" if problem.place else name
    return Rejection(place, 0, problem.field, problem.value, problem.reason, problem.remedy, problem.kind)


def _entries(bundle: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Place, ``fullUrl`` and resource of each entry."""
    kind = bundle.get("type")
    if kind not in BUNDLES:
        reason = f"its type is {shown(kind)}" if isinstance(kind, str) else "it has no type"
        problem = Problem("not-supported", "Bundle.type", "", reason, f"send one of {', '.join(BUNDLES)}")
        raise MessageRefused(422, problem)
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        problem = Problem("structure", "Bundle.entry", "", "it is no list", "send a valid FHIR R4 Bundle")
        raise MessageRefused(400, problem)
    if len(entries) > MAX_ENTRIES:
        raise MessageRefused(
            413,
            Problem(
                "too-costly",
                "Bundle.entry",
                "",
                f"it holds more than {MAX_ENTRIES} entries",
                "send several Bundles",
            ),
        )
    found = []
    for number, entry in enumerate(entries):
        place = f"Bundle.entry[{number}]"
        if isinstance(entry, dict):
            request = entry.get("request")
            method = request.get("method") if isinstance(request, dict) else None
            resource = entry.get("resource") if method in (None, "POST", "PUT") else _Unsupported(method)
            found.append((f"{place}.resource", entry.get("fullUrl"), resource))
        else:
            found.append((place, None, None))
    return found


class _Unsupported:
    """An entry that asks for something else than to take a resource."""

    def __init__(self, method: object) -> None:
        self.method = method


def _one(
    resource: Any, place: str, patients: Patients, now: datetime
) -> tuple[str | None, Measured | Problem]:
    """The patient of one resource, and what it says or why it is not taken. Raises Refused without both."""
    if isinstance(resource, _Unsupported):
        reason = f"the method {shown(resource.method)} is not known here"
        raise Refused(Problem("not-supported", place, "", reason, "send new Observations by POST"))
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    if not isinstance(kind, str):
        raise Refused(Problem("structure", place, "", "it holds no resource", "send Observations"))
    if kind != "Observation":
        raise Refused(
            Problem(
                "not-supported",
                place,
                "",
                f"a {kind[:40]} is not kept here" if kind.isalpha() else "the resource is not kept here",
                "send Observations",
                severity="information",
            )
        )
    try:
        patient = patients.name_of(resource)
    except SubjectError as error:
        reason, _, remedy = str(error).partition("; ")
        raise Refused(Problem("value", f"{place}.subject", "", reason, remedy)) from error
    try:
        return patient, measured(resource, place, now)
    except Refused as refusal:
        return patient, refusal.problem


class _Given(NamedTuple):
    entry: Entry
    value: Value
    corrected: bool


def _readings(read: list[tuple[Entry, Measured]]) -> list[Reading]:
    """One reading a time, oldest first; entries are told what became of their values."""
    times: dict[datetime, dict[str, list[_Given]]] = defaultdict(lambda: defaultdict(list))
    for entry, one in read:
        for value in one.values:
            reason = check(value.field, value.value)
            if reason is None:
                times[one.at][value.field].append(_Given(entry, value, one.corrected))
            else:
                what_to_do = remedy(value.field, value.value)
                said = (value.field, reason, what_to_do, shown(value.value))
                entry.problems.append(Problem("value", value.place, *said))
    readings = []
    for at in sorted(times):
        accepted, rejected = clean(_agreed(times[at]))
        for rejection in rejected:
            said = (rejection.column, rejection.reason, rejection.remedy, rejection.value)
            for entry, value, _ in times[at][rejection.column]:
                entry.problems.append(Problem("value", value.place, *said))
        for name in accepted:
            for entry, _, _ in times[at][name]:
                entry.taken = True
        if accepted:
            readings.append(Reading(observed_at=at, **accepted))
    for entry, _ in read:
        if not entry.taken and not entry.problems:
            reason = "another value of the same time counts: by a better method, or of the same cuff"
            entry.problems.append(
                Problem("informational", entry.place, "", reason, "leave it so", severity="information")
            )
    return readings


def _agreed(given: dict[str, list[_Given]]) -> dict[str, float | bool | str]:
    """Of each sign the one value that counts; those that contradict each other are left out, and told.

    The best method counts (an ECG before a pulse), and what is marked as a correction. A diastolic pressure
    of another method than the systolic one is left out: the two would be no pair.
    """
    chosen: dict[str, _Given] = {}
    for name in sorted(given, key=lambda name: name == "diastolic_bp"):  # after the systolic one
        candidates = given[name]
        if name == "diastolic_bp" and "systolic_bp" in chosen:
            rank = chosen["systolic_bp"].value.rank
            candidates = [one for one in candidates if one.value.rank == rank]
        if not candidates:
            continue
        best = min(one.value.rank for one in candidates)
        of_best = [one for one in candidates if one.value.rank == best]
        counted = [one for one in of_best if one.corrected] or of_best
        if all(one.value.value == counted[0].value.value for one in counted):
            chosen[name] = counted[0]
            continue
        reason = "the message has two different values of this sign at one time"
        what_to_do = "send one of them, or mark the right one as corrected"
        for one in counted:
            one.entry.problems.append(Problem("conflict", one.value.place, name, reason, what_to_do))
    return {name: one.value.value for name, one in chosen.items()}
