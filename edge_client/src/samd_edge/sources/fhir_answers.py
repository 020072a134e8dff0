"""What a FHIR client is answered: an OperationOutcome, a Bundle of answers, the CapabilityStatement."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from samd_edge.sources.fhir_entries import Entry
from samd_edge.sources.fhir_values import Problem


def outcome(problems: Iterable[Problem]) -> dict[str, Any]:
    """An OperationOutcome: of each problem the place (``expression``), reason and remedy."""
    issues = [issue(problem) for problem in problems]
    if not issues:
        issues = [{"severity": "information", "code": "informational", "diagnostics": "taken over"}]
    return {"resourceType": "OperationOutcome", "issue": issues}


def issue(problem: Problem) -> dict[str, Any]:
    """One problem as an issue."""
    found = {
        "severity": problem.severity,
        "code": problem.code,
        "diagnostics": f"{problem.reason}; {problem.remedy}",
    }
    return {**found, "expression": [problem.place]} if problem.place else found


def failure(code: str, reason: str, remedy: str) -> dict[str, Any]:
    """The OperationOutcome of a request that fails as a whole."""
    return outcome([Problem(code, "", "", reason, remedy)])


def batch_response(entries: Sequence[Entry]) -> dict[str, Any]:
    """A Bundle with one answer for each entry, in their order."""
    answers = []
    for entry in entries:
        status = HTTPStatus(entry.status)
        answer: dict[str, Any] = {"status": f"{status.value} {status.phrase}"}
        if entry.problems:
            answer["outcome"] = outcome(entry.problems)
        answers.append({"response": answer})
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "batch-response"}
    return {**bundle, "entry": answers} if answers else bundle


def capabilities(started: str) -> dict[str, Any]:
    """The CapabilityStatement. ``started``: when this listener was opened, ISO 8601."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": started,
        "kind": "instance",
        "software": {"name": "samd-edge", "version": version("samd-edge")},
        "implementation": {"description": "Takes vital signs of the one patient of this device"},
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [
            {
                "mode": "server",
                "documentation": "Every entry of a Bundle stands alone, also those of a transaction.",
                "resource": [{"type": "Observation", "interaction": [{"code": "create"}]}],
                "interaction": [{"code": "batch"}],
            }
        ],
    }
