"""The gate: what strangers get, pages of other sites, names that lie, and sockets whose session ends."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from access_peers import PASSWORD, Clock, Guarded, bearer, field, token_of
from access_peers import access as make_access
from gateway_peers import Gateway, free_port, until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from samd_gateway.access import hosts, users
from samd_gateway.access.actor import LOCAL
from samd_gateway.access.desk import Access
from samd_gateway.access.gate import SIGNED_OUT, Gate

LOGIN = {"name": "n.kim", "password": PASSWORD}


def test_a_stranger_gets_the_way_in_and_no_more(guarded: Guarded) -> None:
    http = httpx.Client(base_url=guarded.url, trust_env=False)
    with http:
        for path in ("/api/me", "/api/devices", "/openapi.json", "/metrics", "/api/events", "/nothing"):
            answer = http.get(path)
            assert (answer.status_code, path) == (401, path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/_nicegui/x", "/static/x"):
            assert http.get(path, headers={"accept": "text/html"}).status_code in (303, 401)
        page = http.get("/patient/bed-01?range=24h", headers={"accept": "text/html,*/*"})
        assert page.status_code == 303
        assert page.headers["location"] == "/login?next=/patient/bed-01%3Frange%3D24h"
        assert http.get("/login").status_code == 200
        health = http.get("/healthz")
        assert health.status_code == 200
        assert health.json() == {
            "status": "ok",
            "broker": "ok",
            "database": "ok",
            "ingest": "ok",
            "queue": None,
            "version": None,
        }
    assert guarded.admin.http.get("/healthz").json()["version"] is not None


def test_signing_in_leads_to_where_one_wanted_to_go(guarded: Guarded, enter: Callable) -> None:
    browser = enter(guarded.url)
    page = browser.http.get("/login", params={"next": "/patient/bed-01?range=24h"})
    assert field(page.text, "next") == "/patient/bed-01?range=24h"
    assert "script" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    answer = browser.http.post("/login", data={**LOGIN, "csrf": field(page.text, "csrf"), "next": "/api/me"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/api/me")
    cookie = next(each for each in answer.headers.get_list("set-cookie") if each.startswith("samd_session="))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Max-Age" not in cookie  # ends with the browser
    assert browser.http.get("/login", params={"next": "/x"}).headers["location"] == "/x"
    me = browser.http.get("/api/me").json()
    assert (me["name"], me["role"], me["via"], me["permissions"]) == (
        "n.kim",
        "nurse",
        "page",
        ["read", "ward"],
    )
    csrf = me["csrf"]
    assert browser.http.post("/logout", data={"csrf": "x"}).status_code == 403
    assert browser.http.post("/logout", data={"csrf": csrf}).headers["location"] == "/login?signed-out"
    assert browser.http.get("/api/me").status_code == 401
    assert "You are signed out" in browser.http.get("/login?signed-out").text


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example", "https://evil.example", "/\\evil.example", "x", "/a\nb", "/\t/evil", ""]
)
def test_signing_in_leads_nowhere_else(guarded: Guarded, elsewhere: str, enter: Callable) -> None:
    browser = enter(guarded.url)
    answer = browser.http.post("/login", data={**LOGIN, "csrf": browser.form(), "next": elsewhere})
    assert answer.headers["location"] == "/"


def test_the_login_form_is_this_browsers_own(guarded: Guarded, enter: Callable) -> None:
    """Else a page elsewhere could sign its reader in as somebody else."""
    browser, other = enter(guarded.url), enter(guarded.url)
    theirs = other.form()
    for csrf in ("", "x", theirs):
        browser.form()
        answer = browser.http.post("/login", data={**LOGIN, "csrf": csrf})
        assert answer.status_code == 403
        assert "too old" in answer.text
    assert browser.http.post("/login", json=LOGIN).status_code == 422
    big = browser.http.post("/login", data={**LOGIN, "csrf": browser.form(), "more": "x" * 20_000})
    assert big.status_code == 422
    wrong = browser.sign_in("n.kim<b>", "wrong words in a row")
    assert wrong.status_code == 401
    assert 'value="n.kim&lt;b&gt;"' in wrong.text
    assert PASSWORD not in wrong.text


def test_a_cookie_alone_changes_nothing(guarded: Guarded, enter: Callable) -> None:
    browser = enter(guarded.url, "guest")
    body = {"theme": "dark"}
    assert browser.http.patch("/api/me", json=body).status_code == 200
    for token in (None, "", "x", enter(guarded.url, "guest").http.headers["x-csrf-token"]):
        browser.http.headers.pop("x-csrf-token", None)
        if token is not None:
            browser.http.headers["x-csrf-token"] = token
        answer = browser.http.patch("/api/me", json=body)
        assert answer.status_code == 403
        assert "X-CSRF-Token" in answer.json()["detail"]
    assert browser.http.get("/api/me").json()["theme"] == "dark"


def test_pages_of_other_sites_get_nothing(guarded: Guarded, shared_gateway: Gateway, enter: Callable) -> None:
    browser = enter(guarded.url, "guest")
    host = httpx.URL(guarded.url).netloc.decode()
    for origin in (
        "https://evil.example",
        "null",
        f"https://{host}",
        "http://127.0.0.1:1",
        f"http://{host}/x",
    ):
        assert browser.http.get("/api/me", headers={"origin": origin}).status_code == 403
    assert browser.http.get("/api/me", headers={"origin": f"http://{host}"}).status_code == 200
    # without users there is no cookie to steal, so that any page could do everything
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = shared_gateway.http.post(
            "/api/users", headers={**headers, "content-type": "text/plain"}, content="{}"
        )
        assert answer.status_code == 403
        assert "another site" in answer.json()["detail"]


def test_names_that_are_not_ours(guarded: Guarded, shared_gateway: Gateway) -> None:
    port = httpx.URL(shared_gateway.url).port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "",
        "a@b",
        "::1",
    ):
        answer = shared_gateway.http.get("/api/devices", headers={"host": host})
        assert (answer.status_code, host) == (421, host)
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80"):
        assert shared_gateway.http.get("/api/devices", headers={"host": host}).status_code == 200
    # with users an address is as good as a name of ours: it cannot be made to mean another
    assert guarded.admin.http.get("/api/me", headers={"host": "10.0.0.1"}).status_code == 200
    assert guarded.admin.http.get("/api/me", headers={"host": "evil.example"}).status_code == 421


def test_without_users_nobody_comes_through_a_proxy(shared_gateway: Gateway) -> None:
    for name in ("x-forwarded-for", "forwarded", "x-real-ip", "via"):
        answer = shared_gateway.http.get("/api/devices", headers={name: "10.0.0.1"})
        assert answer.status_code == 403
        assert "samd-gateway users add" in answer.json()["detail"]


def test_tokens(guarded: Guarded, enter: Callable) -> None:
    narrow, reading = token_of(guarded.admin, "op", "models"), token_of(guarded.admin, "op", "read")
    http = httpx.Client(base_url=guarded.url, trust_env=False)
    with http:
        assert http.get("/api/devices", headers=bearer(reading)).status_code == 200
        assert http.get("/api/devices", headers=bearer(narrow)).status_code == 403
        me = http.get("/api/me", headers=bearer(narrow)).json()
        assert (me["name"], me["permissions"], me["csrf"], me["via"]) == ("op", ["models"], None, "api")
        run = {"rounds": 1}
        assert http.post("/api/runs", json=run, headers=bearer(reading)).status_code == 403
        for said in ("Bearer x", f"Bearer {reading}x", f"Basic {reading}", "Bearer", "é".encode("latin-1")):
            assert http.get("/api/devices", headers={"authorization": said}).status_code == 401
        # what opens is shown in no list, and of oneself nothing is changed by it
        listed = http.get("/api/tokens", headers=bearer(reading)).text
        assert reading not in listed
        assert reading.split("_")[1] in listed
        assert http.patch("/api/me", json={"theme": "dark"}, headers=bearer(reading)).status_code == 403
        own = http.post("/api/tokens", json={"name": "x", "scopes": ["read"]}, headers=bearer(reading))
        assert own.status_code == 403
        id_ = narrow.split("_")[1]
        assert guarded.admin.http.delete(f"/api/tokens/{id_}").json()["revoked_at"] is not None
        assert http.get("/api/me", headers=bearer(narrow)).status_code == 401
        foreign = guarded.admin.http.get("/api/tokens").json()["tokens"]
        assert {each["user"] for each in foreign} >= {"op"}
    guest = enter(guarded.url, "guest")
    assert guest.http.delete(f"/api/tokens/{reading.split('_')[1]}").status_code == 404
    assert guest.http.post("/api/tokens", json={"name": "x", "scopes": ["ward"]}).status_code == 422
    assert guest.http.post("/api/tokens", json={"name": "x", "scopes": ["read"]}).status_code == 201


def test_bodies_have_an_end(guarded: Guarded) -> None:
    http = guarded.admin.http
    big = b" " * (2**20 + 1)
    user = "/api/users"
    for content in (big, iter([big[:-1], b"  "])):  # announced, and in pieces that are not
        answer = http.post(user, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


def test_how_long_sessions_last(guarded: Guarded, enter: Callable) -> None:
    http = guarded.admin.http
    usual = {"idle_s": 28_800.0, "absolute_s": 86_400.0}
    assert http.get("/api/settings/sessions").json() == usual
    wall = {"idle_s": 604_800.0, "absolute_s": 2_592_000.0}
    assert http.put("/api/settings/sessions", json=wall).json() == wall
    guest = enter(guarded.url, "guest")
    (own,) = [each for each in guest.http.get("/api/sessions").json()["sessions"] if each["current"]]
    assert guest.http.delete(f"/api/sessions/{own['id']}").json() == {"ended": 1}
    assert guest.http.get("/api/me").status_code == 401
    assert http.put("/api/settings/sessions", json={"idle_s": 5}).status_code == 422
    assert http.put("/api/settings/sessions", json=usual).json() == usual
    found = http.get("/api/audit", params={"target": "settings/sessions"}).json()["entries"]
    assert found[0]["before"] == wall
    assert found[0]["after"] == usual


def test_who_signs_in_again_leaves_the_session_before(guarded: Guarded, enter: Callable) -> None:
    browser = enter(guarded.url, "guest")
    before = browser.http.cookies["samd_session"]
    other = enter(guarded.url)
    other.http.cookies.set("samd_session", before)
    assert other.http.get("/api/me").status_code == 200
    page = enter(guarded.url).http.get("/login")
    form = {"name": "n.kim", "password": PASSWORD, "csrf": field(page.text, "csrf")}
    cookie = f"samd_session={before}; samd_form={page.cookies['samd_form']}"
    assert other.http.post("/login", data=form, headers={"cookie": cookie}).status_code == 303
    browser.http.headers.pop("x-csrf-token")
    assert browser.http.get("/api/me").status_code == 401


def test_headers_of_every_answer(guarded: Guarded) -> None:
    for path in ("/api/me", "/nothing", "/login", "/healthz"):
        headers = httpx.get(guarded.url + path, trust_env=False).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_a_password_changed_by_oneself(guarded: Guarded, enter: Callable) -> None:
    user = {"name": "changes", "role": "viewer", "password": PASSWORD}
    assert guarded.admin.http.post("/api/users", json=user).status_code == 201
    browser, elsewhere = enter(guarded.url, "changes"), enter(guarded.url, "changes")
    change = {"current": PASSWORD, "password": "quite other words"}
    assert browser.http.post("/api/me/password", json=change | {"current": "x"}).status_code == 401
    assert browser.http.post("/api/me/password", json=change | {"password": "changes"}).status_code == 422
    assert browser.http.get("/api/me").status_code == 200
    assert browser.http.post("/api/me/password", json=change).status_code == 204
    for each in (browser, elsewhere):
        assert each.http.get("/api/me").status_code == 401
    assert browser.sign_in("changes").status_code == 401
    assert browser.sign_in("changes", "quite other words").status_code == 303
    # five are free, then the wait doubles, until it is longer than an attempt takes on any machine
    tried = [browser.http.post("/api/me/password", json=change)]
    while tried[-1].status_code == 401 and len(tried) < 14:
        tried.append(browser.http.post("/api/me/password", json=change))
    assert len(tried) > 5
    assert tried[-1].status_code == 429
    assert int(tried[-1].headers["retry-after"]) >= 1
    assert guarded.admin.http.delete("/api/users/changes/failures").status_code == 204
    again = browser.http.post(
        "/api/me/password", json={"current": "quite other words", "password": "some words once more"}
    )
    assert again.status_code == 204


class Inside:
    """An application behind the gate, on a real server, with users in a real database."""

    def __init__(self, folder: Path) -> None:
        self.access: Access = make_access(folder, Clock())
        self.acted: list[str] = []
        routes = [
            Route("/api/who", self.who, methods=["GET", "POST"]),
            Route("/api/stream", self.stream),
            WebSocketRoute("/_nicegui_ws/socket.io", self.socket),
        ]
        app = Gate(Starlette(routes=routes), self.access, names=["ward.example"])
        self.port = free_port()
        self.server = uvicorn.Server(
            uvicorn.Config(
                app,
                port=self.port,
                log_config=None,
                lifespan="off",
                proxy_headers=False,
                ws="websockets-sansio",
            )
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until(lambda: self.server.started, what="server")

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def who(self, request: Request) -> JSONResponse:
        actor = request.state.actor
        return JSONResponse({"name": actor.name, "via": actor.via})

    async def stream(self, _request: Request) -> StreamingResponse:
        async def ticks() -> object:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.05)

        return StreamingResponse(ticks(), media_type="text/plain")

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"name": socket.state.actor.name})
        try:
            while True:
                self.acted.append(await socket.receive_text())
                await socket.send_text("done")
        except WebSocketDisconnect:
            self.acted.append("gone")

    def add(self, name: str, role: str) -> str:
        """The cookie of a new user."""
        kept = self.access.hash_new(PASSWORD, name)
        with self.access.changing() as connection:
            users.add(connection, LOCAL, name, role, password_hash=kept, now=self.access.now())
        return self.access.begin_session(name).cookie

    def connect(self, cookie: str | None, origin: str | None = "own", **headers: str) -> object:
        sent = dict(headers)
        if cookie is not None:
            sent["cookie"] = f"samd_session={cookie}"
        if origin is not None:
            sent["origin"] = f"http://{self.netloc}" if origin == "own" else origin
        return connect(f"ws://{self.netloc}/_nicegui_ws/socket.io", additional_headers=sent, proxy=None)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10.0)
        self.access.database.close()


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    made = Inside(tmp_path / "gateway")
    yield made
    made.close()


def test_sockets_are_for_who_is_signed_in_on_our_own_page(inside: Inside) -> None:
    with inside.connect(None) as socket:  # no user is set up
        assert json.loads(socket.recv(5.0)) == {"name": "local"}
        cookie = inside.add("root", "admin")
        # and now there is one: whoever was there without signing in is out
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10.0)
        assert closed.value.rcvd.code == SIGNED_OUT
    with inside.connect(cookie) as socket:
        assert json.loads(socket.recv(5.0)) == {"name": "root"}
    for given, origin in (
        (None, "own"),
        ("x" * 43, "own"),
        (cookie, "https://evil.example"),
        (cookie, "null"),
        (cookie, None),  # a browser always says it
        (cookie, f"https://{inside.netloc}"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            inside.connect(given, origin)
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("change", ["disabled", "signed out", "expired"])
def test_a_socket_ends_with_its_session(inside: Inside, change: str) -> None:
    root = inside.add("root", "admin")
    cookie = inside.add("n.kim", "nurse")
    session = inside.access.session(cookie)
    with inside.connect(cookie) as socket, inside.connect(root) as other:
        socket.recv(5.0)
        other.recv(5.0)
        socket.send("acknowledge")
        assert socket.recv(5.0) == "done"
        if change == "disabled":
            with inside.access.changing() as connection:
                users.change(connection, LOCAL, "n.kim", disabled=True, now=inside.access.now())
        elif change == "signed out":
            inside.access.sign_out(session)
        else:  # known only to the clock
            inside.access.now.at += 9 * 3600
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(15.0)
        assert closed.value.rcvd.code == SIGNED_OUT
        if change != "expired":
            other.send("still here")
            assert other.recv(5.0) == "done"
    until(lambda: "gone" in inside.acted)
    assert inside.acted.count("acknowledge") == 1


def test_a_stream_ends_with_its_session(inside: Inside) -> None:
    inside.add("root", "admin")
    cookie = inside.add("n.kim", "nurse")
    http = httpx.Client(base_url=f"http://{inside.netloc}", cookies={"samd_session": cookie}, trust_env=False)
    with http, http.stream("GET", "/api/stream", timeout=20.0) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "tick"
        inside.access.end_sessions(LOCAL, "n.kim")
        assert all(line == "tick" for line in lines)  # and it comes to its end


def test_who_acts_is_known_inside(inside: Inside) -> None:
    inside.add("root", "admin")
    cookie = inside.add("n.kim", "nurse")
    session = inside.access.session(cookie)
    http = httpx.Client(base_url=f"http://{inside.netloc}", cookies={"samd_session": cookie}, trust_env=False)
    with http:
        assert http.get("/api/who").json() == {"name": "n.kim", "via": "page"}
        assert http.get("/api/who", headers={"host": "ward.example"}).status_code == 200
        assert http.post("/api/who").status_code == 403
        assert http.post("/api/who", headers={"x-csrf-token": session.csrf}).json()["name"] == "n.kim"


@pytest.mark.parametrize(
    ("value", "scheme", "expected"),
    [
        ("Ward.Example", "http", ("ward.example", 80)),
        ("ward.example.:8080", "https", ("ward.example", 8080)),
        ("[::1]", "https", ("::1", 443)),
        ("a/b", "http", None),
        ("a@b", "http", None),
        ("a:x", "http", None),
        ("a:99999", "http", None),
        ("", "http", None),
        ("[::1", "http", None),
    ],
)
def test_hosts(value: str, scheme: str, expected: tuple[str, int] | None) -> None:
    assert hosts.split_host(value, scheme) == expected


def test_origins() -> None:
    assert hosts.same_origin("https://ward.example", "wss", "ward.example:443")
    assert not hosts.same_origin("http://ward.example", "https", "ward.example")
    assert not hosts.same_origin("https://ward.example.evil", "https", "ward.example")
    assert not hosts.same_origin("null", "https", "ward.example")
    assert hosts.is_loopback("::ffff:127.0.0.1")
    assert not hosts.is_loopback("127.0.0.1.evil.example")
