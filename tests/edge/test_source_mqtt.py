"""``mqtt:``: what ``mosquitto_pub`` publishes, over the embedded broker and over Mosquitto."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from samd_data.plausibility import Rejection, check
from samd_data.reading import Reading
from samd_edge.sources import SourceError, mqtt, open_source, parse
from samd_edge.sources.mqtt_link import Arrived
from samd_edge.sources.surroundings import WRONG_PATIENT, Surroundings
from samd_protocol.broker import Broker

NOW = datetime(2026, 6, 1, 8, tzinfo=UTC)
STAMP = "2026-06-01T07:59:50Z"


def program(name: str) -> str:
    """A program that is not ours; CI installs it, elsewhere its tests may be skipped."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed; run: apt-get install mosquitto mosquitto-clients")
    if found is None:
        pytest.skip(f"{name} is not installed; run: apt-get install mosquitto mosquitto-clients")
    return found


class Mosquitto:
    """A Mosquitto on a free port, with what is added to its configuration."""

    def __init__(self, folder: Path, port: int, *settings: str) -> None:
        self.port = port
        self._config = folder / "mosquitto.conf"
        lines = (f"listener {port} 127.0.0.1", "persistence false", *(settings or ("allow_anonymous true",)))
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self, wait: Callable[..., Any]) -> "Mosquitto":
        self._process = subprocess.Popen(
            [program("mosquitto"), "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait(self._answers, "Mosquitto to listen")
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)


def publish(url: str, topic: str, *payloads: bytes | str, options: tuple[str, ...] = ("-q", "1")) -> None:
    """One run of mosquitto_pub: several payloads are its lines."""
    data = [payload.encode() if isinstance(payload, str) else payload for payload in payloads]
    port = url.rpartition(":")[2]
    command = [program("mosquitto_pub"), "-V", "mqttv5", "-h", "127.0.0.1", "-p", port, "-t", topic, *options]
    how, text = ("-s" if data[0] else "-n", data[0]) if len(data) == 1 else ("-l", b"\n".join(data) + b"\n")
    subprocess.run([*command, how], input=text, check=True, capture_output=True, timeout=30)


class Ears:
    """Reads a source as the agent does: one item at a time, held before the next while ``hold`` is set."""

    def __init__(self, source: mqtt.MqttSource) -> None:
        self.source = source
        self.items: list[Reading | Rejection] = []
        self.go = asyncio.Event()
        self.go.set()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for item in self.source:
            self.items.append(item)
            await self.go.wait()

    @property
    def readings(self) -> list[Reading]:
        return [item for item in self.items if isinstance(item, Reading)]

    @property
    def rejections(self) -> list[Rejection]:
        return [item for item in self.items if isinstance(item, Rejection)]

    async def close(self) -> None:
        """As the agent ends: the reader is cancelled, then the source closed."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.source.aclose()


async def until(check: Callable[[], Any], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not check():  # noqa: ASYNC110  (what is awaited comes from another process)
            await asyncio.sleep(0.005)


@pytest.fixture
def listening(caplog: pytest.LogCaptureFixture) -> Callable[..., Any]:
    """Open a source and read it: ``async with listening(url, around, table) as ears``."""
    caplog.set_level("INFO", logger="samd_edge.sources.mqtt_link")

    @contextlib.asynccontextmanager
    async def listen(
        url: str, around: Surroundings, table: dict[str, Any] | None = None, *, go: bool = True
    ) -> AsyncIterator[Ears]:
        caplog.clear()
        source = open_source(parse(url, table or {}), around=around)
        assert isinstance(source, mqtt.MqttSource)
        assert list(source.history()) == []
        ears = Ears(source)
        if not go:
            ears.go.clear()
        try:
            await until(lambda: "reading '" in caplog.text)
            yield ears
        finally:
            await ears.close()

    return listen


@pytest.fixture
def mosquitto(tmp_path: Path, wait: Callable[..., Any], free: int) -> Iterator[Mosquitto]:
    process = Mosquitto(tmp_path, free)
    try:
        yield process.start(wait)
    finally:
        process.stop()


@pytest.fixture
def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["embedded", "mosquitto"])
def url(request: pytest.FixtureRequest) -> str:
    """Each of the two brokers in turn."""
    name = {"embedded": "broker", "mosquitto": "mosquitto"}[request.param]
    found: str = request.getfixturevalue(name).url
    return found


def around_of(url: str, device: str | None, **more: Any) -> Surroundings:
    return Surroundings(wall=lambda: NOW, device=device, broker=Broker(url=url), **more)


def vitals(**more: Any) -> str:
    return json.dumps({"ts": STAMP, "vitals": {"hr": 88}, **more})


FIELDS = {"observed_at": "ts", "heart_rate": "vitals.hr"}


# -- a monitor that is not ours ----------------------------------------------------------------------------


def test_a_monitors_own_json_is_read_by_the_mapping(url: str, device: str, listening: Any) -> None:
    table = {
        "fields": {
            "observed_at": {"path": "ts", "format": "ms"},
            "patient": "patient.id",
            "heart_rate": "vitals.hr",
            "respiratory_rate": {"path": "vitals.rr", "no_signal": [-1]},
            "spo2": "signals[1].value",
            "temperature": {"path": "temp.value", "unit": "[degF]", "age": "temp.age"},
            "systolic_bp": {"path": "nibp.sys", "unit_path": "nibp.unit"},
            "diastolic_bp": {"path": "nibp.dia", "unit_path": "nibp.unit"},
            "supplemental_oxygen": {"path": "o2", "values": {"room air": False, "mask": True}},
            "consciousness": {"path": "avpu", "values": {"Alert": "A", "Voice": "V"}},
        }
    }
    message = {
        "ts": int((NOW - timedelta(seconds=10)).timestamp() * 1000),
        "patient": {"id": "4711"},
        "vitals": {"hr": 88, "rr": -1},
        "signals": [{"value": 1}, {"value": 96}],
        "temp": {"value": 100.4, "age": 600},
        "nibp": {"sys": 16, "dia": 10, "unit": "kPa"},
        "o2": "mask",
        "avpu": "Voice",
    }

    async def scene() -> None:
        async with listening(f"mqtt:{device}/#", around_of(url, device), table) as ears:
            await asyncio.to_thread(publish, url, f"{device}/all", json.dumps(message))
            await until(lambda: len(ears.items) == 2)
        rejection, reading = ears.items
        assert isinstance(rejection, Rejection)
        assert (rejection.column, rejection.kind) == ("respiratory_rate", "no_signal")
        assert rejection.line() == (
            f"mqtt:{device}/#:1: respiratory_rate: -1 stands for: nothing was measured; "
            "check the sensor on the patient"
        )
        assert reading == Reading(
            observed_at=NOW - timedelta(seconds=10),
            heart_rate=88,
            spo2=96,
            temperature=38.0,
            systolic_bp=120.009869,
            diastolic_bp=75.006168,
            supplemental_oxygen=True,
            consciousness="V",
            ages={"temperature": 600.0},
        )

    asyncio.run(scene())


def test_without_a_mapping_a_message_is_a_json_line_of_our_own(url: str, device: str, listening: Any) -> None:
    async def scene() -> None:
        async with listening(f"mqtt:{device}", around_of(url, device)) as ears:
            own = {
                "observed_at": STAMP,
                "heart_rate": 90,
                "spo2": 120,
                "model": "X5",
                "ages": {"heart_rate": 5},
            }
            for _ in range(2):
                await asyncio.to_thread(publish, url, device, json.dumps(own, indent=2))
            await until(lambda: len(ears.readings) == 2)
        assert ears.readings[0].heart_rate == 90
        assert ears.readings[0].ages == {"heart_rate": 5.0}
        assert [(item.row, item.column) for item in ears.rejections] == [
            (1, "model"),
            (1, "spo2"),
            (2, "spo2"),
        ]

    asyncio.run(scene())


def test_an_agent_assesses_what_a_monitor_publishes(
    broker: Any, peer: Any, device: str, run_agent: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    agent = run_agent(broker.url, source=f"mqtt:monitors/{device}").ready()
    signs = {"heart_rate": 135, "respiratory_rate": 26, "spo2": 90, "systolic_bp": 88, "temperature": 39.5}

    def assessed() -> bool:
        now = datetime.now(UTC).isoformat()
        publish(broker.url, f"monitors/{device}", json.dumps({"observed_at": now, **signs}))
        return bool(peer.envelopes(device, "assessment"))

    wait(assessed, "an assessment")
    found = peer.wait(device, "assessment")
    assert found.data.severity == 3, "3 points each for five signs but the temperature's 2"
    assert agent.stop() == 0


# -- nothing is lost, nothing is old ------------------------------------------------------------------------


def test_a_reading_that_was_not_committed_is_delivered_again(url: str, device: str, listening: Any) -> None:
    table = {"fields": FIELDS}

    async def scene() -> None:
        around = around_of(url, device)
        async with listening(f"mqtt:{device}", around, table, go=False) as ears:
            await asyncio.to_thread(publish, url, device, vitals())
            await until(lambda: ears.readings)
        async with listening(f"mqtt:{device}", around, table) as again:
            await until(lambda: again.readings)
            assert again.readings[0] == ears.readings[0]
            await asyncio.to_thread(publish, url, device, vitals(vitals={"hr": 91}))
            await until(lambda: len(again.readings) == 2)
        async with listening(f"mqtt:{device}", around, table) as after:
            await asyncio.to_thread(publish, url, device, vitals(vitals={"hr": 92}))
            await until(lambda: after.readings)
        assert [reading.heart_rate for reading in after.readings] == [92], "the others were acknowledged"

    asyncio.run(scene())


def test_what_is_published_while_the_agent_is_away_waits(url: str, device: str, listening: Any) -> None:
    async def scene() -> None:
        around = around_of(url, device)
        async with listening(f"mqtt:{device}", around, {"fields": FIELDS}):
            pass
        await asyncio.to_thread(publish, url, device, vitals())
        async with listening(f"mqtt:{device}", around, {"fields": FIELDS}) as ears:
            await until(lambda: ears.readings)

    asyncio.run(scene())


def test_a_time_of_arrival_is_never_given_to_what_waited(url: str, device: str, listening: Any) -> None:
    table = {"fields": {"heart_rate": "hr"}, "time": "arrival"}

    async def scene() -> None:
        around = around_of(url, device)
        async with listening(f"mqtt:{device}", around, table) as ears:
            await asyncio.to_thread(publish, url, device, '{"hr": 60}')
            await until(lambda: ears.readings)
        assert ears.readings[0] == Reading(observed_at=NOW, heart_rate=60)
        await asyncio.to_thread(publish, url, device, '{"hr": 61}')
        await asyncio.to_thread(publish, url, device, '{"hr": 62}', options=("-q", "1", "-r"))
        async with listening(f"mqtt:{device}", around, table) as later:
            await asyncio.to_thread(publish, url, device, '{"hr": 63}')
            await until(lambda: later.readings)
        assert [reading.heart_rate for reading in later.readings] == [63]
        assert [item.reason for item in later.rejections] == [
            "a retained message without a time of its own may be of any age"
        ]

    asyncio.run(scene())


def test_a_retained_message_is_as_old_as_it_says(url: str, device: str, listening: Any) -> None:
    async def scene() -> None:
        await asyncio.to_thread(publish, url, device, vitals(), options=("-q", "1", "-r"))
        async with listening(f"mqtt:{device}", around_of(url, device), {"fields": FIELDS}) as ears:
            await until(lambda: ears.readings)
        assert ears.readings[0].observed_at == NOW - timedelta(seconds=10)

    asyncio.run(scene())


def test_a_broker_that_comes_late_and_goes_is_waited_for(
    own_broker: Any, device: str, listening: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        source = open_source(
            parse(f"mqtt:{device}", {"fields": FIELDS}), around=around_of(own_broker.url, device)
        )
        assert isinstance(source, mqtt.MqttSource)
        ears = Ears(source)
        await until(lambda: "no broker at" in caplog.text)
        for heart_rate in (70, 71):
            caplog.clear()
            await asyncio.to_thread(own_broker.start)
            await until(lambda: "reading '" in caplog.text)
            await asyncio.to_thread(publish, own_broker.url, device, vitals(vitals={"hr": heart_rate}))
            await until(lambda: heart_rate in [reading.heart_rate for reading in ears.readings])  # noqa: B023
            await asyncio.to_thread(own_broker.stop)
            await until(lambda: "connecting again" in caplog.text)
        await ears.close()

    caplog.set_level("INFO", logger="samd_edge.sources.mqtt_link")
    asyncio.run(scene())


def test_a_flood_pushes_out_the_oldest_and_is_counted(
    url: str, device: str, listening: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "WAITING", 10)
    messages = [vitals(vitals={"hr": 50 + number}) for number in range(100)]

    async def scene() -> None:
        async with listening(f"mqtt:{device}", around_of(url, device), {"fields": FIELDS}, go=False) as ears:
            await asyncio.to_thread(publish, url, device, *messages, options=("-q", "0"))
            await until(lambda: ears.items)
            inbox: Any = ears.source._inbox
            await until(lambda: inbox._items and inbox._items[-1].payload == messages[-1].encode())
            ears.go.set()
            await until(lambda: ears.readings and ears.readings[-1].heart_rate == 149)
        dropped = [int(item.reason.split()[0]) for item in ears.rejections]
        assert sum(dropped) + len(ears.readings) == 100
        assert sum(dropped) >= 89, "one was taken and ten waited"
        assert ears.rejections[0].column == "", "no sign is flagged by it"

    asyncio.run(scene())


# -- what cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "column", "reason"),
    [
        (b"no json", "", "the message is no JSON"),
        (b"", "", "the message is no JSON"),
        (b"\xff\xfe{}", "", "the message is no JSON"),
        (b'{"ts": "\xe9"}', "", "the message is not UTF-8"),
        (b"[1, 2]", "", "the message is no JSON object"),
        (b"72", "", "the message is no JSON object"),
        (b'{"vitals": {"hr": NaN}}', "", "the message is no JSON"),
        (b'{"ts": "x", "vitals": {"hr": 1e999}}', "", "the message is no JSON"),
        (b'{"vitals": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "", "the message is nested too deeply"),
        (b'{"vitals": {"hr": 80}}', "observed_at", "there is no time of observation"),
        (b'{"ts": "2026-06-01T08:00:00", "vitals": {"hr": 80}}', "observed_at", "has no time zone"),
        (b'{"ts": 1780300000, "vitals": {"hr": 80}}', "observed_at", "1780300000 is no time in ISO 8601"),
        (vitals(vitals={"hr": "88 bpm"}).encode(), "heart_rate", "'88 bpm' is not a number"),
        (vitals(vitals={"hr": "88"}).encode(), "heart_rate", "'88' is not a number"),
        (vitals(vitals={"hr": True}).encode(), "heart_rate", "True is not a number"),
        (vitals(vitals={"hr": {"value": 80}}).encode(), "heart_rate", "is not a number"),
        (vitals(vitals={"hr": 0}).encode(), "heart_rate", "0 is outside 15 to 300 /min"),
        (vitals(vitals={"hr": 10**40}).encode(), "heart_rate", "a number of more than 30 digits is outside"),
        (vitals(vitals={"rr": 18}).encode(), "", "nothing that is mapped stands in the message"),
    ],
)
def test_a_message_that_cannot_be_used_says_why_in_one_line(
    broker: Any, device: str, listening: Any, payload: bytes, column: str, reason: str
) -> None:
    async def scene() -> None:
        async with listening(f"mqtt:{device}", around_of(broker.url, None), {"fields": FIELDS}) as ears:
            await asyncio.to_thread(publish, broker.url, device, payload)
            await asyncio.to_thread(publish, broker.url, device, vitals())
            await until(lambda: ears.readings)
        (rejection,) = ears.rejections
        assert (rejection.file, rejection.row, rejection.column) == (f"mqtt:{device}", 1, column)
        assert reason in rejection.reason
        assert len(rejection.line()) < 300
        assert ears.readings[0].heart_rate == 88, "the next message is read"

    asyncio.run(scene())


KEYS = st.sampled_from(["ts", "vitals", "hr", "observed_at", "heart_rate", "spo2", "ages", "consciousness"])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([STAMP, 80, "A"])
)
CONTENT = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS | st.text(), inner))


@given(
    st.binary() | CONTENT.map(lambda content: json.dumps(content).encode()),
    st.sampled_from([{}, {"fields": FIELDS}, {"time": "arrival"}]),
    st.booleans(),
)
@example(b'{"observed_at": "\\ud800", "\\udfff": 1, "heart_rate": "\\ud800"}', {}, False)
@example(b'{"observed_at": "2026-06-01T08:00:00Z"}', {}, False)
@example(b'{"observed_at": "2026-06-01T08:00:00Z", "heart_rate": 1' + b"0" * 400 + b"}", {}, False)
def test_any_payload_gives_readings_in_range_or_reasons(
    payload: bytes, table: dict[str, Any], retained: bool
) -> None:
    source = open_source(parse("mqtt:a", table), around=around_of("mqtt://127.0.0.1:1", "bed"))
    assert isinstance(source, mqtt.MqttSource)
    items = source._items(Arrived(payload, len(payload), retained, NOW, None))
    assert items
    for item in items:
        if isinstance(item, Rejection):
            assert "\n" not in item.line()
        else:
            assert all(check(field, getattr(item, field)) is None for field in item.present())


def test_a_message_of_5_mb_is_not_kept(mosquitto: Mosquitto, device: str, listening: Any) -> None:
    async def scene() -> None:
        around = around_of(mosquitto.url, device)
        async with listening(f"mqtt:{device}", around, {"fields": FIELDS}) as ears:
            await asyncio.to_thread(publish, mosquitto.url, device, b"[" + b"1," * 2_500_000 + b"1]")
            await asyncio.to_thread(publish, mosquitto.url, device, vitals())
            await until(lambda: ears.readings)
        assert ears.rejections[0].reason == "the message has 5000003 bytes; a reading has at most 65536"

    asyncio.run(scene())


def test_two_patients_on_one_channel_are_not_mixed(broker: Any, device: str, listening: Any) -> None:
    table = {"fields": {**FIELDS, "patient": "patient"}}

    async def scene() -> None:
        around = around_of(broker.url, device)
        async with listening(f"mqtt:{device}/+", around, table) as ears:
            for bed, patient in (("1", 4711), ("2", "4712"), ("1", "4711"), ("3", None)):
                message = vitals(patient=patient)
                await asyncio.to_thread(publish, broker.url, f"{device}/{bed}", message)
            await until(lambda: len(ears.items) == 4)
            around.patient.discharge()
            await asyncio.to_thread(publish, broker.url, f"{device}/1", vitals(patient="4711"))
            await until(lambda: len(ears.items) == 5)
        assert [type(item) for item in ears.items] == [Reading, Rejection, Reading, Rejection, Rejection]
        lines = [item.line() for item in ears.rejections]
        assert lines[0] == f"mqtt:{device}/+:2: {WRONG_PATIENT}"
        assert "does not name its patient" in lines[1]
        assert "no patient is admitted" in lines[2]
        assert not any("471" in line for line in lines)

    asyncio.run(scene())


def test_a_broker_with_a_password_and_an_access_list(
    tmp_path: Path, wait: Callable[..., Any], free: int, device: str, listening: Any, caplog: Any
) -> None:
    secret, accounts, rights = tmp_path / "password", tmp_path / "accounts", tmp_path / "rights"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    created = [program("mosquitto_passwd"), "-b", "-c", str(accounts), "bed", "open sesame"]
    subprocess.run(created, check=True, capture_output=True)
    rights.write_text("user bed\ntopic readwrite allowed/#\n")
    for file in (accounts, rights):
        file.chmod(0o644)
    folder = tmp_path
    while folder != folder.parent:  # Mosquitto gives up root before it reads them
        folder.chmod(folder.stat().st_mode | 0o011)
        folder = folder.parent
    mosquitto = Mosquitto(
        tmp_path, free, "allow_anonymous false", f"password_file {accounts}", f"acl_file {rights}"
    ).start(wait)
    account = {"url": mosquitto.url, "username": "bed", "password_file": str(secret)}
    options = ("-q", "1", "-u", "bed", "-P", "open sesame")

    async def told(topic: str, broker: dict[str, str], text: str) -> None:
        around = Surroundings(wall=lambda: NOW, device=device)
        source = open_source(parse(f"mqtt:{topic}", {"fields": FIELDS, "broker": broker}), around=around)
        assert isinstance(source, mqtt.MqttSource)
        ears = Ears(source)
        await until(lambda: text in caplog.text)
        await ears.close()

    async def scene() -> None:
        around = Surroundings(wall=lambda: NOW, device=device)
        table = {"fields": FIELDS, "broker": account}
        async with listening("mqtt:allowed/x", around, table) as ears:
            await asyncio.to_thread(publish, mosquitto.url, "allowed/x", vitals(), options=options)
            await until(lambda: ears.readings)
        await told("allowed/x", {"url": mosquitto.url}, "refuses this device: Not authorized; check its cred")

    try:
        asyncio.run(scene())
    finally:
        mosquitto.stop()
    assert "sesame" not in caplog.text


def test_a_topic_that_is_refused_is_told_and_a_broker_out_of_its_mind_is_survived(
    device: str, listening: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """No broker of ours refuses a subscription or speaks nonsense: this one does both, then reason."""
    message = vitals().encode()
    topic = len(device).to_bytes(2, "big") + device.encode()
    publication = topic + b"\x00" + message
    talks = iter(
        [
            (b"\x90\x04\x00\x01\x00\x87",),  # SUBACK: not authorized
            (b"\x30\x06\x00\x01a\x02\x7e\x00", b"\xff\xff\xff\xff\xff\xff"),  # no property 0x7e; no packet 15
            (b"\x90\x04\x00\x01\x00\x01", b"\x30" + _length(len(publication)) + publication),
        ]
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"\x20\x03\x00\x00\x00")
        await reader.read(4096)
        packets = next(talks, ())
        for packet in packets:
            writer.write(packet)
        await writer.drain()
        if b"\x87" in packets[0]:
            await until(lambda: "refuses the topic" in caplog.text)
        else:
            await reader.read(4096)
        writer.close()

    async def scene() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        source = open_source(parse(f"mqtt:{device}", {"fields": FIELDS}), around=around_of(url, device))
        assert isinstance(source, mqtt.MqttSource)
        ears = Ears(source)
        await until(lambda: ears.readings)
        await ears.close()
        server.close()
        await server.wait_closed()
        assert ears.readings[0].heart_rate == 88
        refused = f"{url} refuses the topic '{device}': Not authorized; check its access list"
        assert refused in [record.getMessage() for record in caplog.records]

    asyncio.run(scene())


def _length(size: int) -> bytes:
    return bytes([size]) if size < 128 else bytes([size % 128 | 128, size // 128])


# -- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "table", "reason"),
    [
        ("mqtt:", {}, "names no topic"),
        ("mqtt:a/b#", {}, "is no topic of MQTT"),
        ("mqtt:a/#/b", {}, "is no topic of MQTT"),
        ("mqtt:a/x+", {}, "is no topic of MQTT"),
        ("mqtt:#", {"one_patient": True}, "begin the topic with a name"),
        ("mqtt:+/vitals", {"one_patient": True}, "begin the topic with a name"),
        ("mqtt:$share/g/a", {}, "begin the topic with a name"),
        ("mqtt:a/#", {}, "may carry several patients"),
        ("mqtt:a/+/b?one_patient=maybe", {}, "one_patient"),
        ("mqtt:a", {"fields": {"heart_rate": "hr"}}, "does not say where the time of observation stands"),
        ("mqtt:a", {"fields": FIELDS, "time": "arrival"}, "not both"),
        ("mqtt:a", {"time": "now"}, "Invalid enum value 'now'"),
        ("mqtt:a", {"fields": {"pulse": "hr"}}, "fields.pulse: no such field; there are heart_rate"),
        ("mqtt:a", {"fields": {"observed_at": "ts"}}, "names no vital sign"),
        ("mqtt:a", {"fields": {**FIELDS, "spo2": "a..b"}}, "fields.spo2: 'a..b' is no path"),
        ("mqtt:a", {"fields": {**FIELDS, "spo2": "a[x]"}}, "fields.spo2: 'a[x]' is no path"),
        (
            "mqtt:a",
            {"fields": {**FIELDS, "spo2": {"paht": "x"}}},
            "fields.spo2: Object contains unknown field",
        ),
        ("mqtt:a", {"broker": {"url": "mqtt://h", "pasword": "x"}}, "no 'pasword' in broker; it has url"),
        ("mqtt:a?broker=http://h", {}, "write mqtt://HOST:PORT"),
        ("mqtt:a?broker=mqtt://u:secret@h", {}, "do not belong into the URL"),
        ("mqtt:a", {"broker": {"url": "mqtt://h", "password_file": "/x"}}, "no user name"),
        ("mqtt:a?qos=2", {}, "no option 'qos' in 'mqtt'"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(text: str, table: dict[str, Any], reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(parse(text, table), around=around_of("mqtt://127.0.0.1:1", "bed"))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_command_without_a_device_needs_a_broker() -> None:
    with pytest.raises(SourceError, match=r"names no broker; add \?broker=mqtt://HOST:PORT"):
        open_source("mqtt:a")
    open_source("mqtt:a?broker=mqtt://127.0.0.1:1")


def test_client_ids_are_stable_and_never_those_of_an_agent_or_another_source() -> None:
    from samd_edge.sources.mqtt_settings import client_id

    one = client_id(parse("mqtt:a", {"fields": FIELDS}), "bed-01")
    assert one == client_id(parse("mqtt:a", {"fields": FIELDS}), "bed-01")
    others = {
        one,
        client_id(parse("mqtt:b", {"fields": FIELDS}), "bed-01"),
        client_id(parse("mqtt:a"), "bed-01"),
        client_id(parse("mqtt:a", {"fields": FIELDS}), "bed-02"),
        client_id(parse("mqtt:a"), None),
        client_id(parse("mqtt:a"), None),
    }
    assert len(others) == 6
    assert all(name.startswith("samd-source-") for name in others), "an agent's begins with samd-edge-"
