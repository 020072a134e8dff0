"""`samd-gateway audit`: who changed what, and who signed in."""

import argparse
import json
import time
from datetime import datetime
from typing import Any

from samd_gateway.client import say
from samd_gateway.commands import Parents
from samd_gateway.commands.accounts import Accounts, add_place, placed


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    audit = commands.add_parser("audit", help="who changed what, and when")
    below = audit.add_subparsers(required=True, metavar="ACTION")
    listed = below.add_parser("list", parents=parents.both, help="the latest changes first")
    listed.add_argument("--actor", metavar="NAME", help="by this user alone")
    listed.add_argument("--action", metavar="WORD", help="alert.acknowledge, or alert for all of alerts")
    listed.add_argument("--target", metavar="WORD", help="device/bed-01, or device for all devices")
    listed.add_argument("--since", type=_time, metavar="TIME", help="ISO 8601, such as 2026-01-31T08:00Z")
    listed.add_argument("--until", type=_time, metavar="TIME")
    listed.add_argument("--limit", type=int, default=50, help="how many (default: %(default)s)")
    add_place(listed)
    listed.set_defaults(run=placed(list_, time.time))


def _time(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("write ISO 8601, such as 2026-01-31T08:00Z") from error
    return found.astimezone().isoformat()  # without a zone it is meant as the clock on the wall


def list_(accounts: Accounts, arguments: argparse.Namespace) -> int:
    found = accounts.audit(
        max(1, arguments.limit),
        actor=arguments.actor,
        action=arguments.action,
        target=arguments.target,
        since=arguments.since,
        until=arguments.until,
    )
    if arguments.json:
        say(json.dumps({"entries": found}))
        return 0
    if not found:
        say("nothing of this kind is on record")
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for heading in ("at", "who", "by", "did", "to", "from", "to what"):
        table.add_column(heading)
    for entry in found:
        before, after = differing(entry["before"], entry["after"])
        table.add_row(
            entry["at"][:19].replace("T", " "),
            Text(f"{entry['actor']} ({entry['role']})"),
            entry["via"],
            Text(entry["action"]),
            Text(entry["target"]),
            Text(before),
            Text(after),
        )
    Console().print(table)
    return 0


def differing(before: dict[str, Any] | None, after: dict[str, Any] | None) -> tuple[str, str]:
    """What both say of what changed, in short."""
    keys = {
        key
        for key in {**(before or {}), **(after or {})}
        if before is None or after is None or before.get(key) != after.get(key)
    }
    return _short(before, keys), _short(after, keys)


def _short(picture: dict[str, Any] | None, keys: set[str]) -> str:
    return ", ".join(
        f"{key} {json.dumps(value)}" for key, value in sorted((picture or {}).items()) if key in keys
    )
