"""`samd-gateway users`: add, change, disable users, give them another password."""

import argparse
import getpass
import json
import sys
import time
from typing import Any, get_args

from samd_gateway.access.actor import Role
from samd_gateway.client import say
from samd_gateway.commands import Parents
from samd_gateway.commands.accounts import Accounts, add_place, placed
from samd_gateway.errors import UsageError
from samd_protocol.broker import read_secret


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    users = commands.add_parser(
        "users",
        help="who may sign in, and as what",
        description="Users of the gateway. The first is an admin, and closes it to all who do not sign in.",
    )
    below = users.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, run: Any, text: str, *, named: bool = True) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = below.add_parser(name, parents=parents.both, help=text)
        if named:
            parser.add_argument("name", metavar="NAME")
        add_place(parser)
        parser.set_defaults(run=placed(run, time.time))
        return parser

    action("list", list_, "all users", named=False)
    new = action("add", add_, "a new user; the password is asked for")
    new.add_argument("--role", choices=get_args(Role), required=True)
    new.add_argument("--display", default="", metavar="TEXT", help="the name as it is shown")
    _add_password(new)
    new.add_argument(
        "--no-password", action="store_true", help="for who comes by single sign-on, or by tokens alone"
    )
    change = action("change", change_, "another role, disable, enable")
    change.add_argument("--role", choices=get_args(Role))
    change.add_argument("--display", metavar="TEXT", help="the name as it is shown")
    state = change.add_mutually_exclusive_group()
    state.add_argument("--disable", action="store_true", help="ends sessions and tokens at once")
    state.add_argument("--enable", action="store_true")
    _add_password(action("password", password, "another password; ends the user's sessions"))
    action("unlock", unlock, "let a user who failed too often try again at once")


def _add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-file", metavar="FILE", help="the password, in a file of mode 600, instead of asking"
    )


def ask_password(file: str | None) -> str:
    """From the file, else from the terminal, twice. Raises UsageError."""
    if file is not None:
        return read_secret(file)
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for a password; give --password-file FILE")
    first = getpass.getpass("password (12 characters or more): ")
    if getpass.getpass("the same again: ") != first:
        raise UsageError("the two are not the same; try again")
    return first


def add_(accounts: Accounts, arguments: argparse.Namespace) -> int:
    if arguments.no_password and arguments.password_file:
        raise UsageError("--no-password and --password-file: give one of them")
    given = None if arguments.no_password else ask_password(arguments.password_file)
    user = accounts.add_user(arguments.name, arguments.role, arguments.display, given)
    how = "may sign in" if given else "is added, without a password"
    _told(arguments, user, f"{user['name']} ({user['role']}) {how}")
    return 0


def change_(accounts: Accounts, arguments: argparse.Namespace) -> int:
    changes: dict[str, Any] = {"role": arguments.role, "display": arguments.display}
    if arguments.disable or arguments.enable:
        changes["disabled"] = bool(arguments.disable)
    changes = {key: value for key, value in changes.items() if value is not None}
    if not changes:
        raise UsageError("say what is to change: --role, --display, --disable or --enable")
    user = accounts.change_user(arguments.name, **changes)
    state = ", disabled" if user["disabled_at"] else ""
    _told(arguments, user, f"{user['name']} ({user['role']}{state})")
    return 0


def password(accounts: Accounts, arguments: argparse.Namespace) -> int:
    accounts.set_password(arguments.name, ask_password(arguments.password_file))
    _told(arguments, {"name": arguments.name}, f"{arguments.name} has another password, and is signed out")
    return 0


def unlock(accounts: Accounts, arguments: argparse.Namespace) -> int:
    accounts.unlock(arguments.name)
    _told(arguments, {"name": arguments.name}, f"{arguments.name} may try again at once")
    return 0


def list_(accounts: Accounts, arguments: argparse.Namespace) -> int:
    found = accounts.users()
    if arguments.json:
        say(json.dumps({"users": found}))
        return 0
    if not found:
        say("no user is set up; whoever works on the gateway's machine may do everything")
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for heading in ("name", "role", "shown as", "comes by", "since", ""):
        table.add_column(heading)
    for user in found:
        ways = [
            way
            for way, held in (("password", user["has_password"]), ("single sign-on", user["single_sign_on"]))
            if held
        ]
        table.add_row(
            Text(user["name"]),
            user["role"],
            Text(user["display"]),
            ", ".join(ways) or "tokens",
            user["created_at"][:10],
            "disabled" if user["disabled_at"] else "",
        )
    Console().print(table)
    return 0


def _told(arguments: argparse.Namespace, answer: dict[str, Any], text: str) -> None:
    say(json.dumps(answer) if arguments.json else text)
