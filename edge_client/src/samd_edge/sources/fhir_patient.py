"""Whom an Observation is about: one name for one patient, however a message refers to them.

A patient is named by their identifier where the message tells it (in ``subject.identifier``, in a contained
Patient, or in a Patient of the same Bundle), which is what other channels, such as HL7's PID-3, name too;
else by the id of ``Patient/ID``. A reference that means something within one message only (``#p``,
``urn:uuid:...``) has to be resolved there: the same patient has another one in the next message.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

_PATIENT: Final = re.compile(r"Patient/([A-Za-z0-9.-]{1,64})")
_HISTORY: Final = re.compile(r"/_history/[A-Za-z0-9.-]{1,64}$")
_ABSOLUTE: Final = re.compile(r"https?://\S+/([A-Za-z]+)/[A-Za-z0-9.-]{1,64}")


class SubjectError(ValueError):
    """An Observation that is not of a patient, or of one who cannot be told; one sentence with the remedy."""


class Patients:
    """The patients of one message.

    ``entries``: the resources of a Bundle with their ``fullUrl`` (or None). ``base``: the address of the
    server that they come from, so that its absolute references mean the same as relative ones.
    """

    def __init__(self, entries: Iterable[tuple[Any, Any]] = (), *, base: str | None = None) -> None:
        self._base = base
        self._named: dict[str, str] = {}  # a reference: the identifier of the patient whom it means
        for full_url, resource in entries:
            if not isinstance(resource, dict):
                continue
            if resource.get("resourceType") == "Patient":
                self._learn_patient(full_url, resource)
            elif resource.get("resourceType") == "Observation":
                self._learn_subject(resource.get("subject"))

    def id_of(self, observation: dict[str, Any]) -> str | None:
        """The id of ``Patient/ID`` whom the Observation refers to; None for one that does not."""
        subject = observation.get("subject")
        reference = subject.get("reference") if isinstance(subject, dict) else None
        try:
            return self._plain(reference) if isinstance(reference, str) else None
        except SubjectError:
            return None

    def name_of(self, observation: dict[str, Any]) -> str | None:
        """The patient's name in this channel; None when the Observation names nobody. Raises SubjectError."""
        subject = observation.get("subject")
        if subject is None:
            return None
        if not isinstance(subject, dict):
            raise SubjectError("the subject is no reference; name the patient as Patient/ID")
        kind = subject.get("type")
        if kind not in (None, "Patient", "http://hl7.org/fhir/StructureDefinition/Patient"):
            raise SubjectError("the subject is not a patient; send only Observations of the patient")
        reference = subject.get("reference")
        if reference is not None and (not isinstance(reference, str) or not reference.strip()):
            raise SubjectError("the reference of the subject is no text; name the patient as Patient/ID")
        identifier = _value(subject.get("identifier"))
        if reference is None:
            return identifier
        if reference.startswith("#"):
            identifier = identifier or _contained(observation, reference[1:])
            if identifier is None:
                raise SubjectError("the contained patient has no identifier; give one, or name Patient/ID")
            return identifier
        plain = self._plain(reference)
        name = identifier or self._named.get(plain)
        if name is not None:
            return name
        if plain.startswith("urn:"):
            raise SubjectError(
                "the patient is named by a reference that this message does not resolve; give an identifier, "
                "or name Patient/ID"
            )
        return plain

    def _plain(self, reference: str) -> str:
        """``Patient/1``, its versions, and this server's absolute form of it are all ``1``."""
        text = _HISTORY.sub("", reference.strip())
        if self._base is not None:
            text = text.removeprefix(self._base.rstrip("/") + "/")
        found = _PATIENT.fullmatch(text)
        if found:
            return found[1]
        absolute = _ABSOLUTE.fullmatch(text)
        if text.startswith("urn:") or (absolute and absolute[1] == "Patient"):
            return text
        raise SubjectError("the subject is not a patient; name the patient as Patient/ID")

    def _learn_patient(self, full_url: Any, patient: dict[str, Any]) -> None:
        identifier = _best(patient)
        own_id = patient.get("id")
        if identifier is None and isinstance(own_id, str):
            identifier = own_id
        if identifier is None:
            return
        for reference in (full_url, f"Patient/{own_id}"):
            if isinstance(reference, str):
                self._learn(reference, identifier)

    def _learn_subject(self, subject: Any) -> None:
        if isinstance(subject, dict) and isinstance(subject.get("reference"), str):
            identifier = _value(subject.get("identifier"))
            if identifier is not None:
                self._learn(subject["reference"], identifier)

    def _learn(self, reference: str, identifier: str) -> None:
        try:
            self._named.setdefault(self._plain(reference), identifier)
        except SubjectError:
            return  # whoever uses it is told


def _contained(observation: dict[str, Any], local_id: str) -> str | None:
    contained = observation.get("contained")
    for resource in contained if isinstance(contained, list) else ():
        if isinstance(resource, dict) and resource.get("id") == local_id:
            return _best(resource) if resource.get("resourceType") == "Patient" else None
    return None


def _best(patient: dict[str, Any]) -> str | None:
    """The record number of a Patient where one is marked as such, else the first identifier."""
    identifiers = patient.get("identifier")
    found = [one for one in identifiers if isinstance(one, dict)] if isinstance(identifiers, list) else []
    marked = next((one for one in found if _is_record_number(one)), None)
    return _value(marked) if marked is not None else next((v for one in found if (v := _value(one))), None)


def _is_record_number(identifier: dict[str, Any]) -> bool:
    kind = identifier.get("type")
    codings = kind.get("coding") if isinstance(kind, dict) else None
    return isinstance(codings, list) and any(
        isinstance(coding, dict) and coding.get("code") == "MR" for coding in codings
    )


def _value(identifier: Any) -> str | None:
    value = identifier.get("value") if isinstance(identifier, dict) else None
    return value if isinstance(value, str) and value.strip() else None
