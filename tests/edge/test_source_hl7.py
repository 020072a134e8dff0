"""HL7 v2 over MLLP: real senders (python-hl7, hl7apy) against a listening source; bad messages; any bytes."""

import asyncio
import contextlib
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import hl7
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hl7.client import MLLPClient
from hl7apy.core import Message
from hl7apy.parser import parse_message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.sources import SourceError, hl7v2, open_source, parse
from samd_edge.sources.surroundings import PatientGuard, Surroundings
from samd_edge.store import read_readings

# python-hl7 makes the acknowledgements, and takes the time for them from what Python 3.12 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
WAIT_S = 20.0

HEART_RATE = "OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.1|80|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||F"
SPO2 = "OBX|2|NM|59408-5^Oxygen saturation^LN||97|%^^UCUM|||||F"


class Listener:
    """A source in a loop of its own; what comes out of it is in ``items``."""

    def __init__(self, url: str, around: Surroundings, table: dict[str, Any]) -> None:
        self.source: Any = open_source(parse(url, table), around=around)
        self.items: list[Reading | Rejection] = []
        self.taking = threading.Event()
        self.taking.set()
        self._failed: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._thread.start()
        assert self._started.wait(WAIT_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._consume())
        except BaseException as error:  # noqa: BLE001  (told by stop)
            self._failed = error

    async def _consume(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started.set()
        async for item in self.source:
            await asyncio.to_thread(self.taking.wait)
            self.items.append(item)

    @property
    def port(self) -> int:
        return int(self.source.port)

    @property
    def readings(self) -> list[Reading]:
        return [item for item in self.items if isinstance(item, Reading)]

    @property
    def rejections(self) -> list[Rejection]:
        return [item for item in self.items if isinstance(item, Rejection)]

    def send(self, message: str | bytes, encoding: str = "utf-8") -> hl7.Message:
        """By python-hl7's client, on a connection of its own."""
        data = message if isinstance(message, bytes) else message.encode(encoding)
        with MLLPClient("127.0.0.1", self.port) as client:
            return answer_of(client.send_message(data))

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self.source.aclose(), self._loop).result(WAIT_S)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        if self._failed is not None:
            raise self._failed


@pytest.fixture
def serve() -> Iterator[Callable[..., Listener]]:
    started: list[Listener] = []

    def start(url: str = "hl7:0", *, patient: PatientGuard | None = None, **table: Any) -> Listener:
        around = Surroundings(wall=lambda: NOW, patient=patient or PatientGuard())
        started.append(Listener(url, around, table))
        return started[-1]

    yield start
    for listener in started:
        listener.stop()


@pytest.fixture
def listener(serve: Callable[..., Listener]) -> Listener:
    return serve()


def answer_of(data: bytes) -> hl7.Message:
    assert data.startswith(b"\x0b")
    assert data.endswith(b"\x1c\r")
    return hl7.parse(data[1:-2])


def oru(
    *segments: str,
    control_id: str = "4711",
    patient: str | None = "PID|||10006^^^WARD^MR||DOE^JANE",
    observed: str = "20260302115900+0000",
    kind: str = "ORU^R01^ORU_R01",
    header: str = "P|2.6",
) -> str:
    """A message like that of a bedside monitor; times of OBR-7."""
    first = rf"MSH|^~\&|MONITOR|ICU|SAMD|BED-01|20260302120000+0000||{kind}|{control_id}|{header}"
    order = f"OBR|1|||182777000^monitoring of patient^SCT|||{observed}"
    return "\r".join(segment for segment in (first, patient, order, *segments) if segment) + "\r"


def obx(code: str, value: str, unit: str = "", *, kind: str = "NM", rest: str = "|||||F") -> str:
    return f"OBX|1|{kind}|{code}||{value}|{unit}{rest}"


# --- what real senders send --------------------------------------------------------------------------------

MONITOR = oru(
    "OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X",
    "OBX|2||69798^MDC_DEV_ECG_VMD^MDC|1.1.0.0|||||||X",
    "OBX|3|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.1|118|264864^MDC_DIM_BEAT_PER_MIN^MDC|50-120||||R",
    "OBX|4|NM|149530^MDC_PULS_OXIM_PULS_RATE^MDC|1.2.1.1|117|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||R",
    "OBX|5|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC|1.2.1.2|93|262688^MDC_DIM_PERCENT^MDC^%^%^UCUM|||||R",
    "OBX|6|NM|151578^MDC_TTHOR_RESP_RATE^MDC|1.3.1.1|24|264928^MDC_DIM_RESP_PER_MIN^MDC|||||R",
    "OBX|7|NM|150021^MDC_PRESS_BLD_NONINV_SYS^MDC|1.4.1.1|96|266016^MDC_DIM_MMHG^MDC|||||F|||20260302114500+0000",
    "OBX|8|NM|150022^MDC_PRESS_BLD_NONINV_DIA^MDC|1.4.1.2|58|266016^MDC_DIM_MMHG^MDC|||||F|||20260302114500+0000",
    "OBX|9|NM|150023^MDC_PRESS_BLD_NONINV_MEAN^MDC|1.4.1.3|71|266016^MDC_DIM_MMHG^MDC|||||F|||20260302114500+0000",
    "OBX|10|NM|150392^MDC_TEMP_TYMP^MDC|1.5.1.1|101.3|266560^MDC_DIM_FAHR^MDC|||||F|||20260302113000.500+0000",
    "OBX|11|NA|131330^MDC_ECG_ELEC_POTL_II^MDC|1.1.1.9|" + "^".join(["12"] * 2000) + "|266418^mV^MDC|||||R",
    header="P|2.6|||NE|AL||UNICODE UTF-8|||IHE_PCD_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO",
)


def test_a_monitors_message_is_taken_each_value_at_its_own_time(listener: Listener) -> None:
    ack = listener.send(MONITOR)
    assert (str(ack["MSA.F1"]), str(ack["MSA.F2"])) == ("AA", "4711")
    assert str(ack["MSH.F9"]) == "ACK"
    assert str(ack.segment("MSH")(9)) == "ACK^R01^ACK"
    assert (str(ack["MSH.F3"]), str(ack["MSH.F5"])) == ("SAMD", "MONITOR")
    assert ack["MSA.F3"] == ""
    assert listener.items == [
        Reading(observed_at=datetime(2026, 3, 2, 11, 30, 0, 500000, tzinfo=UTC), temperature=38.5),
        Reading(observed_at=datetime(2026, 3, 2, 11, 45, tzinfo=UTC), systolic_bp=96, diastolic_bp=58),
        Reading(
            observed_at=datetime(2026, 3, 2, 11, 59, tzinfo=UTC),
            heart_rate=118,
            respiratory_rate=24,
            spo2=93,
        ),
    ]


def test_loinc_codes_consciousness_and_oxygen(listener: Listener) -> None:
    ack = listener.send(
        oru(
            obx("8867-4^Heart rate^LN", "72", "/min"),
            obx("HR^local name^99X^8889-8^^LN", "73", "/min"),  # in the alternate triplet, and of lower rank
            obx("9279-1^^LN", "^16", "{breaths}/min", kind="SN"),
            obx("8480-6^^LN", "16.0", "kPa"),
            obx("8462-4^^LN", "10", "kPa"),
            obx("80288-4^^LN", "248234008^Mentally alert^SCT", kind="CWE"),
            obx("3151-8^^LN", "2", "L/min"),
            obx("8310-5^^LN", " 37.0 ", "Cel", kind="ST"),
            obx("2345-7^Glucose^LN", "5.4", "mmol/L"),
        )
    )
    assert str(ack["MSA.F1"]) == "AA"
    assert listener.items == [
        Reading(
            observed_at=datetime(2026, 3, 2, 11, 59, tzinfo=UTC),
            heart_rate=72,
            respiratory_rate=16,
            systolic_bp=120.009869,
            diastolic_bp=75.006168,
            temperature=37,
            supplemental_oxygen=True,
            consciousness="A",
        )
    ]


def test_hl7apy_builds_a_message_and_finds_the_answer_valid(listener: Listener) -> None:
    message = Message("ORU_R01", version="2.5.1")
    message.msh.msh_3, message.msh.msh_9 = "HL7APY", "ORU^R01^ORU_R01"
    message.msh.msh_10, message.msh.msh_11 = "abc-1", "P"
    group = message.add_group("ORU_R01_PATIENT_RESULT")
    group.add_group("ORU_R01_PATIENT").add_segment("PID").pid_3 = "10006^^^WARD^MR"
    order = group.add_group("ORU_R01_ORDER_OBSERVATION")
    obr = order.add_segment("OBR")
    obr.obr_4, obr.obr_7 = "29274-8^Vital signs^LN", "20260302115900+0000"
    for number, (code, value, unit) in enumerate(
        [("8867-4^Heart rate^LN", "88", "/min"), ("59408-5^^LN", "120", "%")], start=1
    ):
        segment = order.add_group("ORU_R01_OBSERVATION").add_segment("OBX")
        segment.obx_1, segment.obx_2, segment.obx_3 = str(number), "NM", code
        segment.obx_5, segment.obx_6, segment.obx_11 = value, unit, "F"
    with socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as connection:
        connection.sendall(message.to_mllp().encode())
        answer = connection.recv(65536)
    ack = parse_message(answer[1:-2].decode(), find_groups=False)
    assert ack.validate()
    assert (ack.msa.msa_1.value, ack.msa.msa_2.value) == ("AA", "abc-1")
    assert ack.err.err_2.value == "OBX^2^5"
    assert ack.err.err_8.value.startswith("spo2: 120 is outside 30 to 100 %")
    assert [reading.present() for reading in listener.readings] == [("heart_rate",)]
    assert [(rejection.column, rejection.value) for rejection in listener.rejections] == [("spo2", "120")]


def test_the_command_of_python_hl7_sends_a_file(listener: Listener, tmp_path: Path) -> None:
    file = tmp_path / "day.hl7"
    messages = [oru(HEART_RATE, observed=f"2026030211{minute:02}00+0000") for minute in range(30)]
    file.write_text("".join(messages).replace("\r", "\r\n"), newline="")
    command = [sys.executable, "-W", "ignore", "-m", "hl7.client", "--loose", "--file", str(file)]
    sent = subprocess.run(
        [*command, "--port", str(listener.port), "127.0.0.1"], check=True, capture_output=True, timeout=WAIT_S
    )
    assert sent.stdout.count(b"MSA|AA|4711") == 30
    assert [reading.observed_at.minute for reading in listener.readings] == list(range(30))


def test_parallel_connections_each_in_their_order(listener: Listener) -> None:
    def sender(number: int) -> list[str]:
        with MLLPClient("127.0.0.1", listener.port) as client:
            return [
                str(answer_of(client.send_message(message.encode()))["MSA.F2"])
                for message in (
                    oru(
                        obx("8867-4^^LN", str(60 + number), "/min"),
                        control_id=f"{number}-{second}",
                        observed=f"202603021158{second:02}+0000",
                    )
                    for second in range(20)
                )
            ]

    with ThreadPoolExecutor(8) as pool:
        echoed = list(pool.map(sender, range(8)))
    assert echoed == [[f"{number}-{second}" for second in range(20)] for number in range(8)]
    for number in range(8):
        mine = [reading for reading in listener.readings if reading.heart_rate == 60 + number]
        assert [reading.observed_at.second for reading in mine] == list(range(20))


def test_the_answer_comes_only_after_the_readings_were_taken(listener: Listener) -> None:
    listener.taking.clear()
    with MLLPClient("127.0.0.1", listener.port) as client:
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.send_message(oru(HEART_RATE).encode())
        assert listener.items == []
        listener.taking.set()
        client.socket.settimeout(WAIT_S)
        assert b"MSA|AA|4711" in client.socket.recv(4096)
    assert [reading.heart_rate for reading in listener.readings] == [80]


@pytest.mark.parametrize(
    ("mode", "good", "bad"),
    [
        ("|||", "AA", "AE"),
        ("|||NE|AL", "AA", "AE"),
        ("|||AL|AL", "AA", "AE"),
        ("|||AL|NE", "CA", "CE"),
        ("|||NE|ER", None, "AE"),
        ("|||ER|NE", None, "CE"),
        ("|||NE|SU", "AA", None),
        ("|||NE|NE", None, None),
    ],
)
def test_the_sender_says_which_answers_it_wants(
    listener: Listener, mode: str, good: str | None, bad: str | None
) -> None:
    expected = [(code, control) for code, control in ((good, "1"), (bad, "2"), ("AA", "3")) if code]
    with socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as connection:
        for control, segment, header in (
            ("1", HEART_RATE, f"P|2.6{mode}"),
            ("2", obx("8867-4^^LN", "0"), f"P|2.6{mode}"),
            ("3", HEART_RATE, "P|2.6"),
        ):
            message = oru(segment, control_id=control, header=header)
            connection.sendall(b"\x0b" + message.encode() + b"\x1c\r")
        answers = read_answers(connection, len(expected))
    assert [(str(ack["MSA.F1"]), str(ack["MSA.F2"])) for ack in answers] == expected


def read_answers(connection: socket.socket, count: int) -> list[hl7.Message]:
    data = b""
    while data.count(b"\x1c\r") < count:
        got = connection.recv(65536)
        assert got, f"the connection was closed after {data!r}"
        data += got
    return [answer_of(part + b"\x1c\r") for part in data.split(b"\x1c\r")[:-1]]


# --- encodings, separators, escapes ------------------------------------------------------------------------


def test_separators_and_escapes_of_the_sender(listener: Listener) -> None:
    message = (
        "MSH#*~!$#MON#ICU#SAMD#BED#20260302120000+0000##ORU*R01*ORU_R01#id!F!1#P#2.5\r"
        "PID###10006*****\r"
        "OBR#1######20260302115900+0000\r"
        "OBX#1#NM#8867-4*Heart !T!rate*LN##!X37!2#/min#####F\r"
        "OBX#2#ST#8310-5**LN##!H!37.5!N!#!X43!el#####F\r"
    )
    with MLLPClient("127.0.0.1", listener.port) as client:
        answer = client.send_message(message.encode())
    assert b"MSA#AA#id!F!1\r" in answer
    assert [(r.heart_rate, r.temperature) for r in listener.readings] == [(72.0, 37.5)]


@pytest.mark.parametrize(
    ("declared", "encoding", "options"),
    [
        ("8859/1", "latin-1", ""),
        ("UNICODE UTF-8", "utf-8", ""),
        ("", "utf-8", ""),
        ("", "latin-1", "?encoding=iso-8859-1"),
        ("GB 18030-2000", "gb18030", ""),
    ],
)
def test_character_sets(serve: Callable[..., Listener], declared: str, encoding: str, options: str) -> None:
    listener = serve(f"hl7:0{options}")
    header = f"P|2.6||||||{declared}"
    ack = listener.send(
        oru(HEART_RATE, obx("8310-5^Température^LN", "37.0", "°C"), header=header), encoding=encoding
    )
    assert str(ack["MSA.F1"]) == "AA"
    assert listener.readings[0].temperature == 37.0


def test_times_without_an_offset_are_of_the_sources_zone(serve: Callable[..., Listener]) -> None:
    listener = serve("hl7:0?zone=Europe/Berlin")
    assert str(listener.send(oru(HEART_RATE, observed="20260302125900"))["MSA.F1"]) == "AA"
    assert str(listener.send(oru(HEART_RATE, observed="202603021258-0030"))["MSA.F1"]) == "AE"
    assert str(listener.send(oru(HEART_RATE, observed="202603021058-0030"))["MSA.F1"]) == "AA"
    assert [reading.observed_at for reading in listener.readings] == [
        datetime(2026, 3, 2, 11, 59, tzinfo=UTC),
        datetime(2026, 3, 2, 11, 28, tzinfo=UTC),
    ]


# --- one patient -------------------------------------------------------------------------------------------


def test_another_patient_is_refused(listener: Listener) -> None:
    assert str(listener.send(oru(HEART_RATE))["MSA.F1"]) == "AA"
    ack = listener.send(oru(HEART_RATE, SPO2, patient="PID|||20002^^^WARD^MR"))
    assert str(ack["MSA.F1"]) == "AE"
    assert str(ack.segment("ERR")(2)) == "PID^1^3"
    assert str(ack["MSA.F3"]).startswith("another patient than the one this device belongs to")
    assert [rejection.column for rejection in listener.rejections] == [""]
    assert str(listener.send(oru(HEART_RATE, patient=None))["MSA.F1"]) == "AA"  # a channel that names nobody
    assert len(listener.readings) == 2


def test_two_patients_in_one_message_are_refused(listener: Listener) -> None:
    two = oru(HEART_RATE, "PID|||20002^^^WARD^MR", "OBR|1||||||20260302115900+0000", SPO2)
    ack = listener.send(two)
    assert (str(ack["MSA.F1"]), str(ack["MSA.F3"]).split(";")[0]) == (
        "AE",
        "the message is of more than one patient",
    )
    assert listener.readings == []
    assert str(listener.send(oru(HEART_RATE, patient="PID|||20002^^^WARD^MR"))["MSA.F1"]) == "AA"


def test_the_record_number_goes_before_other_identifiers(listener: Listener) -> None:
    for identifiers in ("A1^^^X^AN~10006^^^W^MR", "10006^^^W^MR~B2^^^X^AN", "10006"):
        assert str(listener.send(oru(HEART_RATE, patient=f"PID|||{identifiers}"))["MSA.F1"]) == "AA"


def test_without_an_admission_nothing_is_taken(serve: Callable[..., Listener]) -> None:
    guard = PatientGuard()
    guard.discharge()
    listener = serve(patient=guard)
    ack = listener.send(oru(HEART_RATE))
    assert str(ack["MSA.F1"]) == "AE"
    assert str(ack["MSA.F3"]) == "no patient is admitted on this device; admit one first"
    assert listener.readings == []


def test_an_agent_keeps_what_it_acknowledged_and_stays_with_its_patient(
    run_agent: Callable[..., Any], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def send(*messages: str) -> list[str]:
        with MLLPClient("127.0.0.1", port) as client:
            return [str(answer_of(client.send_message(message.encode()))["MSA.F1"]) for message in messages]

    times = [f"{datetime.now(UTC) - timedelta(minutes=minutes):%Y%m%d%H%M%S}+0000" for minutes in (3, 2, 1)]
    agent = run_agent("mqtt://127.0.0.1:1", source=f"hl7:{port}").ready()
    assert send(oru(HEART_RATE, SPO2, observed=times[0]), oru(HEART_RATE, observed=times[1])) == ["AA", "AA"]
    agent.kill()
    agent = run_agent("mqtt://127.0.0.1:1", source=f"hl7:{port}").ready()
    stranger = oru(HEART_RATE, observed=times[2], patient="PID|||20002^^^WARD^MR")
    repeated = oru(HEART_RATE, observed=times[1])
    assert send(stranger, repeated, oru(SPO2, observed=times[2])) == ["AE", "AA", "AA"]
    assert agent.stop() == 0
    (store,) = tmp_path.glob("device/admissions/*/store.sqlite")
    with contextlib.closing(sqlite3.connect(store)) as database:
        assert database.execute("SELECT count(*) FROM readings").fetchone() == (3,)
    assert "10006" not in agent.log
    assert "20002" not in agent.log


def test_an_agent_strikes_what_a_sender_takes_back(
    run_agent: Callable[..., Any], broker: Any, peer: Any, device: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def send(minutes: int, *segments: str) -> str:
        observed = f"{now - timedelta(minutes=minutes):%Y%m%d%H%M%S}+0000"
        with MLLPClient("127.0.0.1", port) as client:
            answer = answer_of(client.send_message(oru(*segments, observed=observed).encode()))
        return f"{answer['MSA.F1']} {answer['MSA.F3']}".strip()

    def pressure(value: str, status: str) -> str:
        return f"OBX|3|NM|8480-6^^LN||{value}|mm[Hg]|||||{status}"

    def points() -> dict[str, int]:
        found = agent.view()
        return {} if found is None or found["news2"] is None else dict(found["news2"]["points"])

    now = datetime.now(UTC)
    agent = run_agent(broker.url, source=f"hl7:{port}").ready()
    assert send(9, HEART_RATE, SPO2, pressure("121.5", "F")) == "AA"
    rapid = HEART_RATE.replace("|80|", "|118|")
    assert send(2, rapid, pressure("61.5", "F")) == "AA"
    raised = peer.wait(device, "alert").data
    assert (raised.state, raised.news2_low) == ("raised", 5)
    assert send(2, pressure("61.5", "W")) == "AA", "marked as wrong"
    cleared = peer.wait(device, "alert", lambda data: data.state == "cleared").data
    assert (cleared.alert_id, cleared.news2_low) == (raised.alert_id, 2)
    assert points() == {"heart_rate": 2, "spo2": 0, "systolic_bp": 0}, "the pressure before it counts again"
    assert send(2, rapid, pressure("61.5", "F")) == "AA"
    assert send(2, pressure("61.5", "W")) == "AA"
    assert points() == {"heart_rate": 2, "spo2": 0, "systolic_bp": 0}, "sent again it stays struck"
    assert send(2, rapid.replace("|118|", "|88.5|")[:-1] + "C") == "AA", "corrected"
    assert points() == {"heart_rate": 0, "spo2": 0, "systolic_bp": 0}
    assert send(7, pressure("61.5", "D")) == "AA", "nothing was taken then"
    assert peer.wait(device, "heartbeat", lambda data: data.rejected == 1), "and it is told"
    assert f"hl7:{port}: what it took back, or corrected, was never taken" in agent.log
    assert agent.stop() == 0
    store = agent.data_dir / "admissions" / "local" / "store.sqlite"
    with contextlib.closing(sqlite3.connect(store)) as database:
        kept = database.execute("SELECT field, by, reason FROM corrections ORDER BY id").fetchall()
        assert database.execute("SELECT COUNT(*) FROM readings").fetchone() == (3,), "nothing is removed"
    by = f"hl7:{port}"
    assert kept == [
        ("systolic_bp", by, "the sender marks the value as wrong"),
        ("heart_rate", by, "the sender corrects the value"),
    ]
    assert [one.systolic_bp for one in read_readings(store)] == [121.5, None, None]
    assert [one.heart_rate for one in read_readings(store)] == [80.0, None, 88.5]
    for value in ("61.5", "88.5", "121.5", "10006"):
        assert value not in agent.log


# --- what is no message -----------------------------------------------------------------------------------


def test_bytes_of_another_character_set_are_refused(listener: Listener) -> None:
    ack = listener.send(oru(HEART_RATE).replace("JANE", "JÄNE"), encoding="latin-1")
    assert str(ack["MSA.F1"]) == "AE"
    assert "is not in the character set utf-8; say in MSH-18 which one it is in" in str(ack["MSA.F3"])
    assert listener.readings == []


def test_what_is_no_message_gets_no_answer_and_the_connection_stays(listener: Listener) -> None:
    with MLLPClient("127.0.0.1", listener.port) as client:
        for junk in (
            b"",
            b"hello",
            b"MSH",
            b"MSH||||",
            b"MSH|^^^^|",
            b"BHS|^~\\&|x",
            b"\xff\xfe",
        ):
            client.socket.sendall(b"\x0b" + junk + b"\x1c\r")
        client.socket.sendall(b"no frame at all\x1c\r")
        client.socket.sendall(
            b"\r\n stray bytes \x0bMSH|half a mess\x0b" + oru(HEART_RATE).encode() + b"\x1c"
        )
        (ack,) = read_answers(client.socket, 1)
    assert str(ack["MSA.F1"]) == "AA"
    assert [reading.heart_rate for reading in listener.readings] == [80]
    assert {rejection.line() for rejection in listener.rejections} == {
        f"hl7:{listener.port}: a frame holds no HL7 version 2 message; begin it with MSH and the separators",
        f"hl7:{listener.port}: bytes came outside of a frame; send MLLP: VT, the message, FS, CR",
    }


def test_an_acknowledgement_is_not_acknowledged(listener: Listener) -> None:
    with MLLPClient("127.0.0.1", listener.port) as client:
        client.socket.sendall(b"\x0b" + oru(kind="ACK^R01^ACK").encode() + b"\x1c\r")
        assert b"MSA|AA|4711" in client.send_message(oru(HEART_RATE).encode())
    assert len(listener.items) == 1


# --- peers that misbehave, TLS -----------------------------------------------------------------------------


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_a_peer_that_stalls_within_a_message_is_cut_off(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, wait: Callable[..., Any]
) -> None:
    monkeypatch.setattr(hl7v2, "STALL_S", 0.1)
    with (
        socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as silent,
        socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as stalled,
    ):
        stalled.sendall(b"\x0bMSH|^~")
        assert closed(stalled)
        wait(lambda: listener.rejections, "the rejection")
        assert [rejection.reason for rejection in listener.rejections] == [
            "a message, or its answer, took longer than 0.1 s"
        ]
        silent.sendall(b"\x0b" + oru(HEART_RATE).encode() + b"\x1c\r")  # between messages silence is allowed
        assert b"MSA|AA" in silent.recv(4096)


def test_a_message_that_is_too_long_ends_the_connection(listener: Listener, wait: Callable[..., Any]) -> None:
    with (
        socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as connection,
        contextlib.suppress(ConnectionError),
    ):
        for _ in range(40):
            connection.sendall(b"\x0b" + b"x" * 100_000)
        assert closed(connection)
    wait(lambda: listener.rejections, "the rejection")
    assert [rejection.reason for rejection in listener.rejections] == [
        "a message is longer than 1048576 bytes"
    ]


def test_a_web_page_cannot_send_readings_by_a_form(listener: Listener, wait: Callable[..., Any]) -> None:
    frame = b"\x0b" + oru(HEART_RATE).encode() + b"\x1c\r"
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: {len(frame)}"
    with socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + frame)
        assert closed(connection)
    wait(lambda: listener.rejections, "a rejection")
    assert listener.rejections[0].reason == "an HTTP request came"
    assert str(listener.send(oru(SPO2))["MSA.F1"]) == "AA"
    assert [reading.present() for reading in listener.readings] == [("spo2",)]


def test_a_message_that_breaks_off_is_told(listener: Listener, wait: Callable[..., Any]) -> None:
    with socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as connection:
        connection.sendall(b"\x0b" + oru(HEART_RATE).encode())
    wait(lambda: listener.rejections, "the rejection")
    assert [rejection.reason for rejection in listener.rejections] == ["a message broke off"]
    assert listener.readings == []


def test_at_most_sixteen_peers(listener: Listener, wait: Callable[..., Any]) -> None:
    peers = [socket.create_connection(("127.0.0.1", listener.port), WAIT_S) for _ in range(17)]
    try:
        assert closed(peers[16])
        peers[0].close()
        wait(lambda: len(listener.source._peers) == 15, "a free place")
        assert str(listener.send(oru(HEART_RATE))["MSA.F1"]) == "AA"
    finally:
        for peer in peers:
            peer.close()


class Certificate:
    """A certificate for 127.0.0.1, signed by itself, for an hour."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "listener")])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        self.cert_file, self.key_file = folder / "listener.crt", folder / "listener.key"
        self.cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self.key_file.touch(0o600)
        self.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    @property
    def table(self) -> dict[str, str]:
        return {"cert_file": str(self.cert_file), "key_file": str(self.key_file)}


def test_tls_with_a_list_of_peers(serve: Callable[..., Listener], tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    listener = serve("hl7:0.0.0.0:0", **certificate.table, allow=["127.0.0.1"])
    context = ssl.create_default_context(cafile=str(certificate.cert_file))
    with (
        socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(b"\x0b" + oru(HEART_RATE).encode() + b"\x1c\r")
        assert b"MSA|AA|4711" in secured.recv(4096)
    with socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as plain:
        plain.sendall(b"\x0b" + oru(HEART_RATE).encode() + b"\x1c\r")
        assert b"MSA" not in plain.recv(4096)
    assert len(listener.readings) == 1


def test_a_peer_that_is_not_on_the_list_is_turned_away(
    serve: Callable[..., Listener], tmp_path: Path
) -> None:
    certificate = Certificate(tmp_path)
    listener = serve("hl7:127.0.0.1:0", **certificate.table, allow=["10.1.2.0/24"])
    context = ssl.create_default_context(cafile=str(certificate.cert_file))
    answer = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(b"\x0b" + oru(HEART_RATE).encode() + b"\x1c\r")
        answer = secured.recv(4096)
    assert (answer, listener.items) == (b"", [])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("hl7:", "write hl7:PORT or hl7:ADDRESS:PORT"),
        ("hl7:0.0.0.0:0", "beyond 127.0.0.1 a listener needs TLS"),
        ("hl7:0?zone=Middle/Earth", "no time zone 'Middle/Earth' is known"),
        ("hl7:0?encoding=utf-16", "encoding: 'utf-16' cannot be used"),
        ("hl7:0?encoding=utf-7", "encoding: 'utf-7' cannot be used"),
        ("hl7:0?encoding=rot13", "encoding: 'rot13' cannot be used"),
        ("hl7:0?encoding=nonsense", "encoding: 'nonsense' cannot be used"),
        ("hl7:0?speed=2", "no option 'speed' in 'hl7'; it has"),
    ],
)
def test_what_cannot_be_opened_says_why(url: str, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(url)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SourceError, match=f"port {port} on 127.0.0.1 cannot be listened on"):
            open_source(f"hl7:{port}")


def test_closing_ends_the_iteration_and_the_connections(serve: Callable[..., Listener]) -> None:
    listener = serve()
    with socket.create_connection(("127.0.0.1", listener.port), WAIT_S) as connection:
        connection.sendall(b"\x0b" + oru(HEART_RATE).encode() + b"\x1c\r")
        assert b"MSA|AA" in connection.recv(4096)
        listener.stop()
        assert closed(connection)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda frame: b"\x0b" + frame)))
def test_after_any_bytes_the_next_message_is_answered(listener: Listener, data: bytes) -> None:
    with MLLPClient("127.0.0.1", listener.port) as client:
        client.socket.sendall(data + b"\x1c\r")
        answer = client.send_message(oru(HEART_RATE).encode())
        while b"MSA|AA|4711" not in answer:  # what looks like a message was answered before
            got = client.socket.recv(4096)
            assert got
            answer += got
