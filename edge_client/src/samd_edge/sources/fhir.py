"""``fhir:PORT``, ``fhir:ADDRESS:PORT``: FHIR R4 vital signs that a client posts to this device.

``POST /Observation`` takes one Observation, ``POST /`` or ``/Bundle`` a Bundle whose entries stand alone. It
is answered once the readings were committed:

======  ==============================================================================================
status  when
======  ==============================================================================================
200     a Bundle: one answer an entry, with an OperationOutcome for what was refused
201     an Observation was taken over, also one that says that nothing was measured, or that takes back
400     no JSON, or no FHIR R4 resource
401     no valid bearer token, where one is asked for
408     the content did not come in time
409     the patient is another than the one of this device, or nobody is admitted; nothing was taken
413     more than 1 MiB, or more than 1000 entries
415     another content type than JSON in UTF-8
421     addressed to another name than 127.0.0.1 or localhost, without TLS or token: a web page tries
422     an Observation that cannot be used, with place and reason; two patients in one Bundle
503     too much at once, or not committed in time: send it again
======  ==============================================================================================

Options: those of every listener (``allow``, ``cert_file``, ``key_file``, ``client_ca_file``), and
``token_file``: a file of mode 0600 with the bearer token that clients must send.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.clock import WallClock
from samd_edge.sources import Item, SourceError, SourceURL, fhir_json
from samd_edge.sources.fhir_answers import batch_response, capabilities, failure, outcome
from samd_edge.sources.fhir_http import Answer, HttpServer, application
from samd_edge.sources.fhir_message import Decoded, MessageRefused, as_rejection, decode
from samd_edge.sources.fhir_observations import load
from samd_edge.sources.fhir_values import Problem
from samd_edge.sources.fhir_versions import Versions
from samd_edge.sources.listening import ListenerSettings, Listening, listen_at
from samd_edge.sources.surroundings import Surroundings
from samd_protocol.broker import read_secret
from samd_protocol.errors import BrokerError

log = logging.getLogger(__name__)

CLOSING: Final = "this device stops listening"
WAITING: Final = 64  # messages that wait for the agent; each holds its readings, not its content
TAKEN_S: Final = 30.0
LARGE: Final = 16 * 1024  # from here on, decoding would hold up the loop: it goes to a thread


class Settings(ListenerSettings, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What this listener can be told besides."""

    token_file: str | None = None


@dataclass(slots=True)
class Delivery:
    """A message on its way to the agent. ``taken``: None when it was committed, else why it was not."""

    decoded: Decoded
    taken: asyncio.Future[str | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def answer(self, reason: str | None) -> None:
        if not self.taken.done():
            self.taken.set_result(reason)


class FhirListener:
    """The readings that are posted here. Owns ``sock``, which is bound and not yet listened at."""

    def __init__(
        self, name: str, listening: Listening, sock: socket.socket, token: str | None, around: Surroundings
    ) -> None:
        self.clock = WallClock(around.wall)
        self.port: int = sock.getsockname()[1]
        self._name = name
        self._listening = listening
        self._sock = sock
        self._token = token
        self._wall = around.wall
        self._guard = around.patient
        self._opened = around.wall()
        self._server: HttpServer | None = None
        self._waiting: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._current: Delivery | None = None
        self._closed = False
        self._decoding = asyncio.Lock()
        self._versions = Versions(of_server=False)
        self._token_missed = False

    def history(self) -> Iterator[Reading]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Item]:
        if self._server is not None or self._closed:
            raise RuntimeError("a source is iterated over once")
        open_here = self._token is None and self._listening.tls is None
        app = application(self, self._token, open_here=open_here)
        self._server = HttpServer(app, self._listening, self._sock)
        self._server.task.add_done_callback(lambda _task: self._waiting.put_nowait(None))
        log.info("FHIR is listened for at %s, port %d", self._listening.host, self.port)
        try:
            while (delivery := await self._waiting.get()) is not None:
                self._current = delivery
                reason = None
                for item in delivery.decoded.items(self._name, self._versions):
                    # Asked for each: the patient may be discharged in the middle of a Bundle.
                    reason = self._guard.refusal(delivery.decoded.patient)
                    if reason is not None:
                        yield self._refusal(reason)
                        break
                    yield item
                if reason is None:
                    self._versions.remember(delivery.decoded.versions())
                delivery.answer(reason)
            if not self._closed:
                raise SourceError(f"source {self._name!r}: the listener failed; see the log, and start again")
        finally:
            await self.aclose()

    def _refusal(self, sentence: str) -> Rejection:
        reason, _, remedy = sentence.partition("; ")
        return Rejection(self._name, 0, "", "", reason, remedy)

    async def take(self, body: bytes) -> Answer:
        """Decode a message, have its readings committed, and say what became of it."""
        if self._closed or self._waiting.qsize() >= WAITING:
            return _again("too much at once")
        self._token_missed = False
        try:
            is_bundle, decoded = await self._decode(body)
        except MessageRefused as refusal:
            self._tell(as_rejection(refusal.problem, self._name))
            return Answer(refusal.status, outcome([refusal.problem]))
        delivery = Delivery(decoded)
        self._waiting.put_nowait(delivery)
        try:
            async with asyncio.timeout(TAKEN_S):
                reason = await delivery.taken
        except TimeoutError:
            return _again("the readings were not committed in time")
        if reason == CLOSING:
            return _again(reason)
        if reason is not None:
            why, _, remedy = reason.partition("; ")
            return Answer(409, failure("conflict", why, remedy))
        if is_bundle:
            return Answer(200, batch_response(decoded.entries))
        return Answer(decoded.entries[0].status, outcome(decoded.entries[0].problems))

    async def _decode(self, body: bytes) -> tuple[bool, Decoded]:
        """Whether it is a Bundle, and what it holds. Raises MessageRefused."""

        def work() -> tuple[bool, Decoded]:
            try:
                content = fhir_json.parse(body)
            except fhir_json.JsonError as error:
                reason, _, remedy = str(error).partition("; ")
                raise MessageRefused(400, Problem("structure", "", "", reason, remedy)) from error
            decoded = decode(content, name=self._name, now=self._wall())
            return content["resourceType"] == "Bundle", decoded

        if len(body) < LARGE:
            return work()
        async with self._decoding:  # one at a time: each takes many times its size
            return await asyncio.to_thread(work)

    def refused(self, answer: Answer) -> None:
        """Who has no token is told of once: whoever tries for hours must not fill the card."""
        if answer.status == 401:
            if self._token_missed:
                return
            self._token_missed = True
        self._tell(self._refusal(answer.resource["issue"][0]["diagnostics"]))

    def _tell(self, rejection: Rejection) -> None:
        """People at the device see what was refused, as long as the agent keeps up."""
        if not self._closed and self._waiting.qsize() < WAITING:
            self._waiting.put_nowait(Delivery(Decoded(None, (), (rejection,), ())))

    def capabilities(self) -> dict[str, Any]:
        return capabilities(self._opened.isoformat(timespec="seconds"))

    async def aclose(self) -> None:
        """Whoever still waits for an answer is told to come again."""
        self._closed = True
        if self._current is not None:
            self._current.answer(CLOSING)
        while not self._waiting.empty():
            left = self._waiting.get_nowait()
            if left is not None:
                left.answer(CLOSING)
        self._waiting.put_nowait(None)
        if self._server is not None:
            await self._server.stop()
        self._sock.close()


def _again(reason: str) -> Answer:
    return Answer(503, failure("throttled", reason, "send it again"), {"retry-after": "5"})


def open_source(url: SourceURL, around: Surroundings) -> FhirListener:
    """Bind the address; raises SourceError when that cannot be done as asked, or safely."""
    settings = url.settings(Settings)
    listening = listen_at(url, settings)
    token = None
    if settings.token_file is not None:
        try:
            token = read_secret(settings.token_file)
        except BrokerError as error:
            raise SourceError(f"source {url.text!r}: {error}") from error
    load()
    sock = _bound(url, listening)
    return FhirListener(f"fhir:{sock.getsockname()[1]}", listening, sock, token, around)


def _bound(url: SourceURL, listening: Listening) -> socket.socket:
    """A socket at the address; who connects before the first reading is asked for waits."""
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    # Only where TCP is named, asyncio sends answers at once; else each waits 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((listening.host, listening.port))
        sock.listen()
    except OSError as error:
        sock.close()
        raise SourceError(
            f"source {url.text!r}: {listening.host} port {listening.port} cannot be used ({error.strerror}); "
            "choose another port"
        ) from error
    return sock
