"""FHIR Observations that take back: corrected, amended, in error, a server's newer version."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.retraction import Retraction, Withdrawn
from samd_edge.sources import Item, fhir_json, fhir_versions
from samd_edge.sources.fhir_message import decode
from samd_edge.sources.fhir_versions import Said, Version, Versions

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EARLIER = NOON - timedelta(minutes=5)
IN_ERROR, CORRECTS = "the sender marks it as entered in error", "the sender corrects it"
NEWER = "its server has another version of it"


def observation(
    value: float | None = 80, *, code: str = "8867-4", at: datetime | None = NOON, **more: Any
) -> dict[str, Any]:
    """A pulse of 80 without an id, where nothing else is said."""
    found: dict[str, Any] = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": "Patient/17"},
    }
    if value is not None:
        found["valueQuantity"] = {"value": value, "unit": "/min"}
    if at is not None:
        found["effectiveDateTime"] = at.isoformat()
    return {**found, **more}


class Channel:
    """What comes out of one channel, message by message."""

    def __init__(self, *, of_server: bool = False) -> None:
        self.versions = Versions(of_server=of_server)

    def take(self, *observations: dict[str, Any]) -> list[Item]:
        entries = [{"resource": one} for one in observations]
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
        content = fhir_json.parse(json.dumps(bundle).encode())
        decoded = decode(content, name="fhir:1", now=NOON)
        usable = {one["status"] for one in observations} != {"cancelled"}
        assert {entry.status for entry in decoded.entries} == {201 if usable else 422}
        found = list(decoded.items("fhir:1", self.versions))
        self.versions.remember(decoded.versions())
        return found


def pulse(value: float, at: datetime = NOON) -> Reading:
    return Reading(observed_at=at, heart_rate=value)


def back(
    value: float | None, reason: str, *instead: Reading, at: datetime = NOON, name: str = "heart_rate"
) -> list[Retraction]:
    return [Retraction(values=(Withdrawn(name, at, value, reason),), by="fhir:1", instead=instead)]


@pytest.mark.parametrize("status", ["amended", "corrected"])
def test_another_value_and_another_time_of_the_same_observation(status: str) -> None:
    channel = Channel()
    assert channel.take(observation(80, id="a")) == [pulse(80)]
    assert channel.take(observation(85, id="a", status=status)) == back(80, CORRECTS, pulse(85))
    moved = observation(85, id="a", status=status, at=EARLIER)
    assert channel.take(moved) == back(85, CORRECTS, pulse(85, EARLIER)), "of the time that it had"
    assert channel.take(moved) == [pulse(85, EARLIER)], "a message that comes twice takes nothing back"


def test_a_correction_that_holds_no_value_any_more() -> None:
    channel = Channel()
    channel.take(observation(80, id="a"))
    absent = observation(None, id="a", status="amended", dataAbsentReason={"text": "probe off"})
    retraction, rejection = channel.take(absent)
    assert [retraction] == back(80, CORRECTS)
    assert isinstance(rejection, Rejection)
    assert rejection.kind == "no_signal"


def test_what_is_in_error_is_found_by_its_id_or_by_its_time_and_value() -> None:
    channel = Channel()
    channel.take(observation(80, id="a"))
    assert channel.take(observation(None, id="a", at=None, status="entered-in-error")) == back(80, IN_ERROR)
    assert channel.take(observation(80, status="entered-in-error")) == back(80, IN_ERROR)
    assert channel.take(observation(None, status="entered-in-error")) == back(None, IN_ERROR)
    assert channel.take(observation(81, id="z", status="entered-in-error")) == back(81, IN_ERROR)
    (rejection,) = channel.take(observation(None, id="y", at=None, status="entered-in-error"))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "it was entered in error, and neither its id nor its time is known here"


def test_a_pressure_is_taken_back_with_both_its_values() -> None:
    parts = [
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "valueQuantity": {"value": value, "unit": "mm[Hg]"},
        }
        for code, value in (("8480-6", 120), ("8462-4", 80))
    ]
    wrong = observation(None, code="85354-9", component=parts, status="entered-in-error")
    (retraction,) = Channel().take(wrong)
    assert isinstance(retraction, Retraction)
    assert [(one.field, one.value) for one in retraction.values] == [
        ("systolic_bp", 120.0),
        ("diastolic_bp", 80.0),
    ]
    del wrong["component"]
    (retraction,) = Channel().take(wrong)
    assert isinstance(retraction, Retraction)
    assert [(one.field, one.value) for one in retraction.values] == [
        ("systolic_bp", None),
        ("diastolic_bp", None),
    ]


def test_a_correction_of_what_is_not_known_replaces_what_is_of_its_time() -> None:
    assert Channel().take(observation(85, status="corrected")) == back(None, CORRECTS, pulse(85))


def test_what_another_observation_says_too_is_not_wrong_by_that() -> None:
    channel = Channel()
    channel.take(observation(80, id="a"))
    channel.take(observation(80, id="b"))
    assert channel.take(observation(80, id="b", status="entered-in-error")) == []
    assert channel.take(observation(80, id="a", status="entered-in-error")) == back(80, IN_ERROR)
    channel = Channel()
    channel.take(observation(80, id="a"), observation(80, id="b"))
    both = [observation(80, id=name, status="entered-in-error") for name in "ab"]
    assert channel.take(*both) == back(80, IN_ERROR)


def test_of_a_method_that_did_not_count_nothing_is_taken_back() -> None:
    channel = Channel()
    assert channel.take(observation(80, id="ecg"), observation(79, code="8889-8", id="oximeter")) == [
        pulse(80)
    ]
    assert channel.take(observation(79, code="8889-8", id="oximeter", status="entered-in-error")) == []


def test_what_is_in_error_is_what_it_says_not_another_of_the_same_id() -> None:
    channel = Channel()
    channel.take(observation(80, id="a"))
    channel.take(observation(85, id="a", at=EARLIER, status="corrected"))
    channel.take(observation(80, id="a"))
    wrong = observation(85, id="a", at=EARLIER, status="entered-in-error")
    assert channel.take(wrong) == back(85, IN_ERROR, at=EARLIER)


@pytest.mark.parametrize(
    ("first", "second", "given"),
    [
        # what one message says, and what of it is given: with an id the order counts, without one the value
        ({"id": "a"}, {"id": "a", "status": "entered-in-error"}, []),
        ({"id": "a", "status": "entered-in-error"}, {"id": "a"}, [pulse(80)]),
        ({"id": "a"}, {"id": "b", "status": "entered-in-error"}, [pulse(80)]),
        ({}, {"status": "entered-in-error"}, []),
        ({"id": "a"}, {"status": "entered-in-error"}, []),
        ({}, {"id": "a", "status": "entered-in-error"}, []),
        ({"status": "entered-in-error"}, {}, []),
    ],
)
def test_what_a_message_takes_back_it_does_not_give(
    first: dict[str, Any], second: dict[str, Any], given: list[Reading]
) -> None:
    found = Channel().take(observation(80, **first), observation(80, **second))
    assert [
        one for item in found for one in (item.instead if isinstance(item, Retraction) else (item,))
    ] == given


def test_the_versions_of_a_server_replace_each_other_whatever_their_status() -> None:
    channel, posted = Channel(of_server=True), Channel()
    for each in (channel, posted):
        assert each.take(observation(80, id="a", status="preliminary")) == [pulse(80)]
    final = observation(82, id="a", at=EARLIER)
    assert channel.take(final) == back(80, NEWER, pulse(82, EARLIER))
    assert posted.take(final) == [pulse(82, EARLIER)], "a client may use one id for all that it posts"
    retraction, rejection = channel.take(observation(82, id="a", at=EARLIER, status="cancelled"))
    assert [retraction] == back(82, NEWER, at=EARLIER), "it says nothing any more"
    assert isinstance(rejection, Rejection)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_versions, "REMEMBERED", 3)
    versions = Versions(of_server=False)
    for number in range(100):
        versions.remember([Version(str(number), (Said("spo2", NOON, float(number)),))])
    assert [versions.knows(str(number)) for number in (96, 97, 98, 99)] == [False, True, True, True]
    gone = [Version(str(number), (), IN_ERROR) for number in range(100)]
    assert [one.value for one in versions.taken_back(gone)] == [97.0, 98.0, 99.0]
    assert len(versions._count) == 3
