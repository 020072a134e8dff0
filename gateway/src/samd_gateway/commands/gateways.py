"""`samd-gateway gateways`: who shares the database, and who leads."""

import argparse
import json
from typing import Any

from samd_gateway.client import Client, say
from samd_gateway.commands import Parents, connected


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    gateways = commands.add_parser(
        "gateways", parents=parents.both, help="the gateways that share the database, and which one leads"
    )
    gateways.set_defaults(run=connected(show))


def show(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.get("/api/gateways")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for heading in ("name", "state", "serves", "version", "since (UTC)"):
        table.add_column(heading)
    for each in answer["gateways"]:
        state = "leads" if each["leading"] else "live" if each["live"] else "gone"
        table.add_row(
            Text(each["name"]),
            Text(state, "green" if each["leading"] else "" if each["live"] else "red"),
            Text(each["address"] or "–"),
            Text(each["version"]),
            each["started_at"][:16].replace("T", " "),
        )
    Console().print(table)
    return 0
