"""When a release is well, and when it is given up: with time, answers and crashes as arguments."""

import math
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import pytest

from samd_edge.control import ControlError
from samd_edge.update.health import abilities, lacking, watch
from samd_edge.update.running import running_version
from samd_edge.update.service import Service
from samd_edge.update.trial import Expected, Limits

NAME = "0.2.0-1a2b3c4d"
WELL = {
    "client_version": NAME,
    "link_up": True,
    "link": "connected",
    "admission": "local",
    "model_version": 3,
    "news2": {"low": 0},
}
EVERYTHING = Expected(link=True, admission=True, model=True, score=True)
LIMITS = Limits(deadline_s=60, settle_s=10, crashes=3)


class Time:
    """Passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def at(time: Time, *changes: tuple[float, Any], before: Any = WELL) -> Callable[[], Any]:
    """What is so before, and from so many seconds on."""

    def now() -> Any:
        found = before
        for second, value in changes:
            if time.seconds >= 1000 + second:
                found = value
        if isinstance(found, Exception):
            raise found
        return found

    return now


def watched(
    time: Time,
    look: Callable[[], Mapping[str, Any]],
    crashes: Callable[[], int] = lambda: 0,
    expected: Expected = EVERYTHING,
) -> tuple[str | None, float]:
    reason = watch(NAME, expected, LIMITS, left_s=60, look=look, crashes=crashes, time=time)
    return reason, time.seconds - 1000


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"client_version": "0.1.0-00000000"}, "0.1.0-00000000 answers instead"),
        ({"admission": None}, "it has lost the admission"),
        ({"news2": None}, "it assesses nothing"),
        ({"model_version": None}, "it cannot use the model"),
        ({"link_up": False, "link": "no broker"}, "it has no broker (no broker)"),
        ({}, None),
    ],
)
def test_what_a_release_lacks(change: dict[str, Any], text: str | None) -> None:
    assert lacking({**WELL, **change}, NAME, EVERYTHING) == text


def test_only_what_the_old_one_could_is_asked_for() -> None:
    assert lacking({"client_version": NAME}, NAME, Expected()) is None
    assert abilities({}) == Expected()
    assert abilities({"link_up": 1, "admission": None, "model_version": 0, "news2": {}}) == Expected(
        model=True, score=True
    )
    assert abilities(WELL) == EVERYTHING
    assert lacking({}, NAME, Expected()) == "None answers instead"


def test_well_for_long_enough() -> None:
    time = Time()
    assert watched(time, at(time)) == (None, 10)


def test_what_was_not_well_in_between_begins_anew() -> None:
    time = Time()
    look = at(time, (5, {**WELL, "link_up": False}), (8, WELL))
    assert watched(time, look) == (None, 18)


def test_a_crash_in_between_begins_anew_and_the_third_ends_it() -> None:
    time = Time()
    assert watched(time, at(time), at(time, (4, 1), (9, 2), before=0)) == (None, 19.5)
    time = Time()
    assert watched(time, at(time), at(time, (4, 1), (9, 2), (11, 3), before=0)) == ("it crashed 3 times", 11)


def test_never_well_until_the_deadline() -> None:
    time = Time()
    look = at(time, before=ControlError("no agent"))
    assert watched(time, look) == ("it does not answer (no agent), 60 s after the switch", 60)


def test_well_too_late() -> None:
    time = Time()
    look = at(time, (55, WELL), before={**WELL, "admission": None})
    assert watched(time, look) == ("it was not well for 10 s on end, 60 s after the switch", 60)


def test_a_look_that_hangs_does_not_stretch_the_deadline() -> None:
    time = Time()

    def look() -> Mapping[str, Any]:
        time.sleep(3)
        raise ControlError("no answer within 3 s")

    reason, seconds = watched(time, look)
    assert reason == "it does not answer (no answer within 3 s), 60 s after the switch"
    assert 60 <= seconds < 64


def test_after_its_deadline_a_release_is_looked_at_once() -> None:
    time = Time()
    assert watch(NAME, EVERYTHING, LIMITS, left_s=-5, look=at(time), crashes=lambda: 0, time=time) is not None
    assert math.isclose(time.seconds, 1000)


def test_the_commands_of_a_service() -> None:
    assert Service("true", "echo 4").restart() is None
    assert Service("true", "echo 4").restarts() == 4
    assert Service("true", "echo").restarts() is None
    assert Service("true", None).restarts() is None
    assert Service("true", "/no/such/command").restarts() is None
    assert Service("sh -c 'exit 4'").restart() == "sh -c 'exit 4': exit code 4"
    failed = Service("/no/such/command").restart()
    assert failed is not None
    assert failed.startswith("/no/such/command: ")


@pytest.mark.parametrize("name", ["0.2.0-1a2b3c4d", "0.1.0+broken-00000000"])
def test_a_release_knows_its_name_from_its_launcher(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SAMD_RELEASE", name)
    assert running_version() == name
    monkeypatch.setenv("SAMD_RELEASE", "something else")
    assert running_version() == metadata.version("samd-edge")
    monkeypatch.delenv("SAMD_RELEASE")
    assert running_version() == metadata.version("samd-edge")
