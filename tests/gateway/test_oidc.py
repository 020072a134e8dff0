"""Single sign-on against a real provider: who comes in, as whom, and when its word must not hold."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from access_peers import PASSWORD, Browser, Clock
from access_peers import access as make_access
from gateway_peers import Gateway, free_port
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from oidc_provider import CLIENT, SECRET, Provider

from samd_gateway.access import oidc, users
from samd_gateway.access.actor import LOCAL
from samd_gateway.access.arrivals import arrive
from samd_gateway.access.oidc import Identity, OidcConfig
from samd_gateway.cli import main
from samd_gateway.errors import ConflictError, SignInError, UsageError


def described(folder: Path, issuer: str, public_url: str) -> Path:
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    path = folder / "oidc.toml"
    path.write_text(
        f'issuer = "{issuer}"\nclient_id = "{CLIENT}"\nclient_secret_file = "{secret}"\n'
        f'public_url = "{public_url}"\nlabel = "Hospital account"\n'
        '[roles]\nward-7 = "nurse"\n"samd admins" = "admin"\nvisitors = "viewer"\n'
    )
    return path


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _honest(provider: Provider) -> None:
    provider.spoil = {}
    provider.person = {
        "sub": "17",
        "preferred_username": "N.Kim",
        "name": "N. Kim",
        "groups": ["ward-7", "x"],
    }


@pytest.fixture(scope="module")
def gateway(
    broker_url: str, provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("oidc")
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD)
    data = folder / "gateway"
    add = ["users", "add", "root", "--role", "admin", "--data", str(data), "--password-file", str(password)]
    assert main(add) == 0
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    provider.redirect_uris.add(f"{url}/login/oidc/callback")
    config = described(folder, provider.issuer, url)
    made = Gateway(broker_url, data, "--no-pages", "--port", str(port), "--oidc", str(config))
    yield made
    assert made.end() == 0


def leave(browser: Browser, next_: str = "/api/me") -> str:
    """To the provider and back: the address that the browser is sent to in the end, not yet asked for."""
    way = browser.http.get("/login/oidc", params={"next": next_})
    assert way.status_code == 303
    back = httpx.get(way.headers["location"], trust_env=False)
    assert back.status_code == 303
    return str(back.headers["location"])


def test_who_comes_from_the_provider(gateway: Gateway, provider: Provider, enter: Callable) -> None:
    browser = enter(gateway.url)
    page = browser.http.get("/login", params={"next": "/api/me"}).text
    assert "Hospital account" in page
    assert 'href="/login/oidc?next=/api/me"' in page
    answer = browser.http.get(leave(browser))
    assert (answer.status_code, answer.headers["location"]) == (303, "/api/me")
    me = browser.http.get("/api/me").json()
    assert (me["name"], me["role"], me["display"]) == ("n.kim", "nurse", "N. Kim")
    asked = provider.asked[-1]
    assert len(asked["state"]) == len(asked["nonce"]) == len(asked["code_challenge"]) == 43
    # the same person is the same user, with the role of today, and of several the strongest
    provider.person |= {"preferred_username": "kim-lee", "groups": ["visitors", "samd admins"]}
    again = enter(gateway.url)
    assert again.http.get(leave(again)).status_code == 303
    me = again.http.get("/api/me").json()
    assert (me["name"], me["role"]) == ("n.kim", "admin")
    found = again.http.get("/api/audit", params={"target": "user/n.kim"}).json()["entries"]
    assert [(each["action"], each["actor"]) for each in reversed(found)] == [
        ("user.add", "system"),
        ("session.begin", "n.kim"),
        ("user.change", "system"),
        ("session.begin", "n.kim"),
    ]
    assert found[0]["after"] == {"by": "single sign-on"}
    # a password is no way in for who has none
    assert enter(gateway.url).sign_in("n.kim", "x" * 12).status_code == 401
    # who has the name of somebody here is somebody else
    provider.person = {"sub": "18", "preferred_username": "root", "groups": ["visitors"]}
    other = enter(gateway.url)
    assert other.http.get(leave(other)).status_code == 303
    name = other.http.get("/api/me").json()["name"]
    assert name.startswith("root-")
    assert len(name) == len("root-") + 8
    # without a role here nobody gets in, and who had one is out
    provider.person = {"sub": "17", "preferred_username": "n.kim", "groups": ["x"]}
    late = enter(gateway.url)
    refused = late.http.get(leave(late))
    assert refused.status_code == 403
    assert "no role here" in refused.text
    assert again.http.get("/api/me").status_code == 401
    # a disabled user stays out, whatever the provider says
    root = enter(gateway.url, "root")
    assert root.http.patch(f"/api/users/{name}", json={"disabled": True}).status_code == 200
    provider.person = {"sub": "18", "preferred_username": "root", "groups": ["samd admins"]}
    assert other.http.get("/api/me").status_code == 401
    assert other.http.get(leave(other)).status_code == 403


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ({"claims": {"nonce": "another"}}, "does not hold"),
        ({"claims": {"aud": "somebody else"}}, "does not hold"),
        ({"claims": {"aud": [CLIENT, "other"], "azp": "other"}}, "does not hold"),
        ({"claims": {"iss": "http://127.0.0.1/other"}}, "does not hold"),
        ({"claims": {"exp": 1_000_000}}, "does not hold"),
        ({"claims": {"iat": 4_000_000_000}}, "does not hold"),
        ({"claims": {"at_hash": "AAAA"}}, "does not hold"),
        ({"key": RSAKey.generate_key(2048)}, "does not hold"),
        ({"alg": "HS256"}, "does not hold"),
        ({"alg": "none"}, "does not hold"),
        ({"iss": "http://127.0.0.1/other"}, "another provider"),
        ({"error": "access_denied"}, "access_denied"),
        ({"error": "<script>alert(1)</script>"}, "&lt;script&gt;"),
    ],
)
def test_a_word_that_does_not_hold(
    gateway: Gateway, provider: Provider, enter: Callable, spoil: dict[str, Any], why: str
) -> None:
    provider.spoil = spoil
    browser = enter(gateway.url)
    answer = browser.http.get(leave(browser))
    assert answer.status_code == 403
    assert why in answer.text
    assert browser.http.get("/api/me").status_code == 401


def test_an_answer_belongs_to_one_browser_and_counts_once(gateway: Gateway, enter: Callable) -> None:
    browser, other = enter(gateway.url), enter(gateway.url)
    theirs = leave(other)
    leave(browser)
    # signed in as somebody else by a link that they prepared: the state is not this browser's
    assert browser.http.get(theirs).status_code == 403
    assert enter(gateway.url).http.get(theirs).status_code == 403
    # and after that refusal this browser's own way is over, too
    assert browser.http.get("/api/me").status_code == 401
    first = leave(browser)
    kept = browser.http.cookies["samd_oidc"]
    assert browser.http.get(first).status_code == 303
    fresh = enter(gateway.url)
    fresh.http.cookies.set("samd_oidc", kept)
    again = fresh.http.get(first)  # seen over a shoulder, with the cookie even: the code was used
    assert again.status_code == 403
    assert "answered 400" in again.text


def test_next_stays_here(gateway: Gateway, enter: Callable) -> None:
    browser = enter(gateway.url)
    assert browser.http.get(leave(browser, "https://evil.example")).headers["location"] == "/"


def config_of(provider: Provider, tmp_path: Path) -> OidcConfig:
    return oidc.read_config(str(described(tmp_path, provider.issuer, "http://127.0.0.1:1")))


def test_keys_that_change_are_asked_for_anew_and_not_too_often(provider: Provider, tmp_path: Path) -> None:
    clock = Clock()
    client = oidc.Provider(config_of(provider, tmp_path), now=clock)
    metadata = client.metadata()
    provider.keys_asked = 0
    for _ in range(5):
        with pytest.raises(JoseError):
            client._decode(metadata, "e30.e30.e30")
    assert provider.keys_asked == 1
    clock.at += 61
    with pytest.raises(JoseError):
        client._decode(metadata, "e30.e30.e30")
    assert provider.keys_asked == 2


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "http://provider.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": None},
    ],
)
def test_metadata_that_are_not_taken(provider: Provider, tmp_path: Path, metadata: dict[str, Any]) -> None:
    provider.spoil = {"metadata": metadata}
    with pytest.raises(SignInError, match="metadata"):
        oidc.Provider(config_of(provider, tmp_path), now=Clock()).metadata()


def test_a_provider_that_is_away(tmp_path: Path) -> None:
    path = described(tmp_path, f"http://127.0.0.1:{free_port()}", "http://127.0.0.1:1")
    client = oidc.Provider(oidc.read_config(str(path)), now=Clock())
    with pytest.raises(SignInError, match="sign in by password"):
        client.way(state="s", nonce="n", verifier="v")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('issuer = "http://login.example"', "issuer must be an https"),
        ('public_url = "https://me@ward.example"', "public_url must be"),
        ("client_id = 5", "client_id"),
        ('colour = "red"', "colour"),
        ("roles = {}", "nobody could get in"),
        ('roles = {x = "king"}', "king"),
        ('scopes = ["profile"]', "openid"),
        ("x = = 1", "line"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, line: str, why: str) -> None:
    lines = {
        "issuer": 'issuer = "https://login.example"',
        "client_id": 'client_id = "samd"',
        "public_url": 'public_url = "https://ward.example"',
        "roles": 'roles = {ward-7 = "nurse"}',
    }
    path = tmp_path / "oidc.toml"
    path.write_text("\n".join(lines.values()))
    assert oidc.read_config(str(path)).redirect_uri == "https://ward.example/login/oidc/callback"
    lines[line.split(maxsplit=1)[0]] = line
    path.write_text("\n".join(lines.values()))
    with pytest.raises(UsageError, match=why):
        oidc.read_config(str(path))


def test_the_claim_of_a_role_may_lie_deeper() -> None:
    config = OidcConfig(
        issuer="https://a",
        client_id="b",
        public_url="https://c",
        roles={"x": "viewer", "y": "operator"},
        role_claim="realm_access.roles",
    )
    assert oidc.role_of({"realm_access": {"roles": ["x", "y", 5]}}, config) == "operator"
    assert oidc.role_of({"realm_access": {"roles": "x"}}, config) == "viewer"
    for claims in ({}, {"realm_access": ["x"]}, {"realm_access": {"roles": {"x": 1}}}, {"roles": ["x"]}):
        assert oidc.role_of(claims, config) is None


def test_the_provider_does_not_take_the_last_admin(tmp_path: Path) -> None:
    access = make_access(tmp_path / "gateway", Clock())
    kept = access.hash_new(PASSWORD, "root")
    ann = Identity(subject="iss 1", name="Ann\nB", display="A\x00nn", role="admin")
    with access.changing() as connection:
        users.add(connection, LOCAL, "root", "admin", password_hash=kept, now=1.0)
        assert arrive(connection, ann, now=2.0) == "ann-b"
        assert users.one(connection, "ann-b").display == "Ann"
        users.change(connection, LOCAL, "root", disabled=True, now=3.0)
        lesser = Identity(subject="iss 1", name="Ann", display="", role="viewer")
        with pytest.raises(ConflictError, match="last admin"):
            arrive(connection, lesser, now=4.0)
    access.database.close()
