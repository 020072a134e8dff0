"""`samd-gateway ward`: the patients by risk, their time lines, and what people do at the bedside."""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from samd_gateway.client import Client, say
from samd_gateway.commands import Parents, connected
from samd_gateway.errors import UsageError

WAIT_S = 20.0


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    ward = commands.add_parser("ward", help="the patients by risk; admit, discharge, observe, correct")
    below = ward.add_subparsers(required=True, metavar="ACTION")
    listed = below.add_parser("list", parents=parents.both, help="those that need somebody first")
    listed.add_argument("--ward", metavar="NAME")
    listed.set_defaults(run=connected(list_))
    line = below.add_parser("timeline", parents=parents.both, help="scores, gaps and alerts of one patient")
    line.add_argument("device", metavar="DEVICE")
    line.add_argument("--hours", type=float, default=24.0, help="how far back (default: %(default)s)")
    line.add_argument("--admission", metavar="ID", help="a former one")
    line.set_defaults(run=connected(timeline))
    admit = below.add_parser("admit", parents=parents.both, help="begin an admission")
    admit.add_argument("device", metavar="DEVICE")
    admit.add_argument("--admission", metavar="ID", help="a pseudonym, used once (default: one is drawn)")
    admit.add_argument("--bed", default="", metavar="TEXT")
    admit.add_argument("--ward", default="", metavar="TEXT")
    admit.add_argument("--spo2-scale", type=int, choices=(1, 2), default=1, help="by prescription")
    admit.add_argument("--monitoring-interval", type=float, metavar="SECONDS", help="60 to 86400")
    admit.add_argument("--consent", action="store_true", help="the patient consents to training")
    admit.set_defaults(run=connected(admit_))
    discharge = below.add_parser("discharge", parents=parents.both, help="end the admission")
    discharge.add_argument("device", metavar="DEVICE")
    discharge.add_argument("--erase", action="store_true", help="erase the store instead of keeping it")
    discharge.set_defaults(run=connected(discharge_))
    observe = below.add_parser("observe", parents=parents.both, help="enter what no sensor sees")
    observe.add_argument("device", metavar="DEVICE")
    observe.add_argument("--consciousness", choices=("A", "C", "V", "P", "U"))
    observe.add_argument("--oxygen", choices=("yes", "no"), help="whether oxygen is given")
    observe.add_argument("--at", metavar="TIME", help="ISO 8601 (default: now)")
    observe.set_defaults(run=connected(observe_))
    correct = below.add_parser("correct", parents=parents.both, help="strike a wrong value")
    correct.add_argument("device", metavar="DEVICE")
    correct.add_argument("field", metavar="FIELD", help="such as heart_rate, temperature, consciousness")
    correct.add_argument("--value", metavar="VALUE", help="the right one, if it is known")
    correct.add_argument("--reason", required=True, metavar="TEXT")
    correct.add_argument("--at", metavar="TIME", help="of the wrong value, ISO 8601 (default: the newest)")
    correct.set_defaults(run=connected(correct_))


def list_(client: Client, arguments: argparse.Namespace) -> int:
    query = {} if arguments.ward is None else {"ward": arguments.ward}
    answer = client.get("/api/ward", **query)
    if arguments.json:
        say(json.dumps(answer))
        return 0
    from rich.console import Console

    if not answer["cards"]:
        say("no patient is known; samd-gateway ward admit DEVICE, or at the device: samd-edge admit")
        return 0
    Console().print(table(answer["cards"]))
    ill = sum(card["current"] and card["rule_severity"] >= 2 for card in answer["cards"])
    lost = sum(not card["current"] for card in answer["cards"])
    say(
        f"{answer['total']} patients: {ill} with a certain score of 5 or more, {lost} without a present score"
    )
    return 0


def table(cards: Sequence[Mapping[str, Any]]) -> Any:
    """The cards for a terminal, in their order."""
    from rich.table import Table
    from rich.text import Text

    from samd_gateway.tables import CLASS_NAME, CLASS_STYLE, STATE_STYLE, points, score, span

    found = Table(box=None, caption="struck through: not the present. Research software, no medical device")
    for heading in ("device", "bed", "state", "NEWS2", "points", "model", "reading", "due", "alert", "why"):
        found.add_column(heading, no_wrap=heading in ("device", "NEWS2"))
    for card in cards:
        past = "" if card["current"] else "dim strike"
        news2, model = card["news2"], card["model"]
        due = "" if card["next_due_at"] is None else card["next_due_at"][11:16]
        alert = card["alert"]
        why = card["why_not_current"] or (card["why_differ"] or [None])[-1]
        found.add_row(
            Text(card["device"]),
            Text(card["bed"]),
            Text(card["state"], STATE_STYLE[card["state"]]),
            Text("?") if news2 is None else Text(score(news2), past or CLASS_STYLE[card["rule_severity"]]),
            Text("") if news2 is None else Text(str(points(news2)), past),
            Text("–") if model is None else Text(CLASS_NAME[model["severity"]], past),
            span(card["age_s"]),
            Text(f"overdue {due}".strip(), "bold red") if card["overdue"] else due,
            Text("") if alert is None else Text(_alert(alert), "bold red" if alert["waiting_since"] else ""),
            Text("" if why is None else why["text"]),
        )
    return found


def _alert(alert: Mapping[str, Any]) -> str:
    known = "paused" if alert["paused"] else "acknowledged" if alert["acknowledged"] else "nobody knows"
    return f"{alert['severity']} {known}"


def timeline(client: Client, arguments: argparse.Namespace) -> int:
    since = datetime.now(UTC) - timedelta(hours=arguments.hours)
    query: dict[str, Any] = {"since": since.isoformat()}
    if arguments.admission is not None:
        query["admission"] = arguments.admission
    answer = client.get(f"/api/ward/{arguments.device}/timeline", **query)
    if arguments.json:
        say(json.dumps(answer))
        return 0
    events = [(point["at"], _point(point)) for point in answer["points"]]
    events += [
        (gap["since"], f"gap     nothing until {(gap['until'] or 'now')[:19]}") for gap in answer["gaps"]
    ]
    events += [
        (alert["raised_at"], f"alert   {alert['kind']}, up to severity {alert['peak']}, {alert['state']}")
        for alert in answer["alerts"]
    ]
    events += [
        (change["at"], f"model   {change['before']} to {change['after']}")
        for change in answer["model_changes"]
    ]
    for at, text in sorted(events):
        say(f"{at[:19]}  {text}")
    spans = "" if answer["span_s"] is None else f", the worst of each {answer['span_s']:.0f} s"
    say(f"{len(answer['points'])} scores{spans}, {len(answer['gaps'])} gaps, {len(answer['alerts'])} alerts")
    return 0


def _point(point: Mapping[str, Any]) -> str:
    score = f"{point['low']}" if point["low"] == point["high"] else f"{point['low']}–{point['high']}"
    model = "" if point["model_severity"] is None else f", model class {point['model_severity']}"
    return f"NEWS2   {score}{model}{', they disagree' if point['disagreement'] else ''}"


def admit_(client: Client, arguments: argparse.Namespace) -> int:
    body = {
        "bed": arguments.bed,
        "ward": arguments.ward,
        "spo2_scale": arguments.spo2_scale,
        "monitoring_interval_s": arguments.monitoring_interval,
        "consent_to_training": arguments.consent,
    }
    if arguments.admission is not None:
        body["admission"] = arguments.admission
    return _send(client, arguments, "admit", body, "the admission has begun")


def discharge_(client: Client, arguments: argparse.Namespace) -> int:
    return _send(client, arguments, "discharge", {"keep": not arguments.erase}, "the admission has ended")


def observe_(client: Client, arguments: argparse.Namespace) -> int:
    body: dict[str, Any] = {"consciousness": arguments.consciousness}
    if arguments.oxygen is not None:
        body["supplemental_oxygen"] = arguments.oxygen == "yes"
    if arguments.at is not None:
        body["observed_at"] = _moment(arguments.at)
    return _send(client, arguments, "observe", body, "entered")


def correct_(client: Client, arguments: argparse.Namespace) -> int:
    body: dict[str, Any] = {"field": arguments.field, "reason": arguments.reason}
    if arguments.value is not None:
        body["value"] = _value(arguments.value)
    if arguments.at is not None:
        body["observed_at"] = _moment(arguments.at)
    return _send(client, arguments, "correct", body, "the value is struck")


def _value(text: str) -> float | bool | str:
    """A number, yes or no, or the letter of consciousness."""
    if text in ("yes", "no"):
        return text == "yes"
    try:
        return float(text)
    except ValueError:
        return text


def _moment(text: str) -> str:
    """A time with its zone; one without is of this machine."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except ValueError as error:
        raise UsageError(f"--at {text}: write a time such as 2026-03-01T08:30") from error


def _send(client: Client, arguments: argparse.Namespace, what: str, body: dict[str, Any], done: str) -> int:
    """Ask the device, and tell its answer; 1 where it refused, or has not answered yet."""
    path = f"/api/ward/{arguments.device}/{what}?wait_s={WAIT_S:g}"
    answer = client.post(path, body, timeout_s=WAIT_S + 10.0)
    if arguments.json:
        say(json.dumps(answer))
    elif answer["status"] == "done":
        say(f"{arguments.device}: {done}")
    elif answer["status"] is None:
        say(f"{arguments.device} has not answered yet; samd-gateway ward list shows what it takes")
    else:
        say(f"{arguments.device}: {answer['status']}: {answer['reason'] or 'without a reason'}")
    return 0 if answer["status"] == "done" else 1
