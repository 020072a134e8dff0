"""Users, tokens and the audit in a gateway's database, for who owns it; see `accounts`."""

import getpass
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from samd_gateway.access import audit, tokens, users
from samd_gateway.access.actor import LOCAL, Actor
from samd_gateway.access.answers import entry_out, token_out, user_out
from samd_gateway.access.desk import Access
from samd_gateway.answers import Answer
from samd_gateway.commands.accounts import Json
from samd_gateway.errors import UsageError
from samd_gateway.schema import open_database

DAY_S = 86_400.0


class InFolder:
    """In the database itself: whoever may write its file, or has the database's password, owns it."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        if not folder.is_dir():
            try:
                folder.mkdir(mode=0o700, parents=True)
            except OSError as error:
                raise UsageError(f"--data {folder}: cannot be made ({error.strerror})") from error
        self._database = open_database(
            os.environ.get("SAMD_DATABASE_URL") or None,
            folder,
            password_file=os.environ.get("SAMD_DATABASE_PASSWORD_FILE") or None,
        )
        self._now = now
        self._access = Access(self._database, now=now)
        self._actor = Actor(name=f"{LOCAL.name}:{_operator()}"[:64], role="admin", via="cli")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def users(self) -> list[Json]:
        with self._database.read() as connection:
            return [_json(user_out(user)) for user in users.every(connection)]

    def add_user(self, name: str, role: Any, display: str, password: str | None) -> Json:
        kept = None if password is None else self._access.hash_new(password, name)
        with self._access.changing() as connection:
            added = users.add(
                connection, self._actor, name, role, password_hash=kept, display=display, now=self._now()
            )
        return _json(user_out(added))

    def change_user(self, name: str, **changes: Any) -> Json:
        with self._access.changing() as connection:
            return _json(user_out(users.change(connection, self._actor, name, now=self._now(), **changes)))

    def set_password(self, name: str, password: str) -> None:
        kept = self._access.hash_new(password, name)
        with self._access.changing() as connection:
            users.set_password(connection, self._actor, name, kept, now=self._now())

    def unlock(self, name: str) -> None:
        self._access.unlock(self._actor, name)

    def tokens(self) -> list[Json]:
        with self._database.read() as connection:
            return [_json(token_out(token)) for token in tokens.of(connection, None)]

    def add_token(self, user: str | None, name: str, scopes: list[Any], days: float | None) -> Json:
        if user is None:
            raise UsageError("say for whom: --user NAME")
        now = self._now()
        ends = None if days is None else now + days * DAY_S
        with self._database.write() as connection:
            listed, token = tokens.add(connection, self._actor, user, name, scopes, expires_at=ends, now=now)
        return {"token": token, "listed": _json(token_out(listed))}

    def revoke_token(self, id_: str) -> Json:
        with self._access.changing() as connection:
            return _json(token_out(tokens.revoke(connection, self._actor, id_, now=self._now())))

    def audit(self, limit: int, **asked: Any) -> list[Json]:
        for key in ("since", "until"):
            if asked.get(key) is not None:
                asked[key] = datetime.fromisoformat(asked[key]).timestamp()
        with self._database.read() as connection:
            found, _ = audit.page(connection, audit.Asked(**asked), limit)
        return [_json(entry_out(entry)) for entry in found]


def _operator() -> str:
    """Who works at this machine, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{os.getuid()}"


def _json(answer: Answer) -> Json:
    return answer.model_dump(mode="json")
