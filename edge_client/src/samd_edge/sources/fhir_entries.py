"""The entries of a FHIR message: what became of each, and the readings that they give together.

Values of the same time are one reading; two different values of one sign at one time are both refused, unless
one of them is marked as the correction of the other. What the message itself takes back is not taken.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from samd_data.plausibility import check, clean, remedy, shown
from samd_data.reading import Reading
from samd_edge.retraction import Withdrawn
from samd_edge.sources.fhir_observations import InError, Measured
from samd_edge.sources.fhir_values import Problem, Value
from samd_edge.sources.fhir_versions import CORRECTED, IN_ERROR, Said, Version

_MALFORMED: Final = ("structure", "required", "invalid")


@dataclass(slots=True)
class Entry:
    """What became of one entry of a Bundle, or of a single Observation: what was ``said`` by it and taken.

    ``key``: the Observation's id. ``found``: what it says, if it can be read.
    """

    place: str
    key: str | None = None
    found: Measured | InError | None = None
    said: list[Said] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def taken(self) -> bool:
        """At least one value was taken over."""
        return bool(self.said)

    @property
    def replaces(self) -> bool:
        """Whether it takes back what was said before."""
        return isinstance(self.found, InError) or (self.found is not None and self.found.corrected)

    def version(self) -> Version:
        """What it says, for those that come after it."""
        if isinstance(self.found, InError):
            return Version(self.key, (), IN_ERROR, self._in_error(self.found))
        if self.found is None:
            return Version(self.key, None)
        if not self.found.corrected:
            return Version(self.key, tuple(self.said))
        at = self.found.at
        replaced = tuple(Withdrawn(name, at, None, CORRECTED) for name in self.found.fields)
        return Version(self.key, tuple(self.said), CORRECTED, replaced)

    @staticmethod
    def _in_error(found: InError) -> tuple[Withdrawn, ...]:
        at = found.at
        if at is None:
            return ()
        values = {value.field: value.value for value in found.values}
        return tuple(Withdrawn(name, at, values.get(name), IN_ERROR) for name in found.fields)

    @property
    def status(self) -> int:
        """201: what it says was taken over, which may be that nothing was measured."""
        if self.taken or all(problem.code == "informational" for problem in self.problems):
            return 201
        return 400 if any(problem.code in _MALFORMED for problem in self.problems) else 422


class _Given(NamedTuple):
    entry: Entry
    value: Value
    corrected: bool


def readings_of(entries: Sequence[Entry]) -> list[Reading]:
    """One reading a time, oldest first; entries are told what became of their values."""
    times: dict[datetime, dict[str, list[_Given]]] = defaultdict(lambda: defaultdict(list))
    for entry, one in _standing(entries):
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
        agreed = _agreed(times[at])
        accepted, rejected = clean({name: one.value for name, one in agreed.items()})
        for rejection in rejected:
            said = (rejection.column, rejection.reason, rejection.remedy, rejection.value)
            for entry, value, _ in times[at][rejection.column]:
                entry.problems.append(Problem("value", value.place, *said))
        for name in accepted:
            for entry, value, _ in times[at][name]:
                if (value.value, value.rank) == (agreed[name].value, agreed[name].rank):
                    entry.said.append(Said(name, at, value.value))
        if accepted:
            readings.append(Reading(observed_at=at, **accepted))
    for entry in entries:
        if isinstance(entry.found, InError):
            reason = "what was taken of it before, if anything was, is struck through"
            entry.problems.append(_note(entry, reason, "leave it so"))
        elif entry.found is not None and not entry.taken and not entry.problems:
            reason = "another value of the same time counts: by a better method, or of the same cuff"
            entry.problems.append(_note(entry, reason, "leave it so"))
    return readings


def _standing(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Measured]]:
    """What was measured, without what the message itself takes back: what an entry says whose Observation a
    later one replaces, and a value that is in error where one of the two does not tell its id."""
    last = {entry.key: number for number, entry in enumerate(entries) if entry.key and entry.replaces}
    wrong: dict[tuple[object, ...], set[str | None]] = defaultdict(set)
    for entry in entries:
        if isinstance(entry.found, InError):
            for value in entry.found.values:
                wrong[entry.found.at, value.field, value.rank, value.value].add(entry.key)
    for number, entry in enumerate(entries):
        if not isinstance(entry.found, Measured):
            continue
        standing = []
        replaced = entry.key is not None and number < last.get(entry.key, 0)
        for value in entry.found.values:
            keys = wrong.get((entry.found.at, value.field, value.rank, value.value), set())
            if not replaced and None not in keys and not (keys and entry.key is None):
                standing.append(value)
        if len(standing) < len(entry.found.values):
            entry.problems.append(_note(entry, "the same message takes it back", "leave it so"))
        yield entry, entry.found._replace(values=tuple(standing))


def _note(entry: Entry, reason: str, what_to_do: str) -> Problem:
    return Problem("informational", entry.place, "", reason, what_to_do, severity="information")


def _agreed(given: dict[str, list[_Given]]) -> dict[str, Value]:
    """Of each sign the one value that counts; those that contradict each other are left out, and told.

    The best method counts (an ECG before a pulse), and what is marked as a correction. A diastolic pressure
    of another method than the systolic one is left out: the two would be no pair.
    """
    chosen: dict[str, Value] = {}
    for name in sorted(given, key=lambda name: name == "diastolic_bp"):  # after the systolic one
        candidates = given[name]
        if name == "diastolic_bp" and "systolic_bp" in chosen:
            rank = chosen["systolic_bp"].rank
            candidates = [one for one in candidates if one.value.rank == rank]
        if not candidates:
            continue
        best = min(one.value.rank for one in candidates)
        of_best = [one for one in candidates if one.value.rank == best]
        counted = [one for one in of_best if one.corrected] or of_best
        if all(one.value.value == counted[0].value.value for one in counted):
            chosen[name] = counted[0].value
            continue
        reason = "the message has two different values of this sign at one time"
        what_to_do = "send one of them, or mark the right one as corrected"
        for one in counted:
            one.entry.problems.append(Problem("conflict", one.value.place, name, reason, what_to_do))
    return chosen
