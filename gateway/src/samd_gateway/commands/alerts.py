"""`samd-gateway alerts`: what is open, and what is done about it; and the rules of silence and the ladder."""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from samd_gateway.client import Client, say
from samd_gateway.commands import Parents, connected
from samd_gateway.errors import UnavailableError, UsageError

REFRESH_S = 1.0
STYLE = {1: "cyan", 2: "yellow", 3: "bold red"}


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    alerts = commands.add_parser("alerts", help="open alerts: list, acknowledge, pause, escalate, watch")
    below = alerts.add_subparsers(required=True, metavar="ACTION")
    listed = below.add_parser("list", parents=parents.both, help="the worst first")
    listed.add_argument("--state", choices=("active", "cleared", "all"), default="active")
    listed.add_argument("--unacknowledged", action="store_true", help="only those that nobody knows of")
    listed.add_argument("--device", metavar="NAME")
    listed.add_argument("--limit", type=int, default=200, help="1 to 1000 (default: %(default)s)")
    listed.set_defaults(run=connected(list_))
    show = below.add_parser("show", parents=parents.both, help="one alert with all that became of it")
    show.add_argument("alert", metavar="ALERT")
    show.set_defaults(run=connected(show_))
    known = below.add_parser("acknowledge", parents=parents.both, help="say that somebody knows")
    known.add_argument("alerts", nargs="*", metavar="ALERT")
    known.add_argument("--device", metavar="NAME", help="all that are open on this device")
    known.add_argument("--note", metavar="TEXT")
    known.set_defaults(run=connected(acknowledge))
    pause = below.add_parser("pause", parents=parents.both, help="let it rest for a while, for a reason")
    pause.add_argument("alert", metavar="ALERT")
    pause.add_argument(
        "--for", dest="minutes", type=float, required=True, metavar="MINUTES", help="1 to 1440"
    )
    pause.add_argument("--reason", required=True, metavar="TEXT")
    pause.set_defaults(run=connected(pause_))
    resume = below.add_parser("resume", parents=parents.both, help="end a pause before its time")
    resume.add_argument("alert", metavar="ALERT")
    resume.set_defaults(run=connected(resume_))
    escalate = below.add_parser("escalate", parents=parents.both, help="call for more help now")
    escalate.add_argument("alert", metavar="ALERT")
    escalate.add_argument("--reason", required=True, metavar="TEXT")
    escalate.set_defaults(run=connected(escalate_))
    watch = below.add_parser("watch", parents=parents.both, help="the open alerts, again and again")
    watch.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end after so long")
    watch.set_defaults(run=connected(watch_))
    rules = below.add_parser("rules", parents=parents.both, help="when silence counts, and the ladder")
    rules.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="silence.after_s=60, ladder.severity_3=[300,900]; once for each",
    )
    rules.set_defaults(run=connected(rules_))


def list_(client: Client, arguments: argparse.Namespace) -> int:
    query: dict[str, Any] = {"state": arguments.state, "limit": arguments.limit}
    if arguments.unacknowledged:
        query["acknowledged"] = False
    if arguments.device:
        query["device"] = arguments.device
    answer = client.get("/api/alerts", **query)
    if arguments.json:
        say(json.dumps(answer))
        return 0
    from rich.console import Console

    if answer["alerts"]:
        Console().print(table(answer["alerts"]))
    say(_summary(answer))
    return 0


def show_(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.get(f"/api/alerts/{arguments.alert}")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    from rich.console import Console

    Console().print(table([answer["alert"]]))
    for change in answer["changes"]:
        reason = change["detail"].get("reason")
        say(
            f"{change['at'][:19]}  {change['change']:<14} {change['actor']}"
            + (f": {reason}" if reason else "")
        )
    for told in answer["notifications"]:
        error = f" ({told['error']})" if told["error"] else ""
        say(f"{told['created_at'][:19]}  told {told['channel']}: {told['state']}{error}")
    return 0


def acknowledge(client: Client, arguments: argparse.Namespace) -> int:
    """By id, or all of a device as they are now: what becomes worse meanwhile stays open."""
    if bool(arguments.alerts) == bool(arguments.device):
        raise UsageError("name alerts, or --device NAME for all that are open on it")
    body: dict[str, Any] = {"ids": arguments.alerts, "note": arguments.note}
    if arguments.device:
        found = client.get("/api/alerts", device=arguments.device, acknowledged=False, limit=500)["alerts"]
        if not found:
            say(f"no alert of {arguments.device} waits to be acknowledged")
            return 0
        body["ids"] = [alert["id"] for alert in found]
        body["seen"] = {alert["id"]: alert["severity"] for alert in found}
    answer = client.post("/api/alerts/acknowledge", body)
    if arguments.json:
        say(json.dumps(answer))
    else:
        for outcome in answer["outcomes"]:
            detail = f": {outcome['detail']}" if outcome["detail"] else ""
            say(f"{outcome['id']}  {outcome['outcome']}{detail}")
    return 0 if all(each["outcome"] in ("acknowledged", "already") for each in answer["outcomes"]) else 1


def pause_(client: Client, arguments: argparse.Namespace) -> int:
    body = {"for_s": arguments.minutes * 60, "reason": arguments.reason}
    return _done(client.post(f"/api/alerts/{arguments.alert}/pause", body), arguments)


def resume_(client: Client, arguments: argparse.Namespace) -> int:
    return _done(client.post(f"/api/alerts/{arguments.alert}/resume"), arguments)


def escalate_(client: Client, arguments: argparse.Namespace) -> int:
    body = {"reason": arguments.reason}
    return _done(client.post(f"/api/alerts/{arguments.alert}/escalate", body), arguments)


def rules_(client: Client, arguments: argparse.Namespace) -> int:
    wanted: dict[str, dict[str, Any]] = {}
    for each in arguments.set:
        key, _, text = each.partition("=")
        group, _, name = key.partition(".")
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UsageError(f"--set {each}: write KEY=JSON, such as silence.after_s=60") from error
        if group not in ("silence", "ladder") or not name:
            raise UsageError(f"--set {each}: the key begins with silence. or ladder.")
        wanted.setdefault(group, {})[name] = value
    answer = client.put("/api/alert-rules", wanted) if wanted else client.get("/api/alert-rules")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    for group, values in answer.items():
        for name, value in values.items():
            say(f"{group}.{name} = {json.dumps(value)}")
    return 0


def watch_(client: Client, arguments: argparse.Namespace) -> int:
    """The table again and again, until Ctrl-C, or `--for` seconds; with --json a line for each change."""
    end = None if arguments.seconds is None else time.monotonic() + arguments.seconds
    if arguments.json:
        for name, data in client.events():
            if name == "alert":
                say(json.dumps(data))
            if end is not None and time.monotonic() >= end:
                break
        return 0
    from rich.console import Console
    from rich.live import Live

    answer, title = client.get("/api/alerts"), None
    with Live(table(answer["alerts"]), console=Console(), auto_refresh=False) as live:
        while end is None or time.monotonic() < end:
            live.update(table(answer["alerts"], title or _summary(answer)), refresh=True)
            time.sleep(REFRESH_S)
            try:
                answer, title = client.get("/api/alerts"), None
            except UnavailableError:
                # the last table would look like the present
                title = f"of the past: the gateway at {client.url} does not answer; trying again"
    return 0


def table(alerts: Sequence[Mapping[str, Any]], title: str | None = None) -> Any:
    """The alerts for a terminal."""
    from rich.table import Table
    from rich.text import Text

    found = Table(title=title, box=None)
    for heading in ("alert", "device", "severity", "what", "since", "step", "who", "state"):
        found.add_column(heading, no_wrap=heading in ("alert", "device"))
    for alert in alerts:
        what = Text(alert["reason"] or "")
        if alert["kind"] == "severity":
            what = Text(f"NEWS2 {alert['news2_low']}–{alert['news2_high']}")
        known = Text("nobody", "bold red" if alert["state"] == "active" else "")
        if alert["acknowledged"]:
            known = Text(alert["acknowledged_by"] + (f": {alert['note']}" if alert["note"] else ""))
        state = Text(alert["state"])
        if alert["paused"]:
            state = Text(f"paused until {alert['paused_until'][11:16]} UTC: {alert['pause_reason']}")
        found.add_row(
            alert["id"],
            Text(alert["device"]),
            Text(str(alert["severity"]), STYLE.get(alert["severity"], "")),
            what,
            alert["raised_at"][:16].replace("T", " "),
            str(alert["step"]),
            known,
            state,
        )
    return found


def _summary(answer: Mapping[str, Any]) -> str:
    more = "; more: --limit" if answer["next"] else ""
    return f"{answer['active']} active, {answer['unacknowledged']} of them unacknowledged{more}"


def _done(alert: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    if arguments.json:
        say(json.dumps(alert))
        return 0
    from rich.console import Console

    Console().print(table([alert]))
    return 0
