"""The gate before the whole application, pages and sockets too: a stranger gets nothing but the way in.

It puts `actor` and `session` into the request's state. Routes say by `needs(...)` what an actor must be
allowed to do; here it is only decided who they are, and that whoever merely reads may read.
"""

import asyncio
import contextlib
import hmac
import logging
import re
from collections.abc import Collection
from urllib.parse import quote

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samd_gateway.access import headers, hosts
from samd_gateway.access.actor import Actor, Via
from samd_gateway.access.cookies import session_cookie
from samd_gateway.access.desk import Access, local
from samd_gateway.access.sessions import Session
from samd_gateway.problems import problem

log = logging.getLogger(__name__)

SAFE = ("GET", "HEAD", "OPTIONS")
LOOK_S = 5.0
"""How long a socket may outlive a session that another program ended in the database."""
STRANGERS = {
    ("GET", "/healthz"),
    ("HEAD", "/healthz"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/logout"),
    ("GET", "/login/oidc"),
    ("GET", "/login/oidc/callback"),
}
_MODEL_FILE = re.compile(r"/api/models/[^/]+\.samd")
_PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
MAX_BODY = 2**20
TOO_LONG = f"a request's body has at most {MAX_BODY} bytes"
FILES = re.compile(r"/api/models/[^/]+\.samd|/api/restore|/_nicegui/client/.*")
"""What takes files, and bounds them itself."""
SIGNED_OUT = 4401
"""Why a WebSocket is closed whose session has ended."""


class SignedOutError(Exception):
    """The session ended while its answer was being sent."""


class Refusal(Exception):  # noqa: N818 - no fault: an answer
    """What is answered instead of what was asked."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class Gate:
    """ASGI middleware. `names`: the names of this gateway beside loopback."""

    def __init__(self, app: ASGIApp, access: Access, names: Collection[str] = ()) -> None:
        self.app = app
        self.access = access
        self.names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        http = scope["type"] == "http"

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers.secure(MutableHeaders(scope=message))
            await send(message)

        try:
            actor, session = await self._who(scope)
        except Refusal as refusal:
            if http:
                await refusal.response(scope, receive, secured)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        state = scope.setdefault("state", {})
        state["actor"], state["session"] = actor, session
        if http and _too_long(scope):
            await problem(413, TOO_LONG)(scope, receive, secured)
        elif http:
            await self._answer(scope, receive, secured, actor, session)
        else:
            await self._socket(scope, receive, send, session)

    # who it is

    async def _who(self, scope: Scope) -> tuple[Actor | None, Session | None]:
        """Raises Refusal. No actor: a stranger at one of the few places that are theirs."""
        connection = HTTPConnection(scope)
        try:
            is_open = await self._open()
            self._check_from(scope, connection.headers, is_open=is_open)
            if is_open:
                return local(_via(scope, connection.headers)), None
            actor, session = await self._signed_in(scope, connection)
        except SQLAlchemyError as error:
            if _stranger(scope):
                return None, None
            reason = f"the database cannot be used now ({type(error).__name__}); see /healthz"
            raise Refusal(problem(503, reason)) from error
        if actor is None:
            if not _stranger(scope):
                raise Refusal(_sign_in_first(scope, connection))
            return None, None
        method, path = scope.get("method", "GET"), scope["path"]
        if method in SAFE and not _stranger(scope) and path != "/api/me" and not actor.may("read"):
            raise Refusal(problem(403, f"{actor.name} may not read: the token lacks the scope 'read'"))
        return actor, session

    async def _signed_in(
        self, scope: Scope, connection: HTTPConnection
    ) -> tuple[Actor | None, Session | None]:
        method, path = scope.get("method", "GET"), scope["path"]
        said = connection.headers.get("authorization", "")
        if said:
            kind, _, token = said.partition(" ")
            found = None
            if kind.lower() == "bearer":
                found = await run_in_threadpool(self.access.token, token.strip())
            if found is None and not _stranger(scope):
                raise Refusal(_unknown("the token is not known, has expired or was revoked; make another"))
            if found is not None and _via(scope, connection.headers) == "cli":
                found = Actor(name=found.name, role=found.role, via="cli", permissions=found.permissions)
            return found, None
        cookie = connection.cookies.get(session_cookie(scope))
        if not cookie:
            return None, None
        session = await run_in_threadpool(self.access.session, cookie)
        if session is None:
            return None, None
        if scope["type"] == "websocket" or method not in SAFE:
            self._check_csrf(scope, connection.headers, session, path)
        if method not in SAFE or not path.startswith(("/api/", "/_nicegui")):
            await run_in_threadpool(self.access.touch, session)
        return session.actor, session

    def _check_from(self, scope: Scope, found: Headers, *, is_open: bool) -> None:
        host = found.get("host", "")
        name = hosts.split_host(host, scope["scheme"])
        if name is None or not hosts.known(name[0], self.names, open_to_all=is_open):
            remedy = (
                "ask for 127.0.0.1, for no user is set up here"
                if is_open
                else "start it with --hostname NAME if it is"
            )
            raise Refusal(problem(421, f"{host[:100]!r} is no name of this gateway; {remedy}"))
        if is_open:
            peer = (scope.get("client") or ("", 0))[0]
            if not hosts.is_loopback(peer) or any(each in found for each in _PROXIED):
                raise Refusal(
                    problem(
                        403,
                        "no user is set up here, so only programs of this machine are served, and none "
                        "through a proxy; add the first: samd-gateway users add NAME --role admin",
                    )
                )
        origin = found.get("origin")
        if origin is not None and not hosts.same_origin(origin, scope["scheme"], host):
            raise Refusal(problem(403, "the request comes from a page of another site"))
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE
        if unsafe and found.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(problem(403, "the request comes from a page of another site"))

    def _check_csrf(self, scope: Scope, found: Headers, session: Session, path: str) -> None:
        """A cookie is sent by the browser whoever made it do so; these prove that it was our own page."""
        if path in ("/login", "/logout"):
            return  # forms, which carry their own
        if scope["type"] == "http" and path.startswith("/api/"):
            shown = found.get("x-csrf-token", "")
            if not hmac.compare_digest(shown.encode(errors="replace"), session.csrf.encode()):
                raise Refusal(
                    problem(
                        403, "the header X-CSRF-Token is missing or wrong; GET /api/me says what it must be"
                    )
                )
        elif "origin" not in found:  # one that is there was compared already
            raise Refusal(problem(403, "the request does not say which page it comes from"))

    # what is answered

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, actor: Actor | None, session: Session | None
    ) -> None:
        """An answer that goes on, such as a stream of events, ends with the session."""
        loop = asyncio.get_running_loop()
        looked = loop.time()

        async def guarded(message: Message) -> None:
            nonlocal looked
            streaming = message["type"] == "http.response.body" and message.get("more_body")
            if streaming and actor is not None and loop.time() - looked > 1.0:
                looked = loop.time()
                if not await self._still(scope, actor, session):
                    raise SignedOutError
            await send(message)

        try:
            await self.app(scope, limited(scope, receive), guarded)
        except* SignedOutError:
            with contextlib.suppress(RuntimeError):  # where a length was announced, the connection is cut
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _socket(self, scope: Scope, receive: Receive, send: Send, session: Session | None) -> None:
        """A socket is closed as soon as its session has ended, whatever is going on in it."""
        loop = asyncio.get_running_loop()
        look = asyncio.Event()
        closed = False

        async def guarded(message: Message) -> None:
            if not closed:
                await send(message)

        async def watch() -> None:
            nonlocal closed
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(look.wait(), LOOK_S)
                look.clear()
                if not await self._still(scope, None, session):
                    closed = True
                    with contextlib.suppress(RuntimeError, OSError):
                        await send({"type": "websocket.close", "code": SIGNED_OUT, "reason": "signed out"})
                    return

        def ended() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended with the program
                loop.call_soon_threadsafe(look.set)

        stop = self.access.watch(session.hash if session else "", ended)
        watcher = asyncio.create_task(watch(), name="session of a socket")
        try:
            await self.app(scope, receive, guarded)
        finally:
            stop()
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    async def _still(self, scope: Scope, actor: Actor | None, session: Session | None) -> bool:
        """Whether who began this is still who they were."""
        try:
            if session is not None:
                return await run_in_threadpool(self.access.session_valid, session.hash) is not None
            said = Headers(scope=scope).get("authorization", "")
            if said and actor is not None and not await self._open():
                token = said.partition(" ")[2].strip()
                return await run_in_threadpool(self.access.token, token) is not None
        except SQLAlchemyError:
            return True  # nothing says that it ended, and a ward's page is not to go dark with the database
        return await self._open()

    async def _open(self) -> bool:
        if self.access.settled:
            return self.access.open_to_all
        return await run_in_threadpool(lambda: self.access.open_to_all)


def _too_long(scope: Scope) -> bool:
    """By what is announced of the body, before a byte of it is read."""
    announced = Headers(scope=scope).get("content-length", "0")
    return FILES.fullmatch(scope["path"]) is None and (not announced.isdigit() or int(announced) > MAX_BODY)


def limited(scope: Scope, receive: Receive) -> Receive:
    """The same for a body that comes in pieces of which nobody said how many."""
    if FILES.fullmatch(scope["path"]) is not None:
        return receive
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            raise HTTPException(413, TOO_LONG)
        return message

    return counted


def _via(scope: Scope, found: Headers) -> Via:
    if found.get("user-agent", "").startswith("samd-gateway/"):
        return "cli"
    return "api" if scope["path"].startswith("/api/") else "page"


def _stranger(scope: Scope) -> bool:
    """Whether this is for everyone: the way in, that we live, and model files, which ask for a key."""
    if scope["type"] != "http":
        return False
    method, path = scope["method"], scope["path"]
    return (
        (method, path) in STRANGERS
        or (method == "GET" and path.startswith("/login/static/"))
        or (method in ("GET", "HEAD") and _MODEL_FILE.fullmatch(path) is not None)
    )


def _sign_in_first(scope: Scope, connection: HTTPConnection) -> Response:
    path = scope["path"]
    html = "text/html" in connection.headers.get("accept", "")
    if scope.get("method") == "GET" and html and not path.startswith(("/api/", "/_nicegui")):
        query = scope.get("query_string", b"").decode("latin-1")
        wanted = path + (f"?{query}" if query else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='/')}", status_code=303)
    return _unknown("sign in at /login, or send a token: Authorization: Bearer TOKEN")


def _unknown(detail: str) -> Response:
    response = problem(401, detail)
    response.headers["www-authenticate"] = "Bearer"
    return response
