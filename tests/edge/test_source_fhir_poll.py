"""``fhir+poll:``: a server with pages, versions, failures and lies; nothing twice, and nothing lost."""

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fhir.resources.R4B.bundle import Bundle
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.retraction import Retraction, Withdrawn
from samd_edge.sources import SourceError, fhir_client, fhir_cursor, fhir_poll, open_source
from samd_edge.sources.codes import field_of
from samd_edge.sources.fhir_client import FhirClient
from samd_edge.sources.fhir_cursor import Cursor
from samd_edge.sources.fhir_poll import CODES, FhirPoll
from samd_edge.sources.surroundings import Surroundings

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW = NOON + timedelta(hours=1)
SIGNS = {"8867-4": "/min", "9279-1": "/min", "59408-5": "%", "8310-5": "Cel"}


class FhirServer:
    """A server that serves real searchsets: versions, times of change, sorted pages; and fails as it is told.

    It knows the parameters that the poller sends; ``fails`` are answers in the place of the next ones.
    """

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}
        self.asked: list[Request] = []
        self.fails: list[Response] = []
        self.page_size = 2
        self.pages = True
        self.sorts = True
        self.next_base: str | None = None
        self.other_patient = False
        self.pages_broken_after: int | None = None
        self.base = ""

    def put(
        self, name: str, code: str, value: float, *, changed: datetime, at: datetime = NOON, **more: Any
    ) -> None:
        version = int(self.resources[name]["meta"]["versionId"]) + 1 if name in self.resources else 1
        self.resources[name] = {
            "resourceType": "Observation",
            "id": name,
            "meta": {"versionId": str(version), "lastUpdated": changed.isoformat()},
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "subject": {"reference": "Patient/17"},
            "effectiveDateTime": at.isoformat(),
            "valueQuantity": {"value": value, "unit": SIGNS[code]},
            **more,
        }

    async def search(self, request: Request) -> Response:
        self.asked.append(request)
        if self.fails:
            return self.fails.pop(0)
        query = request.query_params
        assert query["patient"] == "Patient/17"
        since = datetime.fromisoformat(query["_lastUpdated"].removeprefix("ge"))
        found = [
            one
            for one in self.resources.values()
            if datetime.fromisoformat(one["meta"]["lastUpdated"]) >= since
        ]
        if self.sorts:
            assert query["_sort"] == "_lastUpdated"
            found.sort(key=lambda one: str(one["meta"]["lastUpdated"]))
        if self.other_patient:
            found = [{**one, "subject": {"reference": "Patient/18"}} for one in found]
        tag = f'W/"{hash(json.dumps(found))}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304)
        offset = int(query.get("_offset", 0))
        if self.pages_broken_after is not None and offset >= self.pages_broken_after:
            return Response(status_code=503)
        links = [{"relation": "self", "url": str(request.url)}]
        if self.pages and offset + self.page_size < len(found):
            following = request.url.include_query_params(_offset=offset + self.page_size)
            url = str(following) if self.next_base is None else f"{self.next_base}?{following.query}"
            links.append({"relation": "next", "url": url})
        page = Bundle.model_validate(
            {
                "resourceType": "Bundle",
                "type": "searchset",
                "total": len(found),
                "link": links,
                "entry": [
                    {
                        "fullUrl": f"{self.base}/Observation/{one['id']}",
                        "resource": one,
                        "search": {"mode": "match"},
                    }
                    for one in found[offset : offset + self.page_size]
                ]
                or None,
            }
        )
        return Response(page.model_dump_json(), media_type="application/fhir+json", headers={"etag": tag})


@asynccontextmanager
async def serving(server: FhirServer) -> AsyncIterator[None]:
    app = Starlette(routes=[Route("/r4/Observation", server.search)])
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, log_level="error", lifespan="off", ws="none")
    running = uvicorn.Server(config)
    server.base = f"http://127.0.0.1:{sock.getsockname()[1]}/r4"
    task = asyncio.create_task(running.serve(sockets=[sock]))
    try:
        yield
    finally:
        running.should_exit = True
        await task


class Polling:
    """A poller with short pauses, its items, and how long it meant to pause."""

    def __init__(
        self, server: FhirServer, *, since: datetime = NOON, file: Path | None = None, **client: Any
    ) -> None:
        self.items: list[Reading | Rejection] = []
        self.pauses: list[float] = []
        self.around = Surroundings(wall=lambda: NOW)
        self.cursor = Cursor(since, file)
        self.source = FhirPoll(
            "fhir+poll:here",
            FhirClient(server.base, **client),
            "17",
            self.cursor,
            self.around,
            every_s=30.0,
            pause=self._pause,
        )
        self._go = asyncio.Event()

    async def _pause(self, seconds: float) -> None:
        """Until the next ``poll``."""
        self.pauses.append(seconds)
        await self._go.wait()
        self._go.clear()

    async def take(self) -> None:
        async for item in self.source:
            self.items.append(item)

    async def poll(self) -> list[Reading | Rejection]:
        """One poll; what is new."""
        before, polls = len(self.items), len(self.pauses)
        self._go.set()
        while len(self.pauses) == polls:  # noqa: ASYNC110  (what is awaited knows of no event)
            await asyncio.sleep(0.002)
        return self.items[before:]


@asynccontextmanager
async def polling(server: FhirServer, **options: Any) -> AsyncIterator[Polling]:
    found = Polling(server, **options)
    task = asyncio.create_task(found.take())
    while not found.pauses:  # noqa: ASYNC110  (the first poll)
        await asyncio.sleep(0.002)
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await found.source.aclose()


def run(test: Callable[[FhirServer], Awaitable[None]]) -> None:
    async def bounded() -> None:
        server = FhirServer()
        async with asyncio.timeout(30), serving(server):
            await test(server)

    asyncio.run(bounded())


def values(items: list[Reading | Rejection]) -> list[dict[str, Any]]:
    assert all(isinstance(item, Reading) for item in items), items
    return [
        {name: getattr(item, name) for name in item.present()} for item in items if isinstance(item, Reading)
    ]


def told(items: list[Reading | Rejection]) -> list[str]:
    assert all(isinstance(item, Rejection) for item in items), items
    return [item.line() for item in items if isinstance(item, Rejection)]


def test_each_code_that_is_asked_for_can_be_read() -> None:
    assert [code for code in CODES if field_of("loinc", code) is None] == ["85354-9"]
    asked_for_by_the_issue = "8867-4 9279-1 59408-5 2708-6 8480-6 8462-4 85354-9 8310-5 80288-4 3151-8"
    assert set(asked_for_by_the_issue.split()) <= set(CODES)


def test_all_pages_are_read_and_then_only_what_is_new() -> None:
    async def test(server: FhirServer) -> None:
        for number in range(5):
            changed = NOON + timedelta(minutes=number)
            server.put(f"o{number}", "8867-4", 80 + number, changed=changed, at=changed)
        async with polling(server) as here:
            assert values(here.items) == [{"heart_rate": 80.0 + number} for number in range(5)]
            assert len(server.asked) == 3
            assert await here.poll() == []
            server.put("o5", "9279-1", 16, changed=NOON + timedelta(minutes=5))
            assert values(await here.poll()) == [{"respiratory_rate": 16.0}]
            assert server.asked[-1].query_params["_lastUpdated"] == "ge2026-01-01T12:03:00.000Z"
            assert {pause / 30 for pause in here.pauses} <= {1.0}

    run(test)


def test_a_new_version_is_read_and_an_old_one_never_twice() -> None:
    async def test(server: FhirServer) -> None:
        server.put("o", "8867-4", 80, changed=NOON)
        async with polling(server) as here:
            assert values(here.items) == [{"heart_rate": 80.0}]
            at = here.items[0].observed_at
            server.put("o", "8867-4", 90, changed=NOON, status="corrected")
            right = Reading(observed_at=at, heart_rate=90)
            wrong = Withdrawn("heart_rate", at, 80.0, "the sender corrects it")
            assert await here.poll() == [Retraction(values=(wrong,), by="fhir+poll:here", instead=(right,))]
            server.put("o", "8867-4", 90, changed=NOON, status="entered-in-error")
            wrong = Withdrawn("heart_rate", at, 90.0, "the sender marks it as entered in error")
            assert await here.poll() == [Retraction(values=(wrong,), by="fhir+poll:here")]
            assert await here.poll() == []

    run(test)


def test_what_the_server_shows_late_is_not_lost() -> None:
    """A change that becomes visible after one with a later time."""

    async def test(server: FhirServer) -> None:
        server.put("late", "8867-4", 80, changed=NOON + timedelta(seconds=60))
        async with polling(server) as here:
            server.put("early", "9279-1", 16, changed=NOON + timedelta(seconds=10))
            assert values(await here.poll()) == [{"respiratory_rate": 16.0}]

    run(test)


def test_what_is_unchanged_is_not_sent_again() -> None:
    async def test(server: FhirServer) -> None:
        server.put("o", "8867-4", 80, changed=NOON)
        async with polling(server) as here:
            await here.poll()
            tag = server.asked[-1].headers.get("if-none-match")
            assert tag is not None
            assert tag.startswith('W/"')
            assert len(here.items) == 1

    run(test)


def test_one_page_gives_one_reading_a_time() -> None:
    async def test(server: FhirServer) -> None:
        server.page_size = 100
        for code, value in (("8867-4", 80), ("59408-5", 97), ("8310-5", 37.5)):
            server.put(code, code, value, changed=NOON)
        async with polling(server) as here:
            assert values(here.items) == [{"heart_rate": 80.0, "spo2": 97.0, "temperature": 37.5}]

    run(test)


def test_a_failure_half_way_loses_and_doubles_nothing() -> None:
    async def test(server: FhirServer) -> None:
        for number in range(6):
            changed = NOON + timedelta(minutes=number)
            server.put(f"o{number}", "8867-4", 80 + number, changed=changed, at=changed)
        server.pages_broken_after = 4
        async with polling(server) as here:
            assert values(here.items) == [{"heart_rate": 80.0 + number} for number in range(4)]
            server.pages_broken_after = None
            assert values(await here.poll()) == [{"heart_rate": 84.0}, {"heart_rate": 85.0}]

    run(test)


def test_a_long_answer_is_read_in_several_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_poll, "MAX_PAGES", 2)

    async def test(server: FhirServer) -> None:
        for number in range(7):
            changed = NOON + timedelta(minutes=2 * number)
            server.put(f"o{number}", "8867-4", 80 + number, changed=changed, at=changed)
        async with polling(server) as here:
            seen = values(here.items)
            for _ in range(3):
                seen += values(await here.poll())
            assert seen == [{"heart_rate": 80.0 + number} for number in range(7)]
            server.sorts = False
            for number in range(7):
                server.put(f"p{number}", "8867-4", 80, changed=NOW - timedelta(minutes=number))
            items = await here.poll()
            assert "lead no further" in told([items[-1]])[0]

    run(test)


def test_a_server_without_further_pages_is_asked_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_poll, "PAGE", 2)

    async def test(server: FhirServer) -> None:
        server.pages = False
        for number in range(3):
            changed = NOON + timedelta(minutes=2 * number)
            server.put(f"o{number}", "8867-4", 80 + number, changed=changed, at=changed)
        async with polling(server) as here:
            assert values(here.items) == [{"heart_rate": 80.0}, {"heart_rate": 81.0}]
            assert values(await here.poll()) == [{"heart_rate": 82.0}]
            for name in ("x", "y", "z"):  # more at one time than a page holds
                server.put(name, "9279-1", 16, changed=NOON + timedelta(minutes=20))
            assert [values(await here.poll()) for _ in range(2)] == [[{"respiratory_rate": 16.0}]] * 2
            assert "lead no further" in told(await here.poll())[0]

    run(test)


def answers(status: int, **headers: str) -> Response:
    return Response(
        status_code=status, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answers(400), "answers 400"),
        (answers(401), "check the token"),
        (answers(403), "permitted"),
        (answers(404), "without /Observation"),
        (answers(418), "answers 418"),
        (RedirectResponse("http://127.0.0.1:1/elsewhere"), "redirects elsewhere (307)"),
        (Response("<html>", media_type="text/html"), "no JSON"),
        (JSONResponse({"resourceType": "OperationOutcome"}), "no searchset"),
        (JSONResponse({"resourceType": "Bundle", "type": "batch"}), "no searchset"),
        (JSONResponse([]), "no searchset"),
        (Response(b"[" * 100_000, media_type="application/json"), "nested deeper"),
        (Response(b" " * (4 << 20) + b"{}", media_type="application/json"), "over 4 MiB"),
        (Response(b"x", headers={"content-encoding": "gzip"}), "compresses"),
    ],
)
def test_what_will_not_heal_is_told_once_and_tried_again_slowly(answer: Response, reason: str) -> None:
    async def test(server: FhirServer) -> None:
        server.put("o", "8867-4", 80, changed=NOON)
        server.fails = [answer, answer]
        async with polling(server) as here:
            assert reason in told(here.items)[0]
            assert here.items[0].line().startswith("fhir+poll:here: ")
            assert await here.poll() == []
            assert here.pauses == [300.0, 300.0]
            assert values(await here.poll()) == [{"heart_rate": 80.0}]
            assert here.pauses[-1] == 30.0
            server.fails = [answer]
            assert len(told(await here.poll())) == 1, "it had healed, so it is news"

    run(test)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again_with_growing_pauses(status: int) -> None:
    async def test(server: FhirServer) -> None:
        server.put("o", "8867-4", 80, changed=NOON)
        server.fails = [answers(status) for _ in range(6)]
        async with polling(server) as here:
            assert [told(await here.poll()) for _ in range(5)] == [
                *([], [f"fhir+poll:here: the server answers {status}; see whether it is overloaded"]),
                *([], [], []),
            ]
            assert here.pauses == [60.0, 120.0, 240.0, 300.0, 300.0, 300.0]
            assert values(await here.poll()) == [{"heart_rate": 80.0}]

    run(test)


def test_the_server_may_say_how_long_to_wait() -> None:
    async def test(server: FhirServer) -> None:
        server.fails = [answers(429, retry_after="900"), answers(503, retry_after="nonsense")]
        async with polling(server) as here:
            await here.poll()
            assert here.pauses == [900.0, 120.0]

    run(test)


def test_a_server_that_is_silent_or_away_is_waited_for() -> None:
    async def test(server: FhirServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = server.base
            server.base = f"http://127.0.0.1:{silent.getsockname()[1]}"
            async with polling(server, timeout_s=0.05) as here:
                assert [told(await here.poll()) for _ in range(2)][1] == [
                    "fhir+poll:here: the server did not answer in time; see whether it is overloaded"
                ]
        async with polling(server, timeout_s=0.5) as here:
            assert [told(await here.poll()) for _ in range(2)][1] == [
                "fhir+poll:here: the server cannot be reached; check the network and the address"
            ]
        server.base = address

    run(test)


def test_an_answer_in_drops_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_client, "ANSWER_S", 0.2)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def test(server: FhirServer) -> None:
        async with await asyncio.start_server(drip, "127.0.0.1", 0) as slow:
            server.base = f"http://127.0.0.1:{slow.sockets[0].getsockname()[1]}"
            async with polling(server) as here:
                assert here.pauses == [60.0]

    run(test)


@pytest.mark.parametrize(
    "elsewhere",
    ["http://127.0.0.2:{port}/r4", "https://127.0.0.1:{port}/r4", "http://me:x@127.0.0.1:{port}/r4"],
)
def test_pages_of_another_server_are_not_asked_for(elsewhere: str) -> None:
    async def test(server: FhirServer) -> None:
        for number in range(3):
            server.put(f"o{number}", "8867-4", 80, changed=NOON)
        port = server.base.split(":")[2].split("/")[0]
        server.next_base = elsewhere.format(port=port) + "/Observation"
        async with polling(server, token="word") as here:
            assert "another server" in told(here.items[-1:])[0]
            assert len(server.asked) == 1

    run(test)


def test_pages_that_go_round_in_a_circle_end() -> None:
    async def test(server: FhirServer) -> None:
        page = {"resourceType": "Bundle", "type": "searchset", "link": [{"relation": "next", "url": "?"}]}
        server.fails = [JSONResponse(page), JSONResponse(page), JSONResponse(page)]
        async with polling(server) as here:
            assert "circle" in told(here.items)[0]

    run(test)


def test_observations_of_another_patient_are_not_taken() -> None:
    async def test(server: FhirServer) -> None:
        server.put("o", "8867-4", 80, changed=NOON)
        server.other_patient = True
        async with polling(server) as here:
            assert "Observations of another patient" in told(here.items)[0]
            server.other_patient = False
            assert values(await here.poll()) == [{"heart_rate": 80.0}]

    run(test)


def test_without_an_admission_it_waits_and_loses_nothing() -> None:
    async def test(server: FhirServer) -> None:
        async with polling(server) as here:
            here.around.patient.discharge()
            server.put("o", "8867-4", 80, changed=NOON)
            assert "no patient is admitted" in told(await here.poll())[0]
            assert await here.poll() == []
            here.around.patient.admit(key="next")
            assert values(await here.poll()) == [{"heart_rate": 80.0}]
            assert here.around.patient.refusal("18") is not None, "the patient was named"

    run(test)


def test_the_token_is_sent_and_the_log_holds_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def test(server: FhirServer) -> None:
        server.put("o", "8867-4", 81.25, changed=NOON)
        server.fails = [answers(401)]
        async with polling(server, token="a-word-of-this-device") as here:
            await here.poll()
            assert values(here.items[1:]) == [{"heart_rate": 81.25}]
        assert {one.headers["authorization"] for one in server.asked} == {"Bearer a-word-of-this-device"}

    caplog.set_level(logging.DEBUG)
    run(test)
    said = "\n".join(record.getMessage() for record in caplog.records if record.name != "uvicorn.error")
    assert "401" in said
    for word in ("81.25", "patient=", "a-word"):
        assert word not in said


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "state.json"

    async def test(server: FhirServer) -> None:
        server.put("o1", "8867-4", 80, changed=NOON + timedelta(minutes=30))
        async with polling(server, file=file) as here:
            assert len(here.items) == 1
        assert file.stat().st_mode & 0o777 == 0o600
        assert not re.search("o1|17|80", file.read_text().replace("2026", "")), "hashes and a time"
        server.put("o2", "9279-1", 16, changed=NOON + timedelta(minutes=30, seconds=-20))
        async with polling(server, file=file) as here:
            assert values(here.items) == [{"respiratory_rate": 16.0}]

    run(test)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"newest": "2026-01-01T12:00:00", "had": []}', '{"newest": 1, "had": [1]}']
)
def test_a_state_that_cannot_be_read_is_left_alone(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "state.json"
    file.write_text(content)
    assert Cursor(NOON, file).newest == NOON
    assert "polling begins" in caplog.text


def test_what_was_had_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fhir_cursor, "REMEMBERED", 3)
    monkeypatch.setattr(fhir_cursor, "KEPT", 2)
    cursor = Cursor(NOON, tmp_path / "state.json")
    resources = [{"id": str(number), "meta": {"versionId": "1"}} for number in range(5)] + [{"no": "id"}]
    for one in resources:
        assert cursor.is_new(one)
        cursor.had(one)
    assert [cursor.is_new(one) for one in resources] == [True, True, True, False, False, False]
    cursor.reached(None)
    again = Cursor(NOON, tmp_path / "state.json")
    assert [again.is_new(one) for one in resources] == [True, True, True, True, False, False]


def test_a_time_of_change_far_ahead_does_not_end_the_polling() -> None:
    async def test(server: FhirServer) -> None:
        server.put("o", "8867-4", 80, changed=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        async with polling(server) as here:
            assert here.cursor.newest == NOON
            server.put("p", "9279-1", 16, changed=NOON + timedelta(minutes=5))
            assert values(await here.poll()) == [{"respiratory_rate": 16.0}]

    run(test)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("fhir+poll:", "write the server's base"),
        ("fhir+poll:ftp://x/r4?patient=17", "write the server's base"),
        ("fhir+poll:https:///r4?patient=17", "write the server's base"),
        ("fhir+poll:https://x:port/r4?patient=17", "write the server's base"),
        ("fhir+poll:http://fhir.example.org/r4?patient=17", "only encrypted"),
        ("fhir+poll:http://127.0.0.1.example.org/r4?patient=17", "only encrypted"),
        ("fhir+poll:https://me:hunter2@x/r4?patient=17", "no password belongs into the URL"),
        ("fhir+poll:https://x/r4", "names no patient"),
        ("fhir+poll:https://x/r4?patient=a,b", "names no patient"),
        ("fhir+poll:https://x/r4?patient=17&every=0", "every"),
        ("fhir+poll:https://x/r4?patient=17&since=2026-01-01", "time with its zone"),
        ("fhir+poll:https://x/r4?patient=17&since=0001-01-01T00:00:00Z", "time with its zone"),
        ("fhir+poll:https://x/r4?patient=17&token_file=/nowhere", "/nowhere: cannot be read"),
        ("fhir+poll:https://x/r4?patient=17&ca_file=/nowhere", "give a PEM file"),
        ("fhir+poll:https://x/r4?patient=17&colour=red", "no option 'colour'"),
    ],
)
def test_what_cannot_be_polled_is_told_in_one_line(url: str, reason: str) -> None:
    with pytest.raises(SourceError, match=re.escape(reason)) as caught:
        open_source(url)
    assert "hunter2" not in str(caught.value)


def test_options_become_what_they_say(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("word\n")
    around = Surroundings(wall=lambda: NOW, folder=tmp_path)
    url = f"fhir+poll:http://127.0.0.1:1/r4?patient=Patient/17&every=5&since=2026-01-01T13:00:00+01:00&token_file={token}"
    source = open_source(url, around=around)
    assert isinstance(source, FhirPoll)
    assert source._cursor.newest == NOON
    assert source._patient == "17"
    asyncio.run(source.aclose())
