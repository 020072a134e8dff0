"""`samd-gateway models`: the versions, which is in use, and the order to release one."""

import argparse
import json
import time
from typing import Any

from samd_gateway.client import Client, say
from samd_gateway.commands import Parents, connected
from samd_gateway.errors import ConflictError

POLL_S = 0.2
PATIENCE_S = 70.0
"""A little longer than the order is valid: then the gateway says that it expired."""


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    models = commands.add_parser("models", help="versions of the models, release one, roll back")
    below = models.add_subparsers(required=True, metavar="ACTION")
    below.add_parser("list", parents=parents.both, help="every version with its lineage").set_defaults(
        run=connected(list_)
    )
    release = below.add_parser(
        "release", parents=parents.both, help="have the server release a version, a newer or an older"
    )
    release.add_argument("version", type=int, metavar="VERSION")
    release.add_argument("--task", default="severity", help="whose model (default: %(default)s)")
    release.set_defaults(run=connected(release_))
    below.add_parser("orders", parents=parents.both, help="what was asked of the server").set_defaults(
        run=connected(orders)
    )


def list_(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.get("/api/models/versions")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    if not answer["versions"]:
        say("no model was released here yet; start the server: samd-server run --model FILE")
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for heading in ("task", "version", "from", "", "devices", "macro-F1", "run", "why"):
        table.add_column(heading)
    for each in answer["versions"]:
        metrics = each["metrics"]
        score = metrics.get("complete", {}).get("macro_f1", metrics.get("complete_macro_f1"))
        table.add_row(
            each["task"],
            str(each["version"]),
            "" if each["parent"] is None else str(each["parent"]),
            "in use" if each["in_use"] else "released" if each["released"] else "kept",
            "" if each["devices"] is None else str(each["devices"]),
            "" if score is None else f"{score:.3f}",
            each["run"] or "",
            each["reason"] or "",
        )
    Console().print(table)
    return 0


def release_(client: Client, arguments: argparse.Namespace) -> int:
    """Ask, and wait for the server's answer."""
    order = client.post("/api/models/releases", {"task": arguments.task, "version": arguments.version})
    ends = time.monotonic() + PATIENCE_S
    while order["status"] == "waiting" and time.monotonic() < ends:
        time.sleep(POLL_S)
        found = client.get("/api/models/releases")["releases"]
        order = next((each for each in found if each["id"] == order["id"]), order)
    if arguments.json:
        say(json.dumps(order))
    elif order["status"] == "done":
        say(f"{order['task']}: version {order['version']} is the released one; devices fetch it now")
    if order["status"] == "done":
        return 0
    raise ConflictError(
        f"the server did not release version {order['version']}: {order['reason'] or 'it has not answered'}"
    )


def orders(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.get("/api/models/releases")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    if not answer["releases"]:
        say("nothing was asked of the server yet")
    for each in answer["releases"]:
        reason = f" ({each['reason']})" if each["reason"] else ""
        say(
            f"{each['at']}  {each['actor']}  {each['action']} {each['task']} {each['version']}: "
            f"{each['status']}{reason}"
        )
    return 0
