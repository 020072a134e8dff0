"""What a FHIR message holds for this device: an Observation, or a Bundle of them, as readings of one patient.

Every Observation of a Bundle stands alone: what is wrong with one takes nothing from the others. Two patients
in one Bundle are refused as a whole.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from samd_data.plausibility import Rejection, shown
from samd_data.reading import Reading
from samd_edge.retraction import BY_HAND, retraction_of
from samd_edge.sources import Item
from samd_edge.sources.fhir_entries import Entry, readings_of
from samd_edge.sources.fhir_observations import InError, Measured, Refused, measured
from samd_edge.sources.fhir_patient import Patients, SubjectError
from samd_edge.sources.fhir_values import Problem
from samd_edge.sources.fhir_versions import Version, Versions

MAX_ENTRIES: Final = 1000
BUNDLES: Final = ("batch", "transaction", "collection", "searchset", "message")


class MessageRefused(Exception):  # noqa: N818  (it is an answer, with its reason)
    """A message of which nothing is taken. ``status``: that of an HTTP answer."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(f"{problem.reason}; {problem.remedy}")
        self.status = status
        self.problem = problem


class Decoded(NamedTuple):
    """The readings of one message, oldest first, what could not be used, and what became of each entry.

    ``patient``: whom they are of, or None when nobody is named.
    """

    patient: str | None
    readings: tuple[Reading, ...]
    rejections: tuple[Rejection, ...]
    entries: tuple[Entry, ...]

    def items(self, name: str = "", known: Versions | None = None) -> Iterator[Item]:
        """The readings, and what this message takes back; then what could not be used: a flag is newer than
        what was measured before.

        ``known``: what was taken before in this channel, whose name is ``name``.
        """
        known = Versions(of_server=False) if known is None else known
        retraction = retraction_of(known.taken_back(self.versions()), name, self.readings)
        if retraction is None:
            yield from self.readings
        else:
            yield retraction
        for entry in self.entries:
            if isinstance(entry.found, InError) and entry.found.at is None and not known.knows(entry.key):
                reason = "it was entered in error, and neither its id nor its time is known here"
                yield Rejection(f"{name} {entry.place}".strip(), 0, "", "", reason, BY_HAND)
        yield from self.rejections

    def versions(self) -> list[Version]:
        """What its Observations say, for those that come after them."""
        return [entry.version() for entry in self.entries]


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
    entries = [Entry(place, _id_of(resource)) for place, _, resource in found]
    names: dict[str, str] = {}
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
            entry.found = values
            entry.problems.extend(() if isinstance(values, InError) else values.problems)
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
    readings = tuple(readings_of(entries))
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
) -> tuple[str | None, Measured | InError | Problem]:
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


def _id_of(resource: Any) -> str | None:
    own_id = resource.get("id") if isinstance(resource, dict) else None
    return own_id if isinstance(own_id, str) and own_id else None
