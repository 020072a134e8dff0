"""What comes to a device under any input; and, one by one, what fuzzing has found."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samd_data.reading import FIELDS, Reading
from samd_edge import config, orders
from samd_edge.commands import Refused
from samd_edge.sources import SourceError, parse
from samd_edge.sources.fhir_message import decode
from samd_edge.sources.listening import ListenerSettings, listen_at
from samd_protocol.messages import ObservationAdd
from samd_scripts.fuzzing import ble, control, fhir, hl7v2, intake, monitors, options, settings
from samd_scripts.fuzzing.bedside import Bedside
from samd_scripts.fuzzing.strategies import hold
from samd_scripts.fuzzing.target import Target, Wrong

EDGE = [
    target
    for module in (settings, options, control, intake, monitors, hl7v2, fhir, ble)
    for target in module.TARGETS
]  # fmt: skip


@pytest.mark.parametrize("target", EDGE, ids=lambda target: target.name)
def test_no_input_breaks_the_decoder(target: Target) -> None:
    hold(target)


def unconverted(_field: str, value: float, _unit: str | None) -> float:
    return value


@pytest.mark.parametrize(
    ("target", "place", "fault"),
    [
        ("mqtt-json-written", "samd_edge.sources.json_fields.in_unit", unconverted),
        ("hl7-written", "samd_edge.sources.hl7_values.in_unit", unconverted),
        ("fhir-written", "samd_edge.sources.fhir_values.in_unit", unconverted),
        ("ble-written", "samd_edge.sources.ble_decoders.in_unit", unconverted),
        ("mqtt-json-written", "samd_edge.sources.json_fields._age", lambda *_: 0.0),
        ("hl7-written", "samd_edge.sources.hl7_values._check_status", lambda _status: None),
        ("hl7-written", "samd_edge.sources.hl7_values.AHEAD", timedelta(days=1)),
        ("fhir-written", "samd_edge.sources.fhir_observations._check_meaning", lambda *_: None),
        ("ble-written", "samd_edge.sources.ble_decoders._PLX_SENSOR", {}),
        ("ble-written", "samd_edge.sources.ble_dating.AHEAD", timedelta(days=1)),
        ("control", "samd_edge.control.printable", str),
        ("intake-written", "samd_edge.admission.Admission._judge_again", lambda *_: None),
        ("intake-written", "samd_data.carry.CARRY_SECONDS", dict.fromkeys(FIELDS, 1e9)),
        ("config-written", "samd_edge.config._check_keys", lambda *_: None),
        ("source-url", "samd_edge.sources.parse_qsl", lambda *_, **__: []),
    ],
)
def test_a_fault_that_is_planted_is_found(
    target: str, place: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks themselves are checked: each of these decoders is broken in one place."""
    monkeypatch.setattr(place, fault)
    with pytest.raises(Wrong):
        hold(next(one for one in EDGE if one.name == target), examples=1000, smallest=False)


@pytest.fixture(scope="module")
def bed() -> Any:
    """A whole agent that plays a recording at 600 times its pace."""
    bed = Bedside(600.0)
    yield bed
    bed.close()


@pytest.mark.parametrize(
    "text", ["device = " + "[" * 5000, "min_rows = " + "9" * 5000], ids=["too deep", "too long"]
)
def test_a_configuration_that_the_parser_chokes_on_is_no_toml(tmp_path: Path, text: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    with pytest.raises(config.ConfigError, match=r"agent\.toml: is no TOML"):
        config.load(file, {})


def test_an_unknown_key_is_told_on_one_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('"a\\n\\u001b[2J" = 1\n')
    with pytest.raises(config.ConfigError, match=r"unknown key a\\n\\x1b\[2J; known are") as caught:
        config.load(file, {})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["a?b:1", "\x1b[2J:2575", " :1", "hl 7:1", "é:1"])
def test_a_kind_of_source_is_a_plain_word(text: str) -> None:
    with pytest.raises(SourceError, match="write replay:PATH") as caught:
        parse(text)
    assert str(caught.value).isprintable()


def test_the_loopback_address_of_some_interface_is_not_this_machine() -> None:
    url = parse("hl7:::1%eth0:2575")
    with pytest.raises(SourceError, match="needs TLS"):
        listen_at(url, ListenerSettings())
    assert listen_at(parse("hl7:::1:2575"), ListenerSettings()).host == "::1"


@pytest.mark.parametrize(
    "line", [b'{"ask": "\xff"}', b'{"ask": "do", "body": {"type": "\xff"}}', b'{"\\n": 1}']
)
def test_every_line_on_the_socket_is_answered(bed: Bedside, line: bytes) -> None:
    bed.fresh()
    answer = msgspec.json.decode(bed.agent.control.answer(line))
    assert answer["ok"] is False
    assert answer["error"].startswith("this is no request (")
    assert answer["error"].isprintable()


@pytest.mark.parametrize("table", [{}, {"fields": {"observed_at": "observed_at", "spo2": "spo2"}}])
@pytest.mark.parametrize("more", ["", ', "x": {"a": 1, "a": 2}', ', "sp\\u006f2": 80'])
def test_of_two_values_under_one_key_neither_is_taken(table: dict[str, Any], more: str) -> None:
    text = '{"observed_at": "2026-03-01T08:00:00Z", "spo2": 97%s}'
    readings, rejections = monitors.items(table, (text % more).encode())
    assert [reading.spo2 for reading in readings] == ([] if more else [97.0])
    assert [rejection.reason.partition(", ")[0] for rejection in rejections] == (
        [f"the key {'a' if 'x' in more else 'spo2'!r} stands twice"] if more else []
    )


def test_a_name_that_fhir_does_not_have_is_told_short() -> None:
    at = "2026-03-01T08:00:00Z"
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    content = {"resourceType": "Observation", "status": "final", "code": code, "effectiveDateTime": at}
    decoded = decode(content | {"y" * 5000: 1}, name="fhir:8080", now=datetime(2026, 3, 1, 8, tzinfo=UTC))
    (rejection,) = decoded.rejections
    assert rejection.file == f"fhir:8080 Observation.{'y' * 40}"


@pytest.mark.parametrize("order", ["OBR|2||||||", "OBR|2", "OBR"])
def test_an_order_without_a_time_does_not_borrow_that_of_the_order_before(order: str) -> None:
    head = r"MSH|^~\&|MONITOR|ICU|SAMD|BED-01|20260301080000+0000||ORU^R01|4711|P|2.6"
    pulse = "OBX|1|NM|8867-4^^LN||80|/min|||||F"
    lines = (head, "OBR|1||||||20260301073000+0000", pulse.replace("80", "70"), order, pulse)
    readings, rejections, code = hl7v2.interpreted("\r".join(lines).encode())
    assert [(reading.heart_rate, reading.observed_at.minute) for reading in readings] == [(70.0, 30)]
    assert [rejection.reason for rejection in rejections] == ["there is no time of observation"]
    assert code == "AA"


@pytest.mark.parametrize("year", [1, 1899, 3000, 9999])
def test_a_reading_at_the_ends_of_the_calendar_is_refused(bed: Bedside, year: int) -> None:
    bed.fresh()
    reading = Reading(observed_at=datetime(year, 1, 1, tzinfo=UTC), spo2=97.0, ages={"spo2": 60.0})
    before = dict(bed.agent.intake.rejected)
    assert bed.do(lambda: bed.agent.intake.take(reading)) is False
    assert bed.agent.intake.rejected == before | {"observed_at": before.get("observed_at", 0) + 1}


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_correction_of_a_time_outside_the_calendar_is_refused(bed: Bedside, time: str) -> None:
    bed.fresh()
    correction = {"field": "spo2", "reason": "probe off", "observed_at": time}
    body = msgspec.json.decode(
        msgspec.json.encode({"type": "observation.add", "by": "nurse-7", "correction": correction}),
        type=ObservationAdd,
    )
    with pytest.raises(Refused, match="no value of spo2 was measured then"):
        bed.do(lambda: orders.execute(bed.agent, body))
