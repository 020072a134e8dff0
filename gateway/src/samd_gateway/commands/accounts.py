"""Where users, tokens and the audit are: at a running gateway, or in its folder, for who owns that."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from samd_gateway.commands import connected
from samd_gateway.errors import NotFoundError

if TYPE_CHECKING:
    from samd_gateway.client import Client

Json = dict[str, Any]


class Accounts(Protocol):
    """What both ways can do; answers are those of the HTTP API."""

    def users(self) -> list[Json]: ...
    def add_user(self, name: str, role: str, display: str, password: str | None) -> Json: ...
    def change_user(self, name: str, **changes: Any) -> Json: ...
    def set_password(self, name: str, password: str) -> None: ...
    def unlock(self, name: str) -> None: ...
    def tokens(self) -> list[Json]: ...
    def add_token(self, user: str | None, name: str, scopes: list[Any], days: float | None) -> Json: ...
    def revoke_token(self, id_: str) -> Json: ...
    def audit(self, limit: int, **asked: Any) -> list[Json]: ...


class AtGateway:
    """By the HTTP API."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def users(self) -> list[Json]:
        return list(self._client.get("/api/users")["users"])

    def add_user(self, name: str, role: str, display: str, password: str | None) -> Json:
        body = {"name": name, "role": role, "display": display, "password": password}
        return self._client.post("/api/users", body)

    def change_user(self, name: str, **changes: Any) -> Json:
        return self._client.patch(f"/api/users/{_plain(name)}", changes)

    def set_password(self, name: str, password: str) -> None:
        self._client.put(f"/api/users/{_plain(name)}/password", {"password": password})

    def unlock(self, name: str) -> None:
        self._client.delete(f"/api/users/{_plain(name)}/failures")

    def tokens(self) -> list[Json]:
        return list(self._client.get("/api/tokens")["tokens"])

    def add_token(self, user: str | None, name: str, scopes: list[Any], days: float | None) -> Json:
        body = {"user": user, "name": name, "scopes": scopes, "expires_in_days": days}
        return self._client.post("/api/tokens", body)

    def revoke_token(self, id_: str) -> Json:
        return self._client.delete(f"/api/tokens/{_plain(id_)}")

    def audit(self, limit: int, **asked: Any) -> list[Json]:
        found: list[Json] = []
        query = {key: value for key, value in asked.items() if value is not None}
        while len(found) < limit:
            answer = self._client.get("/api/audit", **query, limit=min(1000, limit - len(found)))
            found += answer["entries"]
            if answer["next"] is None:
                break
            query["before"] = answer["next"]
        return found


def add_place(parser: argparse.ArgumentParser) -> None:
    """The option that leads to the folder instead of to a gateway."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="work on this folder of a gateway, running or not, instead of asking one",
    )


def placed(
    action: Callable[[Accounts, argparse.Namespace], int], now: Callable[[], float]
) -> Callable[[argparse.Namespace], int]:
    """A command's function: the action, given where the accounts are."""

    def run(arguments: argparse.Namespace) -> int:
        if arguments.data is None:
            return connected(lambda client, given: action(AtGateway(client), given))(arguments)
        from samd_gateway.commands.folder_accounts import InFolder

        with InFolder(arguments.data, now) as accounts:
            return action(accounts, arguments)

    return run


def _plain(name: str) -> str:
    """A name that may stand in a path. Raises NotFoundError for what no name can be."""
    if not name or not name.isascii() or set(name) & set("/?#%\\ ") or name in (".", ".."):
        raise NotFoundError(f"nothing here is called {name[:64]!r}")
    return name
