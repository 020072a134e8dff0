"""``fhir:PORT``: what FHIR clients that are not ours post, answered once it was taken; strangers kept out."""

import asyncio
import contextlib
import datetime as dt
import gc
import ipaddress
import json
import logging
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fhirclient.models.bundle import Bundle
from fhirclient.models.capabilitystatement import CapabilityStatement
from fhirclient.models.observation import Observation
from fhirclient.models.operationoutcome import OperationOutcome
from fhirclient.server import FHIRServer

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.sources import SourceError, fhir, fhir_http, open_source
from samd_edge.sources.surroundings import NO_PATIENT, WRONG_PATIENT, Surroundings
from samd_edge.store import read_readings

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WORD = "what-this-device-was-told"


def observation(value: float = 80, patient: str = "17", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2026-01-01T12:00:00Z",
        "valueQuantity": {
            "value": value,
            "unit": "/min",
            "system": "http://unitsofmeasure.org",
            "code": "/min",
        },
        **more,
    }


def batch(*resources: dict[str, Any]) -> dict[str, Any]:
    entries = [{"resource": one, "request": {"method": "POST", "url": "Observation"}} for one in resources]
    return {"resourceType": "Bundle", "type": "batch", "entry": entries}


class Listening:
    """A listener whose readings are taken as soon as ``open_gate`` allows it."""

    def __init__(self, source: fhir.FhirListener) -> None:
        self.source = source
        self.items: list[Reading | Rejection] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = f"http://127.0.0.1:{source.port}"

    async def take(self) -> None:
        async for item in self.source:
            self.items.append(item)
            await self.gate.wait()

    async def post(
        self, content: Any, path: str = "/Observation", kind: str = "application/fhir+json", **more: Any
    ) -> httpx.Response:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = {"content-type": kind, **more.pop("headers", {})}
            return await client.post(f"{self.url}{path}", content=data, headers=headers, **more)


@asynccontextmanager
async def listening(options: str = "", around: Surroundings | None = None) -> AsyncIterator[Listening]:
    source = open_source(f"fhir:0{options}", around=around or Surroundings(wall=lambda: NOON))
    assert isinstance(source, fhir.FhirListener)
    found = Listening(source)
    task = asyncio.create_task(found.take())
    try:
        yield found
    finally:
        found.gate.set()
        await source.aclose()
        await task


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


async def until(check: Callable[[], bool]) -> None:
    while not check():  # noqa: ASYNC110  (what is awaited knows of no event)
        await asyncio.sleep(0.005)


def outcome_of(response: httpx.Response) -> OperationOutcome:
    """As fhirclient reads it, strictly."""
    assert response.headers["content-type"] == "application/fhir+json"
    return OperationOutcome(response.json())


def test_fhirclient_creates_an_observation_and_a_bundle() -> None:
    async def test() -> None:
        async with listening() as here:
            server = FHIRServer(None, here.url)
            answered = await asyncio.to_thread(Observation(observation()).create, server)
            assert OperationOutcome(answered).issue[0].code == "informational"
            assert here.items == [Reading(observed_at=NOON, heart_rate=80.0)]
            content = batch(
                observation(effectiveDateTime="2026-01-01T11:00:00Z"), observation(0), observation(81)
            )
            answered = await asyncio.to_thread(Bundle(content).create, server)
            response = Bundle(answered)
            assert response.type == "batch-response"
            assert [entry.response.status for entry in response.entry] == [
                "201 Created",
                "422 Unprocessable Entity",
                "201 Created",
            ]
            issue = response.entry[1].response.outcome.issue[0]
            assert (issue.code, issue.expression) == ("value", ["Bundle.entry[1].resource.valueQuantity"])
            statement = await asyncio.to_thread(CapabilityStatement.read_from, "metadata", server)
            assert statement.fhirVersion == "4.0.1"
            assert statement.rest[0].resource[0].type == "Observation"

    run(test)


def test_curl_posts_what_a_monitor_would() -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")

    async def test() -> None:
        async with listening() as here:
            process = await asyncio.create_subprocess_exec(
                *(curl, "--silent", "--show-error", "--write-out", "%{http_code}", "--output", "/dev/null"),
                *("--header", "content-type: application/fhir+json", "--header", "expect: 100-continue"),
                *("--data-binary", "@-", f"{here.url}/"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            out, _ = await process.communicate(json.dumps(batch(observation(72))).encode())
            assert out == b"200"
            assert here.items == [Reading(observed_at=NOON, heart_rate=72.0)]

    run(test)


def test_it_is_answered_only_after_the_reading_was_taken() -> None:
    async def test() -> None:
        async with listening() as here:
            here.gate.clear()
            answer = asyncio.create_task(here.post(observation()))
            await until(lambda: len(here.items) == 1)
            await asyncio.sleep(0.05)
            assert not answer.done()
            here.gate.set()
            assert (await answer).status_code == 201

    run(test)


@pytest.mark.parametrize(
    ("content", "path", "kind", "status", "code", "expression"),
    [
        (observation(0), "/Observation", "application/fhir+json", 422, "value", "Observation.valueQuantity"),
        (observation(colour=1), "/Observation", "application/json", 400, "structure", "Observation.colour"),
        ({"resourceType": "Patient"}, "/Observation", "application/json", 400, "invalid", "resourceType"),
        (b"{", "/Bundle", "application/json", 400, "structure", None),
        (b"[" * 100_000, "/Bundle", "application/json", 400, "structure", None),
        (b'{"a": NaN}', "/", "application/json", 400, "structure", None),
        (b"\xff", "/", "application/fhir+json; charset=utf-8", 400, "structure", None),
        (b" " * (1 << 20) + b"{}", "/", "application/json", 413, "too-long", None),
        (batch(*[{}] * 10_000), "/", "application/json", 413, "too-costly", "Bundle.entry"),
        (observation(), "/Observation", "application/fhir+xml", 415, "not-supported", None),
        (observation(), "/Observation", "application/json; charset=latin-1", 415, "not-supported", None),
        (observation(), "/Observation", "", 415, "not-supported", None),
        (observation(), "/Patient", "application/json", 404, "not-supported", None),
        (batch(observation(), observation(patient="18")), "/", "application/json", 422, "business-rule", ...),
    ],
)
def test_what_is_refused_is_told_to_both_sides(
    content: Any, path: str, kind: str, status: int, code: str, expression: Any
) -> None:
    async def test() -> None:
        async with listening() as here:
            response = await here.post(content, path, kind)
            issue = outcome_of(response).issue[0]
            assert (response.status_code, issue.code) == (status, code)
            if expression is not ...:
                assert issue.expression == (None if expression is None else [expression])
            assert "; " in issue.diagnostics, "a reason and what to do"
            if status != 404:
                await until(lambda: len(here.items) == 1)
                assert isinstance(here.items[0], Rejection)
                assert here.items[0].file.startswith(f"fhir:{here.source.port}")

    run(test)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 201),
        ("LOCALHOST:8080", 201),
        ("127.0.0.1:1", 201),
        ("127.1.2.3", 201),
        ("[::1]:8080", 201),
        ("evil.example:8080", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("10.1.2.3", 421),
    ],
)
def test_a_page_whose_name_was_made_to_point_here_is_refused(host: str, status: int, tmp_path: Path) -> None:
    async def test() -> None:
        async with listening() as here:
            assert (await here.post(observation(), headers={"host": host})).status_code == status
            assert len([one for one in here.items if isinstance(one, Reading)]) == (status == 201)
        async with listening(f"?token_file={secret(tmp_path)}") as here:
            known = {"host": host, "authorization": f"Bearer {WORD}"}
            assert (await here.post(observation(), headers=known)).status_code == 201

    run(test)


def test_a_body_without_a_length_is_bounded_too() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    async def test() -> None:
        async with listening() as here, httpx.AsyncClient(trust_env=False) as client:
            headers = {"content-type": "application/json"}
            response = await client.post(f"{here.url}/", content=chunks(), headers=headers)
            assert response.status_code == 413

    run(test)


def test_the_device_belongs_to_one_patient() -> None:
    async def test() -> None:
        around = Surroundings(wall=lambda: NOON)
        async with listening(around=around) as here:
            assert (await here.post(observation())).status_code == 201
            for content, path in (
                (observation(patient="18"), "/Observation"),
                (batch(observation(0, "18")), "/"),
            ):
                response = await here.post(content, path)
                assert response.status_code == 409
                assert outcome_of(response).issue[0].diagnostics == WRONG_PATIENT
            around.patient.discharge()
            response = await here.post(observation())
            assert (response.status_code, outcome_of(response).issue[0].diagnostics) == (409, NO_PATIENT)
            around.patient.admit(key="next")
            assert (await here.post(observation(70, "18"))).status_code == 201
            assert [type(item) for item in here.items] == [Reading, Rejection, Rejection, Rejection, Reading]
            assert all(item.value == "" for item in here.items if isinstance(item, Rejection))

    run(test)


def test_a_discharge_in_the_middle_of_a_bundle_ends_it() -> None:
    async def test() -> None:
        around = Surroundings(wall=lambda: NOON)
        async with listening(around=around) as here:
            here.gate.clear()
            content = batch(observation(effectiveDateTime="2026-01-01T11:00:00Z"), observation(81))
            answer = asyncio.create_task(here.post(content, "/"))
            await until(lambda: len(here.items) == 1)
            around.patient.discharge()
            here.gate.set()
            assert (await answer).status_code == 409
            assert [type(item) for item in here.items] == [Reading, Rejection]

    run(test)


def secret(folder: Path, mode: int = 0o600) -> Path:
    file = folder / "token"
    file.write_text(f"{WORD}\n")
    file.chmod(mode)
    return file


def test_with_a_token_only_who_has_it_is_heard(tmp_path: Path) -> None:
    async def test() -> None:
        async with listening(f"?token_file={secret(tmp_path)}") as here:
            for headers in ({}, {"authorization": "Bearer x"}, {"authorization": f"Basic {WORD}"}):
                response = await here.post(observation(), headers=headers)
                assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
                assert outcome_of(response).issue[0].code == "login"
            response = await here.post(observation(), headers={"authorization": f"Bearer {WORD}"})
            assert response.status_code == 201
            assert [type(item) for item in here.items] == [Rejection, Reading], "told once"

    run(test)


def test_a_token_that_others_can_read_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="chmod 600"):
        open_source(f"fhir:0?token_file={secret(tmp_path, 0o644)}")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("fhir:0.0.0.0:0", "needs TLS"),
        ("fhir:", "write fhir:PORT"),
        ("fhir:70000", "write fhir:PORT"),
        ("fhir:0?colour=red", "no option 'colour'"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_line(url: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        open_source(url)


def test_a_port_in_use_is_told_at_once() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SourceError, match="choose another port"),
    ):
        open_source(f"fhir:{taken.getsockname()[1]}")


def test_a_peer_that_is_not_allowed_is_closed_whatever_it_says_of_itself() -> None:
    async def test() -> None:
        async with listening("?allow=10.1.2.0/24") as here:
            for headers in ({}, {"x-forwarded-for": "10.1.2.3", "forwarded": "for=10.1.2.3"}):
                with pytest.raises(httpx.TransportError):
                    await here.post(observation(), headers=headers)
            assert here.items == []

    run(test)


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bed")])
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = dt.datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.touch(0o600)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


def test_with_tls_it_speaks_nothing_else(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)

    async def test() -> None:
        async with listening(f"?cert_file={cert}&key_file={key}&allow=127.0.0.1") as here:
            with pytest.raises(httpx.TransportError):
                await here.post(observation())
            here.url = here.url.replace("http:", "https:")
            context = ssl.create_default_context(cafile=cert)
            async with httpx.AsyncClient(verify=context, trust_env=False) as client:
                headers = {"content-type": "application/json"}
                response = await client.post(f"{here.url}/", json=batch(observation()), headers=headers)
            assert response.status_code == 200
            assert here.items == [Reading(observed_at=NOON, heart_rate=80.0)]

    run(test)


def test_a_poller_verifies_whom_it_asks(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)

    async def first(url: str) -> Rejection:
        source = open_source(url)
        async for item in source:
            await source.aclose()
            assert isinstance(item, Rejection)
            return item
        raise AssertionError("nothing came")

    async def test() -> None:
        async with listening(f"?cert_file={cert}&key_file={key}&allow=127.0.0.1") as here:
            url = f"fhir+poll:https://127.0.0.1:{here.source.port}?patient=17"
            assert (await first(url)).reason == "the server's certificate is not trusted"
            assert (await first(f"{url}&ca_file={cert}")).reason == "the server answers 405"

    run(test)


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\n", b"GET /metadata HTTP/1.1\r\nhost: x\r\n\r\n"])
def test_a_connection_that_sends_no_whole_request_is_closed(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fhir_http, "IDLE_S", 0.2)

    async def test() -> None:
        async with listening() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.source.port)
            writer.write(sent)
            ended = asyncio.create_task(reader.read())
            while not ended.done():  # in drops: that does not begin the time anew
                writer.write(b"x" if sent else b"")
                await asyncio.sleep(0.05)
            writer.close()

    run(test)


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_http, "BODY_S", 0.1)

    async def test() -> None:
        async with listening() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.source.port)
            head = (
                "POST / HTTP/1.1",
                "host: localhost",
                "content-type: application/json",
                "content-length: 99",
            )
            writer.write("\r\n".join((*head, "", "{")).encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
            writer.close()

    run(test)


def test_too_many_connections_are_turned_away_and_the_rest_is_served() -> None:
    async def test() -> None:
        async with listening() as here:
            writers = [
                (await asyncio.open_connection("127.0.0.1", here.source.port))[1]
                for _ in range(fhir_http.MAX_CONNECTIONS)
            ]
            assert (await here.post(observation())).status_code == 503
            for writer in writers:
                writer.close()
            statuses = [503]
            while statuses[-1] == 503:
                statuses.append((await here.post(observation())).status_code)
            assert statuses[-1] == 201

    run(test)


def test_what_waits_too_long_or_too_much_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir, "TAKEN_S", 0.1)
    monkeypatch.setattr(fhir, "WAITING", 2)

    async def test() -> None:
        async with listening() as here:
            here.gate.clear()
            answers = await asyncio.gather(*(here.post(observation()) for _ in range(6)))
            assert {answer.status_code for answer in answers} == {503}
            assert {answer.headers["retry-after"] for answer in answers} == {"5"}
            assert {outcome_of(answer).issue[0].code for answer in answers} == {"throttled"}
            here.gate.set()
            await until(here.source._waiting.empty)
            assert (await here.post(observation())).status_code == 201

    run(test)


def test_answers_are_sent_at_once() -> None:
    """Not 40 ms later, when the client's system acknowledges the first packet of the answer."""

    async def test() -> None:
        async with listening() as here, httpx.AsyncClient(trust_env=False) as client:
            took = []
            for _ in range(10):
                begun = asyncio.get_running_loop().time()
                assert (await client.get(f"{here.url}/metadata")).status_code == 200
                took.append(asyncio.get_running_loop().time() - begun)
            assert min(took) < 0.03

    run(test)


def test_on_ipv6_too() -> None:
    async def test() -> None:
        source = open_source("fhir:[::1]:0", around=Surroundings(wall=lambda: NOON))
        assert isinstance(source, fhir.FhirListener)
        here = Listening(source)
        here.url = f"http://[::1]:{source.port}"
        task = asyncio.create_task(here.take())
        assert (await here.post(observation())).status_code == 201
        await source.aclose()
        await task

    run(test)


def test_closing_answers_who_waits_and_lets_go_of_everything() -> None:
    async def test() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        async with listening() as here:
            await here.post(observation())
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
            here.gate.clear()
            answers = [asyncio.create_task(here.post(observation())) for _ in range(3)]
            await until(lambda: len(here.items) == 2)
            await here.source.aclose()
            assert {(await answer).status_code for answer in answers} == {503}
            socket.create_server(("127.0.0.1", here.source.port)).close()
        assert len(asyncio.all_tasks()) == 1

    run(test)


def test_it_can_be_closed_before_it_was_used() -> None:
    source = open_source("fhir:0")
    asyncio.run(source.aclose())
    del source
    gc.collect()


def test_the_log_holds_no_sign_and_no_patient(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with listening() as here:
            for content in (
                observation(71.25, "4711"),
                observation(712.5, "4711"),
                observation(71.25, "4712"),
                b"{71.25",
            ):
                await here.post(content)
            await here.post(observation(71.25, "4711"), "/Patient/4711")

    caplog.set_level(logging.DEBUG)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    run(test)
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    for record in ours:
        assert not any(word in record.getMessage() for word in ("71.25", "712.5", "4711", "4712")), record


def test_an_agent_assesses_what_is_posted(
    run_agent: Callable[..., Any], broker: Any, peer: Any, device: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    agent = run_agent(broker.url, source=f"fhir:{port}").ready()
    now = datetime.now(UTC)
    content = batch(observation(135, effectiveDateTime=now.isoformat()))
    answer = httpx.post(f"http://127.0.0.1:{port}/", json=content, trust_env=False)
    assert answer.json()["entry"][0]["response"]["status"] == "201 Created"
    said = peer.wait(device, "assessment", lambda data: data.news2.points == {"heart_rate": 3})
    assert said.data.observed_at == now
    other = batch(observation(60, "18", effectiveDateTime=now.isoformat()))
    assert httpx.post(f"http://127.0.0.1:{port}/", json=other, trust_env=False).status_code == 409
    assert agent.stop() == 0
    assert "Traceback" not in agent.log


def test_an_agent_strikes_what_a_client_takes_back(
    run_agent: Callable[..., Any], broker: Any, peer: Any, device: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def post(value: float, seconds_ago: float, **more: Any) -> int:
        content = observation(
            value, effectiveDateTime=(now - timedelta(seconds=seconds_ago)).isoformat(), **more
        )
        url = f"http://127.0.0.1:{port}/Observation"
        return httpx.post(url, json=content, trust_env=False).status_code

    def points() -> dict[str, int]:
        found = agent.view()
        return {} if found is None or found["news2"] is None else dict(found["news2"]["points"])

    now = datetime.now(UTC)
    agent = run_agent(broker.url, source=f"fhir:{port}").ready()
    assert post(88.5, 600, id="first") == 201
    assert post(135.5, 60, id="second") == 201
    assert points() == {"heart_rate": 3}
    assert post(115.5, 900, id="second", status="corrected") == 201
    assert points() == {"heart_rate": 0}, "it was measured before the first one"
    assert post(135.5, 60, id="second") == 201
    assert points() == {"heart_rate": 0}, "sent again it stays struck"
    assert post(88.5, 600, id="first", status="entered-in-error") == 201
    assert points() == {"heart_rate": 2}
    assert post(115.5, 900, status="entered-in-error") == 201
    assert points() == {}, "found by its time, and nothing is known any more"
    assert post(70.5, 30, status="entered-in-error") == 201
    assert peer.wait(device, "heartbeat", lambda data: data.rejected == 1), "what was never taken is told"
    assert post(72.5, 20) == 201
    assert points() == {"heart_rate": 0}
    assert agent.stop() == 0
    store = agent.data_dir / "admissions" / "local" / "store.sqlite"
    with contextlib.closing(sqlite3.connect(store)) as database:
        kept = database.execute("SELECT field, by, reason FROM corrections ORDER BY id").fetchall()
        assert database.execute("SELECT COUNT(*) FROM readings").fetchone() == (4,), "nothing is removed"
    assert kept == [
        ("heart_rate", f"fhir:{port}", reason)
        for reason in (
            "the sender corrects it",
            "the sender marks it as entered in error",
            "the sender marks it as entered in error",
        )
    ]
    assert [one.heart_rate for one in read_readings(store)] == [None, None, None, 72.5]
    for value in ("88.5", "135.5", "115.5", "70.5"):
        assert value not in agent.log
