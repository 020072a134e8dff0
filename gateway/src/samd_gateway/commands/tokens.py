"""`samd-gateway tokens`: what programs show instead of signing in."""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, get_args

from samd_gateway.access.actor import Permission
from samd_gateway.client import say
from samd_gateway.commands import Parents
from samd_gateway.commands.accounts import Accounts, add_place, placed
from samd_gateway.errors import UsageError


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    tokens = commands.add_parser("tokens", help="what programs show instead of signing in")
    below = tokens.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = below.add_parser(name, parents=parents.both, help=text)
        add_place(parser)
        parser.set_defaults(run=placed(run, time.time))
        return parser

    action("list", list_, "one's own tokens, an admin's those of all")
    new = action("add", add_, "a new token, shown this once")
    new.add_argument("name", metavar="NAME", help="what it is for")
    new.add_argument("--user", metavar="NAME", help="who acts by it (default: oneself)")
    new.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=get_args(Permission),
        help="what it may be used for; once for each",
    )
    new.add_argument(
        "--expires-in", type=_days, default=90.0, metavar="DAYS", help="or `never` (default: %(default)g)"
    )
    new.add_argument(
        "--out", type=Path, metavar="FILE", help="write it into this new file of mode 600, not to the screen"
    )
    action("revoke", revoke, "end a token at once").add_argument("id", metavar="ID")


def _days(text: str) -> float | None:
    if text == "never":
        return None
    days = float(text)
    if not 0 < days <= 3660:
        raise argparse.ArgumentTypeError("write days, up to 3660, or never")
    return days


def add_(accounts: Accounts, arguments: argparse.Namespace) -> int:
    handle = None if arguments.out is None else _new_file(arguments.out)
    try:
        made = accounts.add_token(arguments.user, arguments.name, arguments.scope, arguments.expires_in)
    except BaseException:
        if handle is not None:
            os.close(handle)
            arguments.out.unlink()
        raise
    if handle is not None:
        with os.fdopen(handle, "w") as file:
            file.write(made["token"] + "\n")
        made = {"token": None, "listed": made["listed"]}
    if arguments.json:
        say(json.dumps(made))
    elif handle is not None:
        say(f"token {made['listed']['id']} is in {arguments.out}")
    else:
        say(made["token"])
    return 0


def _new_file(path: Path) -> int:
    """Made before the token is, so that none is made that nobody ever sees."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be made ({error.strerror}); name a new file") from error


def revoke(accounts: Accounts, arguments: argparse.Namespace) -> int:
    token = accounts.revoke_token(arguments.id)
    say(json.dumps(token) if arguments.json else f"token {token['id']} ({token['name']}) opens nothing now")
    return 0


def list_(accounts: Accounts, arguments: argparse.Namespace) -> int:
    found = accounts.tokens()
    if arguments.json:
        say(json.dumps({"tokens": found}))
        return 0
    if not found:
        say("there is no token; samd-gateway tokens add NAME --scope read makes one")
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for heading in ("id", "for", "user", "scopes", "expires", "last used", ""):
        table.add_column(heading)
    for token in found:
        table.add_row(
            token["id"],
            Text(token["name"]),
            Text(token["user"]),
            ", ".join(token["scopes"]),
            (token["expires_at"] or "never")[:10],
            (token["last_used"] or "never")[:16],
            "revoked" if token["revoked_at"] else "",
        )
    Console().print(table)
    return 0
