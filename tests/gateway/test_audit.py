"""The audit, and that every route of the API is for those alone whose role holds its permission."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from access_peers import PASSWORD, Clock, Guarded, bearer, token_of
from access_peers import access as make_access
from gateway_peers import Device, Gateway, own_file, until

from samd_gateway.access import audit
from samd_gateway.access.actor import LOCAL, SYSTEM
from samd_gateway.access.desk import Access
from samd_gateway.cli import main
from samd_gateway.commands.audit import differing

OWN = {
    ("patch", "/api/me"),
    ("post", "/api/me/password"),
    ("post", "/api/tokens"),
    ("delete", "/api/tokens/{token}"),
    ("delete", "/api/sessions/{session}"),
    ("post", "/api/fleet/views"),
    ("delete", "/api/fleet/views/{view}"),
}
"""What everybody does with their own: each is refused by its own code, 404 or 422 here, for what is not."""
BEDSIDE = ("/api/ward/", "/api/alerts/")
STRANGERS = {"/healthz", "/api/models/{sha256}.samd"}
MODEL = "0" * 64


@pytest.fixture(scope="module")
def routes(guarded: Guarded) -> list[tuple[str, str]]:
    """(method, path) of every route that the API's document describes."""
    paths = guarded.admin.http.get("/openapi.json").json()["paths"]
    found = [(method, path) for path, methods in paths.items() for method in methods]
    assert len(found) > 60
    return found


def filled(path: str) -> str:
    """A path with something in the place of each parameter, that is nothing's name."""
    for name, value in (("sha256", MODEL), ("token", "0" * 12), ("session", "0" * 16)):
        path = path.replace(f"{{{name}}}", value)
    return re.sub(r"\{[^}]+\}", "nothing", path)


def status(http: httpx.Client, method: str, path: str) -> int:
    """Of an answer that is not read to its end: some are streams."""
    with http.stream(method, filled(path), timeout=30.0) as answer:
        # 503 of /healthz is no problem document: it tells of each part
        if answer.status_code >= 400 and method != "head" and path != "/healthz":
            answer.read()
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
        return answer.status_code


def test_without_credentials_nothing_is_served(guarded: Guarded, routes: list[tuple[str, str]]) -> None:
    with httpx.Client(base_url=guarded.url, trust_env=False) as http:
        for method, path in routes:
            if path != "/healthz":
                assert (status(http, method, path), method, path) == (401, method, path)


def test_a_viewer_changes_nothing(guarded: Guarded, routes: list[tuple[str, str]], enter: Callable) -> None:
    guest = enter(guarded.url, "guest")
    reading = token_of(guarded.admin, "guest", "read")
    with httpx.Client(base_url=guarded.url, trust_env=False, headers=bearer(reading)) as program:
        for http in (guest.http, program):
            for method, path in routes:
                if method not in ("get", "head") and (method, path) not in OWN:
                    assert (status(http, method, path), method, path) == (403, method, path)
    for method, path in OWN:
        assert status(guest.http, method, path) in (404, 422)


def test_what_a_viewer_does_not_read(
    guarded: Guarded, routes: list[tuple[str, str]], enter: Callable
) -> None:
    guest = enter(guarded.url, "guest")
    kept = {path for method, path in routes if method == "get" and status(guest.http, method, path) == 403}
    assert kept >= {"/api/audit", "/api/users", "/api/users/{name}", "/api/export/audit"}
    open_ = {path for method, path in routes if method == "get"} - kept
    assert open_ >= {"/api/ward", "/api/devices", "/api/alerts", "/api/runs", "/api/fleet", "/metrics"}


def test_a_token_without_read_reads_nothing(guarded: Guarded, routes: list[tuple[str, str]]) -> None:
    token = token_of(guarded.admin, "op", "models")
    with httpx.Client(base_url=guarded.url, trust_env=False, headers=bearer(token)) as http:
        for method, path in routes:
            if method == "get" and path not in STRANGERS | {"/api/me"}:
                assert (status(http, method, path), path) == (403, path)


def test_nurses_and_operators_keep_to_their_own(
    guarded: Guarded, routes: list[tuple[str, str]], enter: Callable
) -> None:
    nurse, operator = enter(guarded.url, "n.kim"), enter(guarded.url, "op")
    for method, path in routes:
        if method in ("get", "head") or (method, path) in OWN:
            continue
        bedside = path.startswith(BEDSIDE)
        assert ((status(nurse.http, method, path) == 403), method, path) == (not bedside, method, path)
        if bedside or path.startswith(("/api/users", "/api/channels", "/api/backup", "/api/restore")):
            assert (status(operator.http, method, path), method, path) == (403, method, path)


def actions(admin: httpx.Client, **asked: Any) -> list[tuple[str, str, str]]:
    """(actor, action, target), the oldest first."""
    answer = admin.get("/api/audit", params={"limit": 1000, **asked})
    assert answer.status_code == 200
    return [(each["actor"], each["action"], each["target"]) for each in reversed(answer.json()["entries"])]


def test_each_change_leaves_its_entry(
    broker_url: str, guarded: Guarded, peers: Callable, name: str, enter: Callable
) -> None:
    peers(Device(broker_url, name))
    root, op = guarded.admin.http, enter(guarded.url, "op").http
    until(lambda: root.get(f"/api/devices/{name}").status_code == 200)
    target = f"device/{name}"

    user = {"name": "temp", "role": "viewer", "display": "T", "password": PASSWORD}
    assert root.post("/api/users", json=user).status_code == 201
    assert root.patch("/api/users/temp", json={"role": "nurse"}).status_code == 200
    assert root.patch("/api/users/temp", json={"role": "nurse"}).status_code == 200  # no change, no entry
    enter(guarded.url, "temp")
    assert root.delete("/api/users/temp/sessions").json() == {"ended": 1}
    password = {"password": "quite other words"}
    assert root.put("/api/users/temp/password", json=password).status_code == 204
    assert root.delete("/api/users/temp/failures").status_code == 204
    assert root.patch("/api/users/temp", json={"disabled": True}).status_code == 200
    assert actions(root, target="user/temp") == [
        ("root", "user.add", "user/temp"),
        ("root", "user.change", "user/temp"),
        ("temp", "session.begin", "user/temp"),
        ("root", "session.end", "user/temp"),
        ("root", "user.password", "user/temp"),
        ("root", "user.unlock", "user/temp"),
        ("root", "user.change", "user/temp"),
    ]
    changed = root.get("/api/audit", params={"target": "user/temp", "action": "user.change"}).json()[
        "entries"
    ]
    assert [(each["before"]["role"], each["after"]["role"]) for each in changed] == [
        ("nurse", "nurse"),
        ("viewer", "nurse"),
    ]
    everything = root.get("/api/audit", params={"limit": 1000}).text
    for secret in (PASSWORD, "quite other words", "argon2"):
        assert secret not in everything

    retag = {"devices": [name], "add": ["ward-7"], "remove": []}
    assert op.post("/api/fleet/tags", json=retag).status_code == 200
    command = {"body": {"type": "report"}}
    assert op.post(f"/api/devices/{name}/commands", json=command).status_code == 202
    mine = [each for each in actions(root, actor="op") if each[2].endswith(name) or name in str(each)]
    assert ("op", "device.command", target) in mine
    assert any(
        action.startswith(("device.tag", "fleet.", "tag")) for _, action, _ in actions(root, actor="op")
    )


def test_pages_by_key(guarded: Guarded) -> None:
    http = guarded.admin.http
    every = http.get("/api/audit", params={"limit": 1000}).json()
    assert every["next"] is None
    found: list[int] = []
    before: dict[str, int] = {}
    while True:
        page = http.get("/api/audit", params={"limit": 3, **before}).json()
        found += [each["id"] for each in page["entries"]]
        if page["next"] is None:
            break
        assert len(page["entries"]) == 3
        before = {"before": page["next"]}
    assert found == [each["id"] for each in every["entries"]]
    assert found == sorted(found, reverse=True)
    for wrong in ({"limit": 0}, {"limit": 1001}, {"before": 0}, {"since": "yesterday"}, {"actor": ""}):
        assert http.get("/api/audit", params=wrong).status_code == 422


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Access]:
    made = make_access(tmp_path / "gateway", Clock())
    yield made
    made.database.close()


def test_what_is_asked_for(desk: Access) -> None:
    with desk.database.write() as connection:
        for at, actor, action, target in (
            (1.0, LOCAL, "alert.acknowledge", "alert/1"),
            (2.0, SYSTEM, "alert.raise", "alert/1"),
            (3.0, LOCAL, "alerts.x", "alert/10"),
            (4.0, LOCAL, "user.add", "user/a_b%"),
        ):
            audit.record(connection, actor, action, target, now=at, after={"x": at, "at": Path("/x")})

    def asked(**wanted: Any) -> list[float]:
        with desk.database.read() as connection:
            found, _ = audit.page(connection, audit.Asked(**wanted), 10)
        return [each.at for each in found]

    assert asked() == [4.0, 3.0, 2.0, 1.0]
    assert asked(action="alert") == [2.0, 1.0]
    assert asked(action="alert.raise") == [2.0]
    assert asked(target="alert") == [3.0, 2.0, 1.0]
    assert asked(target="alert/1") == [2.0, 1.0]
    assert asked(target="user/a_b%") == [4.0]
    assert asked(target="user/_") == []
    assert asked(actor="system") == [2.0]
    assert asked(since=2.0, until=4.0) == [3.0, 2.0]
    assert asked(before=3) == [2.0, 1.0]


def test_an_entry_is_written_with_its_change_or_not_at_all(desk: Access) -> None:
    def change() -> None:
        with desk.database.write() as connection:
            audit.record(connection, LOCAL, "user.add", "user/x", now=1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    with desk.database.read() as connection:
        assert audit.page(connection, audit.Asked(), 10) == ([], None)


def test_the_command(guarded: Guarded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(token_of(guarded.admin, "op", "audit", "read"))
    at = ["audit", "list", "--gateway", guarded.url, "--token-file", str(token)]
    assert main([*at, "--action", "user", "--actor", "root"]) == 0
    told = capsys.readouterr().out
    assert "user.add" in told
    assert "session.begin" not in told
    assert main([*at, "--since", "2999-01-01"]) == 0
    assert capsys.readouterr().out == "nothing of this kind is on record\n"
    assert main([*at, "--limit", "2", "--json"]) == 0
    assert capsys.readouterr().out.count('"action"') == 2
    assert main(["users", "list", "--gateway", guarded.url, "--token-file", str(token)]) == 2
    assert "needs the permission 'users'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*at, "--since", "yesterday"])
    assert "write ISO 8601" in capsys.readouterr().err


def test_only_what_differs_is_shown() -> None:
    assert differing({"role": "nurse", "x": 1}, {"role": "viewer", "x": 1}) == (
        'role "nurse"',
        'role "viewer"',
    )
    assert differing(None, {"b": 1, "a": None}) == ("", "a null, b 1")
    assert differing({"a": 1}, None) == ("a 1", "")
    assert differing(None, None) == ("", "")


def test_who_works_on_the_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD)
    data = ["--data", str(tmp_path / "gateway")]
    given = ["--password-file", str(password), *data]
    assert main(["users", "list", *data]) == 0
    assert "no user is set up" in capsys.readouterr().out
    assert main(["users", "add", "n.kim", "--role", "nurse", *given]) == 2
    assert "first user must be an admin" in capsys.readouterr().err
    assert main(["users", "add", "root", "--role", "admin", *given]) == 0
    assert main(["users", "add", "server", "--role", "operator", "--no-password", *data]) == 0
    assert main(["users", "add", "root", "--role", "admin", *given]) == 2
    assert "there is a user 'root' already" in capsys.readouterr().err
    assert main(["users", "change", "root", "--disable", *data]) == 2
    assert "last admin" in capsys.readouterr().err
    assert main(["users", "change", "server", *data]) == 2
    assert main(["users", "change", "server", "--role", "viewer", "--display", "S", *data]) == 0
    assert main(["users", "password", "root", *given]) == 0
    assert main(["users", "unlock", "root", *data]) == 0
    capsys.readouterr()
    token = tmp_path / "token"
    add = ["tokens", "add", "reader", "--user", "server", "--scope", "read", *data]
    assert main([*add, "--out", str(token), "--expires-in", "never"]) == 0
    assert token.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"samd_[0-9a-f]{12}_[\w-]{43}\n", token.read_text())
    assert main([*add, "--out", str(token)]) == 2
    assert "name a new file" in capsys.readouterr().err
    assert main(["tokens", "add", "x", "--user", "server", "--scope", "users", *data]) == 2
    assert main([*add]) == 0
    shown = capsys.readouterr().out.strip()
    assert shown.startswith("samd_")
    id_ = shown.split("_")[1]
    assert main(["tokens", "revoke", id_, *data]) == 0
    assert main(["tokens", "list", "--json", *data]) == 0
    assert shown not in (listed := capsys.readouterr().out)
    assert id_ in listed
    assert main(["users", "list", *data]) == 0
    assert "server" in capsys.readouterr().out
    assert main(["audit", "list", "--json", "--limit", "50", *data]) == 0
    told = capsys.readouterr().out
    assert told.count('"actor": "local:') == 8
    assert '"via": "cli"' in told
    password.chmod(0o644)
    assert main(["users", "password", "root", *given]) == 2
    assert "chmod 600" in capsys.readouterr().err


@own_file
def test_the_first_admin_by_a_gateway_that_runs(
    broker_url: str, make_gateway: Callable[..., Gateway], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = make_gateway(broker_url, "--no-pages")
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD)
    given = ["--password-file", str(password)]
    at = ["--gateway", gateway.url]
    assert main(["users", "add", "root", "--role", "admin", *given, *at]) == 0
    assert main(["users", "list", *at]) == 2
    assert "--token-file FILE" in capsys.readouterr().err
    # and another, on its folder while it runs: it counts within a second
    data = ["--data", str(gateway.data)]
    assert main(["users", "add", "second", "--role", "admin", *given, *data]) == 0
    token = tmp_path / "token"
    scopes = ["--scope", "users", "--scope", "read", "--scope", "audit"]
    assert main(["tokens", "add", "t", "--user", "second", *scopes, "--out", str(token), *data]) == 0
    at += ["--token-file", str(token)]
    assert main(["users", "change", "root", "--disable", "--json", *at]) == 0
    assert '"disabled_at": "2' in capsys.readouterr().out
    assert main(["users", "add", "third", "--role", "viewer", *given, *at]) == 0
    assert main(["users", "password", "third", *given, *at]) == 0
    assert main(["users", "unlock", "third", *at]) == 0
    assert main(["users", "unlock", "a/b", *at]) == 2
    assert main(["tokens", "add", "own", "--scope", "read", *at]) == 0
    assert main(["tokens", "add", "more", "--scope", "runs", *at]) == 2
    assert "more than they may" in capsys.readouterr().err
    assert main(["audit", "list", "--json", *at]) == 0
    assert '"via": "cli"' in capsys.readouterr().out
