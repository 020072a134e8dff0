"""Several sources at once, one patient to a device, listeners that are safe, and what cannot be true."""

import asyncio
import os
import sqlite3
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.admission import Record
from samd_edge.clock import AHEAD, Clock, WallClock
from samd_edge.intake import Intake, ahead
from samd_edge.sources import SourceError, parse
from samd_edge.sources.listening import ListenerSettings, Listening, Refusals, listen_at
from samd_edge.sources.several import Sources, open_sources
from samd_edge.sources.surroundings import NO_PATIENT, WRONG_PATIENT, PatientGuard, Surroundings
from samd_scripts.fuzzing.bedside import Bedside

NOW = datetime(2026, 6, 1, tzinfo=UTC)


class Hand:
    """A source that gives what it is told, and notes when each item was taken."""

    def __init__(self, *items: Reading | Rejection | Exception) -> None:
        self.clock: Clock = WallClock(lambda: NOW)
        self.items = items
        self.taken: list[Reading | Rejection] = []
        self.closed = False

    def history(self) -> Iterator[Reading]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Reading | Rejection]:
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            yield item
            self.taken.append(item)

    async def aclose(self) -> None:
        self.closed = True


def beat(rate: float) -> Reading:
    return Reading(observed_at=NOW, heart_rate=rate)


def together(*hands: Hand) -> Sources:
    named = [(f"hand:{number}", hand) for number, hand in enumerate(hands)]
    return Sources(named, wall=lambda: NOW, clock=WallClock(lambda: NOW))


def test_all_readings_come_and_each_is_taken_before_the_next_is_asked_for() -> None:
    first, second = Hand(beat(60), beat(61)), Hand(beat(80), Rejection("x", 1, "spo2", "120", "why", "do"))

    async def run() -> list[Any]:
        sources = together(first, second)
        seen = []
        async for item in sources:
            for _ in range(5):
                await asyncio.sleep(0)
            taken = [id(one) for one in (*first.taken, *second.taken)]
            assert id(item) not in taken, "it is taken once the work on it is done"
            assert len(taken) == len(seen), "and those before it are"
            seen.append(item)
        await sources.aclose()
        return [seen, sources.status]

    seen, status = asyncio.run(run())
    assert sorted(item.heart_rate for item in seen if isinstance(item, Reading)) == [60, 61, 80]
    assert (len(first.taken), len(second.taken)) == (2, 2)
    assert [(one.readings, one.rejected, one.ended, one.last_at) for one in status] == [
        (2, 0, True, NOW),
        (1, 1, True, NOW),
    ]
    assert first.closed
    assert second.closed


def test_one_that_fails_leaves_the_others_going() -> None:
    bad, good = Hand(beat(60), OSError("no adapter")), Hand(*(beat(80 + k) for k in range(5)))

    async def run() -> Sources:
        sources = together(bad, good)
        assert len([item async for item in sources]) == 6
        return sources

    status = asyncio.run(run()).status
    assert [(one.ended, one.error) for one in status] == [(True, "OSError: no adapter"), (True, None)]


def test_the_failure_of_the_only_source_is_raised_and_shown() -> None:
    sources = together(Hand(beat(60), OSError("gone")))

    async def run() -> None:
        async for _ in sources:
            pass

    with pytest.raises(OSError, match="gone"):
        asyncio.run(run())
    assert [(one.readings, one.ended, one.error) for one in sources.status] == [(1, True, "OSError: gone")]


def test_a_source_with_a_time_of_its_own_stands_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("observed_at,heart_rate\n2026-01-01T00:00:00Z,80\n2026-01-01T00:01:00Z,80\n")
    two = [parse(f"replay:{file}?speed=60"), parse("sim:?scenario=well")]
    with pytest.raises(SourceError, match=r"keeps a time of its own and cannot be combined"):
        open_sources(two, Surroundings())


def test_a_source_is_given_once() -> None:
    with pytest.raises(SourceError, match="given twice"):
        open_sources([parse("mqtt:monitors/bed-01"), parse("mqtt:monitors/bed-01")], Surroundings())


# -- one device, one patient -------------------------------------------------------------------------------


def test_the_first_identifier_is_the_patient_until_the_next_admission() -> None:
    guard, remembered = PatientGuard(), []
    guard.admit(key="a", remember=remembered.append)
    assert guard.refusal(None) is None, "a channel that names nobody is believed"
    assert guard.refusal(" 4711 ^ X") is None
    assert guard.refusal("4711   ^ X") is None, "white space is not another patient"
    assert guard.refusal("4712") == WRONG_PATIENT
    assert "4711" not in remembered[0]
    guard.discharge()
    assert guard.refusal("4711 ^ X") == NO_PATIENT
    guard.admit(key="b")
    assert guard.refusal("4712") is None
    again = PatientGuard()
    again.admit(key="a", bound=remembered[0])
    assert (again.refusal("4711 ^ X"), again.refusal("4712")) == (None, WRONG_PATIENT), "over a restart"


def test_a_patient_who_cannot_be_stored_is_known_all_the_same_and_stored_later() -> None:
    guard, remembered = PatientGuard(), []
    full = [sqlite3.OperationalError("database or disk is full")] * 2

    def remember(found: str) -> None:
        if full:
            raise full.pop()
        remembered.append(found)

    guard.admit(key="a", remember=remember)
    assert [guard.refusal("4711"), guard.refusal("4712"), guard.refusal("4711")] == [
        None,
        WRONG_PATIENT,
        None,
    ]
    assert remembered == []
    assert [guard.refusal("4711"), guard.refusal("4711")] == [None, None]
    assert len(remembered) == 1


# -- listeners ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("hl7:2575", "127.0.0.1", 2575),
        ("hl7:localhost:0", "127.0.0.1", 0),
        ("hl7:[::1]:2575", "::1", 2575),
        ("hl7:127.0.0.2:1", "127.0.0.2", 1),
    ],
)
def test_where_a_listener_binds(url: str, host: str, port: int) -> None:
    assert listen_at(parse(url), ListenerSettings()) == Listening(host, port, None, ())


@pytest.mark.parametrize(
    ("url", "settings", "reason"),
    [
        ("hl7:", {}, "write hl7:PORT"),
        ("hl7:ward:2575", {}, "write hl7:PORT"),
        ("hl7:70000", {}, "write hl7:PORT"),
        ("hl7:-1", {}, "write hl7:PORT"),
        ("hl7:0.0.0.0:2575", {}, "needs TLS"),
        ("hl7:10.1.2.3:2575", {"allow": ["10.1.2.0/24"]}, "needs TLS"),
        ("hl7:2575", {"allow": ["ward"]}, "no address and no network"),
        ("hl7:2575", {"cert_file": "c.pem"}, "go together"),
        ("hl7:2575", {"client_ca_file": "c.pem"}, "needs TLS"),
        (
            "hl7:2575",
            {"cert_file": "/nowhere", "key_file": "/nowhere"},
            r"cert_file: /nowhere cannot be read \(No such file or directory\); check the path",
        ),
        (
            "hl7:2575",
            {"cert_file": "/dev/null", "key_file": "/dev/null", "client_ca_file": "/nowhere"},
            "client_ca_file: /nowhere cannot be read",
        ),
    ],
)
def test_what_is_unsafe_is_refused_in_one_line(url: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(SourceError, match=reason) as caught:
        listen_at(parse(url), ListenerSettings(**settings))
    assert "\n" not in str(caught.value)


def test_who_may_connect() -> None:
    listening = Listening("10.1.2.1", 1, ssl.create_default_context(), (ip_network("10.1.2.0/24"),))
    assert listening.refusal(("10.1.2.3", 5)) is None
    assert listening.refusal(("::ffff:10.1.2.3", 5, 0, 0)) is None
    assert (
        listening.refusal(("10.1.3.3", 5)) == "10.1.3.3 is not on the list of those who may connect (allow)"
    )
    assert "an unknown peer" in str(listening.refusal(None))
    assert Listening("127.0.0.1", 1, None, ()).refusal(("127.0.0.1", 9)) is None


def test_whoever_tries_for_hours_does_not_fill_the_card(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals("hl7:2575")
    for _ in range(5000):
        refusals.tell("10.1.3.3 is not on the list of those who may connect (allow)")
    assert [message.split(" was refused")[0] for message in caplog.messages] == [
        f"hl7:2575: connection {count}" for count in (1, 10, 100, 1000)
    ]


# -- settings ----------------------------------------------------------------------------------------------


class Settings(ListenerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    every: float = 30.0
    strict: bool = False


def test_options_and_table_become_the_settings_of_a_source() -> None:
    url = parse("x:1?every=5&strict=true&allow=10.0.0.1,10.0.0.0/8", {"cert_file": "c"})
    assert url.settings(Settings) == Settings(
        every=5.0, strict=True, allow=["10.0.0.1", "10.0.0.0/8"], cert_file="c"
    )


@pytest.mark.parametrize(
    ("text", "table", "reason"),
    [
        ("x:1?speed=5", {}, "no option 'speed'.*it has cert_file"),
        ("x:1", {"colour": "red"}, "no option 'colour'"),
        ("x:1?every=soon", {}, r"\?every=soon': option every: a number is wanted, 'soon' was given$"),
        ("x:1", {"strict": "perhaps"}, "option strict: true or false is wanted, 'perhaps' was given"),
        ("x:1?every=5", {"every": 6}, "every is given twice, in the URL and in the table; keep one"),
        ("x:1?every=5&every=6", {}, "every is given twice; keep one of them"),
        ("x:1", {"allow": 5}, "allow"),
    ],
)
def test_an_option_that_cannot_be_is_named(text: str, table: dict[str, Any], reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        parse(text, table).settings(Settings)


# -- what cannot be true -----------------------------------------------------------------------------------


def test_a_reading_from_the_future_is_refused() -> None:
    clock = WallClock(lambda: NOW)
    assert ahead(Reading(observed_at=NOW + AHEAD), clock) is None
    late = ahead(Reading(observed_at=NOW + timedelta(hours=1)), clock)
    assert late is not None
    assert late.line() == (
        "source: observed_at: its time lies 3600 s in the future; "
        "set the clock of the sensor, or the source's zone"
    )


def test_the_agent_takes_several_sources_and_refuses_the_future(
    run_agent: Any, tmp_path: Path, wait: Any
) -> None:
    grows = tmp_path / "grows.csv"
    grows.write_text("observed_at,heart_rate\n")
    agent = run_agent("mqtt://127.0.0.1:1", "--source", f"csv:{grows}?follow=1").ready()
    agent.feed(Reading(observed_at=datetime.now(UTC), spo2=97.0))
    with grows.open("a") as file:
        file.write(f"{datetime.now(UTC).isoformat()},72\n")
        file.write(f"{(datetime.now(UTC) + timedelta(hours=2)).isoformat()},180\n")
        file.flush()
        os.fsync(file.fileno())
    view = wait(
        lambda: (
            (found := agent.view())
            and sum(one["readings"] for one in found["sources"]) == 3
            and sum(sign["state"] == "valid" for sign in found["signs"]) == 2
            and found
        ),
        "one value of each source",
    )
    values = {sign["field"]: sign["value"] for sign in view["signs"] if sign["state"] == "valid"}
    assert values == {"heart_rate": 72.0, "spo2": 97.0}
    wait(lambda: "a value in 'observed_at' was rejected" in agent.log, "the future is refused")
    agent.stop()


def test_a_published_recording_carries_its_consent_and_an_invented_patient_none(
    broker: Any, peer: Any, run_agent: Any, device: str, tmp_path: Path
) -> None:
    agent = run_agent(broker.url, source="sim:?scenario=well&speed=600").ready()
    assert peer.wait(device, "config").data.consent_to_training is False
    agent.stop()
    peer.forget()
    file = tmp_path / "7.csv"
    file.write_text("observed_at,heart_rate\n2026-01-01T00:00:00Z,80\n2026-01-02T00:01:00Z,80\n")
    agent = run_agent(broker.url, source=f"replay:{file}").ready()
    assert peer.wait(device, "config").data.consent_to_training is True
    agent.stop()


def test_a_sender_writes_nothing_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    intake = Intake(together(Hand()), lambda: None)
    for file, row, column in (
        ("fhir:8080 Observation.x\nERROR Jane Doe 4711", 0, "heart_rate"),
        ("monitors.csv", 7, "Jane Doe 4711"),
        ("monitors.csv", 8, "Jane Doe 4712"),
        ("hl7:2575 OBX 3", 0, ""),
    ):
        intake.reject(Rejection(file, row, column, "61.5", "61.5 is not plausible", "measure again"))
    said = "was rejected as implausible or unreadable; further ones are counted"
    assert caplog.messages == [
        f"fhir:8080: a value in 'heart_rate' {said}",
        f"monitors.csv: a value in 'row' {said}",
    ]
    assert intake.rejected == {"heart_rate": 1, "row": 3}, "nor does it fill the memory with names of columns"


def test_the_log_says_whose_a_message_was_and_where_there_is_no_signal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake(together(Hand()), lambda: None)
    for sentence in (WRONG_PATIENT, WRONG_PATIENT, NO_PATIENT):
        reason, _, remedy = sentence.partition("; ")
        intake.reject(Rejection("hl7:2575 PID-3 4711", 0, "", "4711", reason, remedy))
    intake.reject(
        Rejection("ble", 0, "spo2", "", "the probe is off: 61.5", "put it on again", kind="no_signal")
    )
    assert caplog.messages == [
        f"hl7:2575: {WRONG_PATIENT}; nothing of it was taken; further ones are counted",
        f"hl7:2575: {NO_PATIENT}; nothing of it was taken; further ones are counted",
        "ble: there was no signal for 'spo2'; further ones are counted",
    ]
    assert sorted(intake.rejected.values()) == [1, 1, 2]


def test_what_a_sensor_measures_whose_clock_is_a_little_ahead_is_not_missing_in_between() -> None:
    bedside = Bedside(1.0)
    agent = bedside.agent
    bedside.do(lambda: agent.close_admission(keep=False))
    bedside.do(lambda: agent.open_admission(Record(id="ahead")))
    assert agent.admission is not None
    given = Reading(observed_at=agent.source.clock.now() + timedelta(seconds=30), heart_rate=135.0, spo2=97.0)
    bedside.do(lambda: agent.intake.take(given))
    judged = agent.admission.latest
    assert judged is not None
    assert (judged.news2.low, judged.snapshot.present()) == (3, ("heart_rate", "spo2"))
    bedside.do(agent.admission.age)
    assert agent.admission.latest is judged, "nothing has changed"
    assert bedside.do(
        lambda: agent.admission.correct(  # type: ignore[union-attr]
            "spo2", None, None, by="N. Kim", reason="probe off", corrected_at=NOW, tolerance=timedelta(0)
        )
    )
    assert (agent.admission.latest.news2.low, agent.admission.latest.snapshot.present()) == (
        3,
        ("heart_rate",),
    )
    bedside.close()
