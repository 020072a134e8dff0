"""The HTTP face of the FHIR listener: Starlette on uvicorn, inside the loop that is already running.

Bounds: a size and a time for each request, so many connections at once, and a time for a connection that
sends nothing. No access log, no signal handlers, no headers of a proxy believed: a peer is who connects.
"""

import asyncio
import contextlib
import hmac
import logging
import re
import socket
from collections.abc import Callable, Generator
from typing import Any, Final, NamedTuple, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from samd_edge.sources import fhir_json
from samd_edge.sources.fhir_answers import failure
from samd_edge.sources.listening import Listening, Refusals

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/fhir+json"
MAX_CONNECTIONS: Final = 16
BODY_S: Final = 20.0
IDLE_S: Final = 15.0

_HERE: Final = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])?(?::[0-9]+)?", re.IGNORECASE)
"""What a Host header says of this machine; old clients send none."""


class Answer(NamedTuple):
    """A status and a resource."""

    status: int
    resource: dict[str, Any]
    headers: dict[str, str] | None = None

    def response(self) -> Response:
        return JSONResponse(
            self.resource, status_code=self.status, headers=self.headers, media_type=MEDIA_TYPE
        )


class _Refused(Exception):  # noqa: N818
    """A request that is answered without reading it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Desk(Protocol):
    """Who takes what was posted, and says what this listener can do."""

    async def take(self, body: bytes) -> Answer: ...

    def refused(self, answer: Answer) -> None:
        """A request was refused before it was read whole."""
        ...

    def capabilities(self) -> dict[str, Any]: ...


def application(desk: Desk, token: str | None, *, open_here: bool) -> Starlette:
    """The application: ``POST`` of an Observation or a Bundle, and ``GET /metadata``.

    ``open_here``: it serves whoever is on this machine, without TLS or token, and so any page in a browser
    whose name was made to point here; such a page is known by that name.
    """

    async def post(request: Request) -> Response:
        try:
            if open_here:
                _check_host(request.headers.get("host", ""))
            _admit(request, token)
            return (await desk.take(await _body(request))).response()
        except _Refused as refusal:
            desk.refused(refusal.answer)
            return refusal.answer.response()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:  # noqa: BLE001  (uvicorn would log a traceback, with what was sent)
            log.error("a FHIR request failed: %s", type(error).__name__)
            return Answer(
                500, failure("exception", "the request could not be worked on", "tell who keeps this device")
            ).response()

    async def metadata(_request: Request) -> Response:
        return Answer(200, desk.capabilities()).response()

    async def refuse(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        remedy = "post a Bundle to / or an Observation to /Observation; see GET /metadata"
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else None
        return Answer(status, failure("not-supported", "it is not served here", remedy), headers).response()

    return Starlette(
        routes=[
            *(Route(path, post, methods=["POST"]) for path in ("/", "/Bundle", "/Observation")),
            Route("/metadata", metadata, methods=["GET"]),
        ],
        exception_handlers={HTTPException: refuse},
    )


def _check_host(host: str) -> None:
    """Raises _Refused for a request that was addressed to another name than this machine has for itself."""
    if _HERE.fullmatch(host) is None:
        said = failure("security", "it is addressed to another machine", "address it to 127.0.0.1")
        raise _Refused(Answer(421, said))


def _admit(request: Request, token: str | None) -> None:
    """Raises _Refused for a request without the token, or with something else than JSON."""
    if token is not None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            said = failure("login", "the bearer token is missing or wrong", "send the token of this device")
            raise _Refused(Answer(401, said, {"www-authenticate": "Bearer"}))
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() not in (MEDIA_TYPE, "application/json") or charset not in ("", "charset=utf-8"):
        said = failure("not-supported", "the content is not declared as JSON", f"send {MEDIA_TYPE} in UTF-8")
        raise _Refused(Answer(415, said))


async def _body(request: Request) -> bytes:
    """The content, within its bounds. Raises _Refused."""
    limit = fhir_json.MAX_BYTES
    too_large = _Refused(
        Answer(413, failure("too-long", f"the content is over {limit} bytes", "send smaller Bundles"))
    )
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdecimal() and int(length[:20]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        said = failure("timeout", "the content did not come in time", "send it again")
        raise _Refused(Answer(408, said)) from None
    return bytes(body)


class HttpServer:
    """Serves an application on a bound socket. ``task`` ends by itself only when something fails."""

    def __init__(self, app: Starlette, listening: Listening, sock: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=_protocol(listening.refusal),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.ERROR,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            backlog=MAX_CONNECTIONS,
            timeout_keep_alive=int(IDLE_S),
            timeout_graceful_shutdown=2,
        )
        config.load()
        config.ssl = listening.tls
        self._server = _Server(config)
        self.task = asyncio.create_task(self._server.serve(sockets=[sock]), name="fhir listener")

    async def stop(self) -> None:
        """Answer what is being worked on, and close; done within a few seconds."""
        self._server.should_exit = True
        await asyncio.wait([self.task])


class _Server(uvicorn.Server):
    """A server whose signals are the agent's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _protocol(refusal: Callable[[object], str | None]) -> type[asyncio.Protocol]:
    refusals = Refusals("the FHIR listener")

    class Bounded(H11Protocol):
        """Closes at once what may not connect, and after a while what sends no whole request."""

        _idle: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            reason = refusal(transport.get_extra_info("peername"))
            if reason is not None:
                refusals.tell(reason)
                transport.abort()
                return
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._idle is not None:
                self._idle.cancel()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """Not begun anew by each byte: a request that comes in drops would hold the connection."""
            between = self.cycle is None or self.cycle.response_complete
            if between and self._idle is None:
                self._idle = self.loop.call_later(IDLE_S, self.transport.close)
            elif not between and self._idle is not None:
                self._idle.cancel()
                self._idle = None

    return Bounded
