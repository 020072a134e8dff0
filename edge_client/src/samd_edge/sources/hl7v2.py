"""HL7 v2 over MLLP as a source: ``hl7:PORT``. Bedside monitors and interface engines send ORU^R01 here.

    hl7:2575                                 on 127.0.0.1, times with an offset
    hl7:2575?zone=Europe/Berlin              times without an offset are of this zone
    hl7:2575?encoding=iso-8859-1             where MSH-18 says nothing (default UTF-8)
    hl7:10.1.2.3:2575?cert_file=...&key_file=...&allow=10.1.2.0/24

A message is acknowledged after its readings were taken over. AA: at least one value was taken, or nothing in
it was wrong (a monitor whose leads are off sends only "no value": refusing that would block an engine's
queue); what was left out stands in MSA-3 and in ERR segments. AE: nothing could be taken, with the reason.
AR: not an ORU^R01 of a real patient. What is no HL7 at all gets no answer, and the connection stays.
Sent twice is harmless: the store knows the readings already.

The frame is read here and not by ``hl7.mllp``: its reader cannot tell a peer that is silent between messages
from one that stalls within a message, and drops a message that follows a stray byte.
"""

import asyncio
import codecs
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.clock import WallClock
from samd_edge.retraction import retraction_of
from samd_edge.sources import Item, SourceError, SourceURL
from samd_edge.sources.hl7_answer import acknowledgement
from samd_edge.sources.hl7_message import (
    Header,
    MessageRefused,
    Place,
    Problem,
    check,
    header_of,
    message_of,
)
from samd_edge.sources.hl7_observations import observed, patients
from samd_edge.sources.listening import ListenerSettings, Listening, Refusals, listen_at
from samd_edge.sources.local_time import LocalZone, zone_named
from samd_edge.sources.surroundings import Surroundings

log = logging.getLogger(__name__)

MAX_MESSAGE: Final = 1 << 20
MAX_CONNECTIONS: Final = 16
STALL_S: Final = 30.0
"""How long a message may take from its first byte to its last, and a peer to take its answer."""
_HANDSHAKE_S: Final = 10.0
_NOTICES: Final = 64

_VT, _FS, _CR = b"\x0b", b"\x1c", b"\r"


class Settings(ListenerSettings, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``zone``: IANA name (or ``local``) for times without an offset. ``encoding``: where MSH-18 is empty."""

    zone: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if self.zone is not None:
            zone_named(self.zone)
        known = b"MSH|^~\\&\r"
        try:
            fits = (
                known.decode(self.encoding).encode(self.encoding)
                == known
                == known.decode().encode(self.encoding)
            )
        except (LookupError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"encoding: {self.encoding!r} cannot be used; write utf-8, ascii or iso-8859-1")


def open_source(url: SourceURL, around: Surroundings) -> "HL7Source":
    """Bind the port; raises SourceError for a setting that is wrong or a port that is taken."""
    import hl7  # type: ignore[import-untyped]  # noqa: F401  (missing is told when the source is opened)

    settings = url.settings(Settings)
    listening = listen_at(url, settings)
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    try:
        bound = socket.create_server((listening.host, listening.port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise SourceError(
            f"source {url.text!r}: port {listening.port} on {listening.host} cannot be listened on "
            f"({error.strerror or error}); end what uses it, or choose another"
        ) from error
    return HL7Source(listening, bound, settings, around)


@dataclass(slots=True)
class _Delivery:
    """A message on its way to whoever takes the readings, and the answer (None: none is sent)."""

    frame: bytes
    answer: "asyncio.Future[bytes | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class HL7Source:
    """A listener for HL7 v2. Owns the bound socket."""

    def __init__(
        self, listening: Listening, bound: socket.socket, settings: Settings, around: Surroundings
    ) -> None:
        self.clock = WallClock(around.wall)
        self.port: int = bound.getsockname()[1]
        self.name = f"hl7:{self.port}"
        self._listening = listening
        self._socket = bound
        self._charset = codecs.lookup(settings.encoding).name
        self._zone: LocalZone | None = zone_named(settings.zone) if settings.zone else None
        self._around = around
        self._arrived: asyncio.Queue[_Delivery | Rejection | None] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._peers: set[asyncio.Task[Any]] = set()
        self._refusals = Refusals(self.name)

    def history(self) -> Iterator[Reading]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Item]:
        if self._server is not None:
            raise RuntimeError("a source is iterated over once")
        tls = self._listening.tls
        self._server = await asyncio.start_server(
            self._meet,
            sock=self._socket,
            limit=MAX_MESSAGE,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else _HANDSHAKE_S,
        )
        log.info("%s: listening on %s", self.name, self._listening.host)
        try:
            while (arrived := await self._arrived.get()) is not None:
                if isinstance(arrived, Rejection):
                    yield arrived
                    continue
                items, answer = self.interpret(arrived.frame)
                for item in items:
                    yield item
                if not arrived.answer.done():  # else its peer has gone meanwhile
                    arrived.answer.set_result(answer)
        finally:
            await self._hang_up()

    async def aclose(self) -> None:
        self._arrived.put_nowait(None)
        await self._hang_up()
        self._socket.close()

    async def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
        peers = tuple(self._peers)
        for peer in peers:
            peer.cancel()
        await asyncio.gather(*peers, return_exceptions=True)

    # -- one peer -----------------------------------------------------------------------------------------

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refusal = self._listening.refusal(writer.get_extra_info("peername"))
        if refusal is None and len(self._peers) >= MAX_CONNECTIONS:
            refusal = f"{MAX_CONNECTIONS} peers are connected already"
        if refusal is not None:
            self._refusals.tell(refusal)
            writer.transport.abort()
            return
        _keep_alive(writer)
        peer = asyncio.create_task(self._serve(reader, writer), name=f"{self.name} peer")
        self._peers.add(peer)
        peer.add_done_callback(self._peers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except asyncio.LimitOverrunError:
            self._tell(f"a message is longer than {MAX_MESSAGE} bytes", "send it in parts")
        except TimeoutError:
            self._tell(f"a message, or its answer, took longer than {STALL_S:g} s", "check the network")
        except _HttpRequest:
            self._tell("an HTTP request came", "let no web page reach this port; send MLLP")
        except asyncio.IncompleteReadError as error:
            if error.partial.strip():
                self._tell("a message broke off", "check the sender and the network")
        except OSError as error:
            log.info("%s: a connection broke (%s)", self.name, type(error).__name__)
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            frame = await _next_frame(reader)
            if frame is None:
                self._tell("bytes came outside of a frame", "send MLLP: VT, the message, FS, CR")
                continue
            delivery = _Delivery(frame)
            self._arrived.put_nowait(delivery)  # at most one of each peer
            answer = await delivery.answer
            if answer is not None:
                writer.write(_VT + answer + _FS + _CR)
                async with asyncio.timeout(STALL_S):
                    await writer.drain()

    def _tell(self, reason: str, remedy: str) -> None:
        if self._arrived.qsize() < _NOTICES:
            self._arrived.put_nowait(Rejection(self.name, 0, "", "", reason, remedy))

    # -- one message --------------------------------------------------------------------------------------

    def interpret(self, frame: bytes) -> tuple[list[Item], bytes | None]:
        """What a message holds, and what it is answered once that was taken."""
        header = header_of(frame)
        if header is None:
            reason = "a frame holds no HL7 version 2 message"
            return [Rejection(self.name, 0, "", "", reason, "begin it with MSH and the separators")], None
        if header.component(9, 1) == "ACK":  # answering it could go on for ever
            return [], None
        now = self._around.wall()
        try:
            return self._observations(frame, header)
        except MessageRefused as why:
            rejection = Rejection(self.name, 0, "", "", why.reason, why.remedy)
            problem = Problem(rejection, why.place, why.condition)
            return [rejection], acknowledgement(header, why.code, [problem], now=now)

    def _observations(self, frame: bytes, header: Header) -> tuple[list[Item], bytes | None]:
        check(header)
        message = message_of(frame, header, self._charset)
        now = self._around.wall()
        found = observed(message, self.name, zone=self._zone, now=now)
        if found.num_known:
            self._check_patient(patients(message))
        taken = found.readings or found.taken_back
        wrong = not taken and any(problem.fault for problem in found.problems)
        problems = found.problems
        if not found.num_known:
            nothing = Rejection(
                self.name, 0, "", "", "no observation is of a sign", "send LOINC or MDC codes"
            )
            problems = [Problem(nothing, Place("OBX", 1, 3), "0", fault=False)]
        answer = acknowledgement(header, "AE" if wrong else "AA", problems, now=now, message=message)
        rejections = [problem.rejection for problem in found.problems]
        retraction = retraction_of(found.taken_back, self.name, found.readings)
        return [*rejections, *(found.readings if retraction is None else [retraction])], answer

    def _check_patient(self, named: list[str | None]) -> None:
        """Raises MessageRefused unless the message is of this device's patient."""
        if len(set(named)) > 1:
            reason = "the message is of more than one patient"
            raise MessageRefused("AE", "204", Place("PID", 2, 3), reason, "send a message for each")
        reason_not = self._around.patient.refusal(named[0] if named else None)
        if reason_not is not None:
            reason, _, remedy = reason_not.partition("; ")
            raise MessageRefused("AE", "204", Place("PID", 1, 3), reason, remedy or "check the channel")


class _HttpRequest(Exception):  # noqa: N818
    """A browser speaks: any page may send a frame to a port of this machine in the body of a request."""


async def _next_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next message, without its frame; None for bytes that are in none.

    Between messages a peer may be silent for ever. Raises IncompleteReadError at the end of the connection,
    TimeoutError and LimitOverrunError for a message that takes too long or is too long, and _HttpRequest.
    """
    first = await reader.readexactly(1)
    while first in b"\r\n\x1c":
        first = await reader.readexactly(1)
    async with asyncio.timeout(STALL_S):
        rest = await reader.readuntil(_FS)
    stray, start, frame = (first + rest[:-1]).rpartition(_VT)  # a sender that began anew means the last
    if b" HTTP/" in stray:
        raise _HttpRequest
    return frame if start else None


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """A peer that vanished without a word is noticed within two minutes, and makes room for another."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
