"""People who sign in at a real gateway: browsers with cookies, programs with tokens."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from argon2 import PasswordHasher
from gateway_peers import Gateway

from samd_gateway.access.actor import Role
from samd_gateway.access.desk import Access
from samd_gateway.access.passwords import Passwords
from samd_gateway.schema import Database, open_database

PASSWORD = "some words in a row"  # noqa: S105 - of tests
ROLES: dict[str, Role] = {"root": "admin", "op": "operator", "n.kim": "nurse", "guest": "viewer"}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


class Browser:
    """A browser as far as cookies and forms go; it sends the token of its session as pages do."""

    def __init__(self, url: str, **options: Any) -> None:
        self.http = httpx.Client(base_url=url, timeout=20.0, trust_env=False, **options)

    def form(self, **query: str) -> str:
        """The token of a new login form."""
        page = self.http.get("/login", params=query)
        assert page.status_code == 200
        return field(page.text, "csrf")

    def sign_in(self, name: str, password: str = PASSWORD, *, next_: str = "/") -> httpx.Response:
        answer = self.http.post(
            "/login", data={"name": name, "password": password, "csrf": self.form(), "next": next_}
        )
        if answer.status_code == 303:
            self.http.headers["x-csrf-token"] = self.http.get("/api/me").json()["csrf"]
        return answer


class Guarded(NamedTuple):
    """A gateway with users, and its admin."""

    gateway: Gateway
    admin: Browser

    @property
    def url(self) -> str:
        return self.gateway.url


def field(page: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None
    return found[1]


def signed_in(url: str, name: str) -> Browser:
    browser = Browser(url)
    assert browser.sign_in(name).status_code == 303
    return browser


def token_of(admin: Browser, user: str, *scopes: str, **more: Any) -> str:
    body = {"name": "test", "user": user, "scopes": list(scopes), **more}
    answer = admin.http.post("/api/tokens", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def add_users(gateway: Gateway) -> Browser:
    """One user of each role, the first added by nobody; the admin's browser."""
    http = httpx.Client(base_url=gateway.url, trust_env=False)
    with http:
        first = {"name": "root", "role": "admin", "password": PASSWORD}
        assert http.post("/api/users", json=first).status_code == 201
    admin = signed_in(gateway.url, "root")
    for name, role in ROLES.items():
        if name != "root":
            body = {"name": name, "role": role, "password": PASSWORD}
            assert admin.http.post("/api/users", json=body).status_code == 201
    return admin


def database(folder: Path) -> Database:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open_database(None, folder)


def access(folder: Path, clock: Clock) -> Access:
    return on(database(folder), clock)


def on(opened: Database, clock: Clock) -> Access:
    """With hashes that cost little: what they cost is not what is tested."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    return Access(opened, now=clock, passwords=Passwords(cheap))
