"""`samd-gateway schedules`: runs that begin by the clock."""

import argparse
import json
from typing import Any

from samd_gateway import run_commands
from samd_gateway.client import Client, say
from samd_gateway.commands import Parents, connected


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    schedules = commands.add_parser("schedules", help="runs that begin by the clock")
    below = schedules.add_subparsers(required=True, metavar="ACTION")
    listed = below.add_parser("list", parents=parents.both, help="every schedule, and what became of it")
    listed.set_defaults(run=connected(list_))
    new = below.add_parser("add", parents=parents.both, help="begin runs by the clock")
    new.add_argument("name", help="what people call it")
    _add_times(new, required=True)
    new.add_argument("--tag", help="ask only devices with this tag that are online then")
    run_commands.add_spec_arguments(new)
    new.set_defaults(run=connected(add_))
    for name, action, text in (
        ("remove", remove, "remove one; runs that it began go on"),
        ("enable", enable, "begin its runs again"),
        ("disable", disable, "begin none of its runs until it is enabled"),
    ):
        one = below.add_parser(name, parents=parents.both, help=text)
        one.add_argument("schedule", metavar="ID")
        one.set_defaults(run=connected(action))
    coming = below.add_parser("next", parents=parents.both, help="when the next runs begin")
    _add_times(coming, required=False)
    coming.add_argument(
        "--count", type=int, default=5, help="how many times of --cron (default: %(default)s)"
    )
    coming.set_defaults(run=connected(next_))


def _add_times(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--cron",
        required=required,
        metavar="EXPRESSION",
        help="minute hour day-of-month month day-of-week, such as '30 2 * * SAT'",
    )
    parser.add_argument("--timezone", default="UTC", help="such as Europe/Berlin (default: %(default)s)")
    parser.add_argument(
        "--quiet",
        action="append",
        default=[],
        metavar="HH:MM-HH:MM",
        help="part of the day in which nothing begins; may be given again",
    )


def list_(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.get("/api/schedules")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    if not answer["schedules"]:
        say("no schedule; samd-gateway schedules add NAME --cron '30 2 * * *'")
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for heading in ("id", "name", "cron", "zone", "quiet", "next (UTC)", "last (UTC)", "what became of it"):
        table.add_column(heading)
    for each in answer["schedules"]:
        outcome = each["last_outcome"] or "never due yet"
        table.add_row(
            each["id"],
            Text(each["name"]),
            each["cron"],
            each["timezone"],
            ", ".join(each["quiet"]),
            _time(each["next_at"]) if each["enabled"] else "disabled",
            _time(each["last_at"]),
            Text(f"{outcome} {each['last_run'] or ''}".strip()),
        )
    Console().print(table)
    return 0


def add_(client: Client, arguments: argparse.Namespace) -> int:
    body = {
        "name": arguments.name,
        "cron": arguments.cron,
        "timezone": arguments.timezone,
        "quiet": arguments.quiet,
        "run": run_commands.body(arguments),
    }
    if arguments.tag is not None:
        body["tag"] = arguments.tag
    return _say(client.post("/api/schedules", body), as_json=arguments.json)


def remove(client: Client, arguments: argparse.Namespace) -> int:
    client.delete(f"/api/schedules/{arguments.schedule}")
    say(json.dumps({"removed": arguments.schedule}) if arguments.json else f"{arguments.schedule}: removed")
    return 0


def enable(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.patch(f"/api/schedules/{arguments.schedule}", {"enabled": True})
    return _say(answer, as_json=arguments.json)


def disable(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.patch(f"/api/schedules/{arguments.schedule}", {"enabled": False})
    return _say(answer, as_json=arguments.json)


def next_(client: Client, arguments: argparse.Namespace) -> int:
    """The times of an expression that is not kept, or of every schedule."""
    if arguments.cron is not None:
        answer = client.get(
            "/api/schedules/times",
            cron=arguments.cron,
            timezone=arguments.timezone,
            quiet=arguments.quiet,
            count=arguments.count,
        )
        if arguments.json:
            say(json.dumps(answer))
        elif not answer["times"]:
            say("never: the quiet hours leave nothing")
        else:
            say("\n".join(_time(each) for each in answer["times"]))
        return 0
    coming = [
        {"at": at, "schedule": each["id"], "name": each["name"]}
        for each in client.get("/api/schedules")["schedules"]
        for at in each["following"]
    ]
    coming.sort(key=lambda each: each["at"])
    if arguments.json:
        say(json.dumps(coming))
    elif not coming:
        say("no run is scheduled")
    for each in [] if arguments.json else coming:
        say(f"{_time(each['at'])}  {each['schedule']}  {each['name']}")
    return 0


def _say(schedule: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        say(json.dumps(schedule))
    elif schedule["enabled"]:
        say(f"{schedule['id']}: next at {_time(schedule['next_at'])} UTC")
    else:
        say(f"{schedule['id']}: disabled")
    return 0


def _time(text: str | None) -> str:
    return "–" if text is None else text[:16].replace("T", " ")
