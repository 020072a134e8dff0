"""Messages that no good device sends, through a real broker: refused, or kept whole; they stop nothing."""

import json
import sqlite3
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from gateway_peers import Device, Gateway, Peer, assessment, stored, until
from mosquitto_peer import Mosquitto

from samd_gateway.intake import parse
from samd_gateway.printable import plain
from samd_protocol import envelope, topics
from samd_protocol.errors import MessageError
from samd_protocol.messages import Alert, Heartbeat, Result, State, Training

NASTY = "a\x00\x1b[31m\r\nb\x7f\x85\u2028\u202e<script>\u2066c"


def test_five_megabytes_stop_neither_the_queue_nor_their_sender(
    mosquitto: Mosquitto, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(mosquitto.url)
    device = peers(Device(mosquitto.url, name))
    other = peers(Device(mosquitto.url, f"{name}-x"))
    before = device.assess()
    for _ in range(3):
        device.publish(topics.up(name, "assessment"), b"[" * 5_000_000).wait_for_publish(20.0)
        device.publish(topics.up(name, "assessment"), b"[" * 700_000).wait_for_publish(20.0)
    sent = [device.assess().seq for _ in range(150)]  # more than the broker sends ahead of acknowledgements
    last = other.assess()
    until(lambda: (other.name, last.seq) in stored(gateway.data), seconds=20.0)
    until(lambda: (name, sent[-1]) in stored(gateway.data), seconds=20.0)
    assert sorted(seq for device_, seq in stored(gateway.data) if device_ == name) == [before.seq, *sent]
    # the longest never left the broker; the others were refused by their length, and are told
    assert gateway.metric('samd_gateway_dropped_total{reason="size"}') == 3
    assert gateway.device(name)["flagged"].startswith("rubbish: ")
    assert gateway.get("/healthz")["status"] == "ok"


def test_the_embedded_broker_lets_no_five_megabytes_in(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(own_broker)
    vandal = peers(Peer(own_broker, "vandal"))
    device = peers(Device(own_broker, name))
    vandal.publish(topics.up("vandal", "assessment"), b"[" * 5_000_000)
    last = device.assess()
    until(lambda: (name, last.seq) in stored(gateway.data), seconds=20.0)
    assert gateway.device("vandal") is None


def test_messages_from_the_future_are_kept_in_the_order_of_our_clock_and_the_clock_is_told(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(own_broker)
    device = peers(Device(own_broker, name))
    ahead = datetime.now(UTC) + timedelta(days=400)
    sealed = device.sealer.seal(assessment(5, observed_at=ahead))
    device.publish(
        topics.up(name, "assessment"), envelope.encode(msgspec.structs.replace(sealed, sent_at=ahead))
    )
    last = device.assess(2)
    until(lambda: (name, last.seq) in stored(gateway.data))
    assert [seq for _, seq in sorted(stored(gateway.data))] == [sealed.seq, last.seq]
    found = until(lambda: (one := gateway.device(name)) and one["flagged"] and one)
    assert found["flagged"].startswith("clock: ")
    assert 399 * 86_400 < found["clock_offset_s"] < 401 * 86_400
    assert found["assessment"]["news2"]["low"] == 2
    assert found["silent_s"] < 20.0
    assert found["data_age_s"] < 20.0
    device.beat()  # the clock is right now
    until(lambda: gateway.device(name)["flagged"] is None)


def test_an_unknown_version_and_another_name_are_refused_and_told(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(own_broker)
    device, victim = peers(Device(own_broker, name)), peers(Device(own_broker, f"{name}-x"))
    until(lambda: gateway.device(name) and gateway.device(victim.name))
    good = envelope.encode(device.sealer.seal(assessment(6)))
    device.publish(topics.up(name, "assessment"), good.replace(b'"v":1', b'"v":7'))
    stolen = good.replace(f'"device":"{name}"'.encode(), f'"device":"{victim.name}"'.encode())
    device.publish(topics.up(name, "assessment"), stolen)
    last = device.assess(1)
    until(lambda: (name, last.seq) in stored(gateway.data))
    assert stored(gateway.data) == [(name, last.seq)]
    for reason in ("version", "forged"):
        assert gateway.metric(f'samd_gateway_dropped_total{{reason="{reason}"}}') == 1
    assert gateway.device(name)["flagged"].startswith("rubbish: ")
    assert gateway.device(victim.name)["flagged"] is None
    assert gateway.device(victim.name)["assessment"] is None


def texts(value: Any) -> list[str]:
    """Every text and every key in a structure of JSON."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for each in value.values() for text in texts(each))]
    return [text for each in value for text in texts(each)] if isinstance(value, list) else []


def test_control_characters_in_every_text_reach_no_reader_and_no_log(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(own_broker)
    device = peers(Device(own_broker, name))
    until(lambda: gateway.device(name))
    command = gateway.http.post(
        f"/api/devices/{name}/commands", json={"body": {"type": "report"}, "ttl_s": 60}
    ).json()["id"]
    good = assessment(4)
    device.send(
        topics.up(name, "state"),
        State(status="online", boot_id=device.boot_id, connection=1, client_version=NASTY),
        retain=True,
    )
    device.assess(
        news2=msgspec.structs.replace(good.news2, band=NASTY, points={NASTY: 1}, missing=[NASTY]),
        missing=[NASTY],
        stale=[NASTY],
        due=[NASTY],
        signs={NASTY: NASTY},
        artefacts={NASTY: "jump"},
    )
    device.send(topics.up(name, "training"), Training(run=NASTY, round=1, phase="failed", error=NASTY))
    device.send(
        topics.up(name, "result"),
        Result(command=command, status="done", reason=NASTY, detail={NASTY: [NASTY, {"x": NASTY}]}),
    )
    device.send(
        topics.up(name, "alert"),
        Alert(
            alert_id=NASTY,
            state="raised",
            severity=3,
            observed_at=datetime.now(UTC),
            news2_low=7,
            news2_high=7,
        ),
    )
    # in what has to be a name, they are refused
    for field in ("id", "device", "type"):
        sealed = json.loads(envelope.encode(device.sealer.seal(good))) | {field: NASTY}
        device.publish(topics.up(name, "assessment"), json.dumps(sealed).encode())
    boot = State(status="online", boot_id=NASTY, connection=1, client_version="1")
    device.publish(topics.up(name, "state"), envelope.encode(device.sealer.seal(boot)))
    last = device.assess()
    until(lambda: (name, last.seq) in stored(gateway.data))
    result = until(lambda: [each for each in results(gateway, name) if each["status"] == "done"])
    assert "<script>" in result[0]["reason"]  # kept, as the text that it is
    shown = [gateway.get(path) for path in ("/api/devices", f"/api/devices/{name}/results")]
    shown += [gateway.get("/api/alerts", history=True)]
    found = texts(shown)
    assert any("<script>" in text for text in found)
    assert [text for text in found if not text.isprintable()] == []
    kept = [body for body in bodies(gateway) if "script" in body]
    assert len(kept) == 5  # each of the five, whole but for what is no text
    logged = "".join(gateway.process.errors)
    assert "script" not in logged
    assert all(
        character == "\n" or unicodedata.category(character) not in ("Cc", "Cf") for character in logged
    )


def results(gateway: Gateway, name: str) -> list[dict[str, Any]]:
    return gateway.get(f"/api/devices/{name}/results")["results"]


def bodies(gateway: Gateway) -> list[str]:
    with sqlite3.connect(f"file:{gateway.data}/gateway.sqlite3?mode=ro", uri=True) as connection:
        found = [row[0] for row in connection.execute("SELECT body FROM messages")]
    connection.close()
    return found


@pytest.mark.parametrize("field", ["sent_at", "observed_at"])
@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+14:00", "1969-12-31T00:00:00Z", "9999-12-31T23:59:59-14:00"]
)
def test_times_that_no_clock_shows_are_refused(field: str, time: str) -> None:
    sealed = json.loads(envelope.encode(envelope.Sealer("bed-1", 1).seal(assessment())))
    (sealed if field == "sent_at" else sealed["data"])[field] = time
    with pytest.raises(MessageError, match="1970") as refused:
        parse(topics.up("bed-1", "assessment"), json.dumps(sealed).encode(), 1.7e9)
    assert refused.value.reason == "range"


def test_a_certificate_without_end_is_no_bad_time() -> None:
    """RFC 5280: 99991231235959Z is 'no well-defined expiration'."""
    beat = Heartbeat(
        interval_s=10.0, uptime_s=1.0, certificate_expires_at=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    )
    sealed = envelope.Sealer("bed-1", 1).seal(beat)
    assert parse(topics.up("bed-1", "heartbeat"), envelope.encode(sealed), 1.7e9).envelope.data == beat


def test_a_device_must_not_take_the_servers_name() -> None:
    sealed = envelope.Sealer("server", 1).seal(assessment())
    with pytest.raises(MessageError, match="another sender's name"):
        parse("samd/v1/d/server/up/assessment", envelope.encode(sealed), 1.7e9)


def test_text_stays_text_in_any_language() -> None:
    for text in ("맥박 72", "naïve 🩺", "می\u200cخواهم", 'quotes " and \\', "<b>&amp;</b>"):
        assert plain(text) == text
    assert plain(NASTY) == "a��[31m  b����<script>�c"
