"""`samd-gateway channels`: who is told of alerts, and what is on its way to them."""

import argparse
import json
from typing import Any

from samd_gateway.client import Client, say
from samd_gateway.commands import Parents, connected
from samd_gateway.errors import UsageError

EVENTS = ("raised", "escalated", "step", "resumed", "acknowledged", "paused", "cleared")


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    channels = commands.add_parser("channels", help="who is told of alerts: webhook, e-mail, MQTT")
    below = channels.add_subparsers(required=True, metavar="ACTION")
    below.add_parser("list", parents=parents.both, help="every channel").set_defaults(run=connected(list_))
    put = below.add_parser("add", parents=parents.both, help="set one up, or change it with --replace")
    put.add_argument("name", metavar="NAME")
    kind = put.add_mutually_exclusive_group(required=True)
    kind.add_argument("--webhook", metavar="URL", help="https, or http to the gateway's own machine")
    kind.add_argument("--email", action="append", metavar="ADDRESS", help="to whom; once for each")
    kind.add_argument("--mqtt", action="store_true", help="on the topic gateway/NAME/alert of the broker")
    put.add_argument(
        "--secret",
        metavar="NAME",
        help="file of the webhook's key in the gateway's folder secrets, drawn if it is not there "
        "(default: the channel's name)",
    )
    put.add_argument("--smtp", metavar="HOST:PORT", help="for --email")
    put.add_argument("--sender", metavar="ADDRESS", help="for --email")
    put.add_argument("--security", choices=("starttls", "tls", "none"), default="starttls")
    put.add_argument("--username", metavar="NAME", help="for --email")
    put.add_argument("--password", metavar="NAME", help="file of the password in the folder secrets")
    put.add_argument("--ca", metavar="NAME", help="file of an authority of one's own in the folder secrets")
    put.add_argument("--min-severity", type=int, default=0, metavar="N", help="1 to 3 (default: all)")
    put.add_argument(
        "--step", type=int, default=0, metavar="N", help="of the ladder, from which on it is told"
    )
    put.add_argument("--event", action="append", choices=EVENTS, help="once for each (default: most)")
    put.add_argument("--details", action="store_true", help="with the score, the pseudonym and the place")
    put.add_argument("--off", action="store_true", help="set up, and not used")
    put.add_argument("--replace", action="store_true", help="the channel may be there already")
    put.set_defaults(run=connected(add_))
    for name, text, action in (
        ("test", "send a notice that says that it is a test", test),
        ("remove", "remove it; what waits for it is given up", remove),
    ):
        one = below.add_parser(name, parents=parents.both, help=text)
        one.add_argument("name", metavar="NAME")
        one.set_defaults(run=connected(action))
    sent = below.add_parser("sent", parents=parents.both, help="what is told to whom, the latest first")
    sent.add_argument("--state", choices=("pending", "delivered", "given-up"))
    sent.add_argument("--channel", metavar="NAME")
    sent.add_argument("--limit", type=int, default=50, help="1 to 1000 (default: %(default)s)")
    sent.set_defaults(run=connected(sent_))


def list_(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.get("/api/channels")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    for each in answer["channels"]:
        off = "" if each["enabled"] else ", off"
        failing = f"; FAILS: {each['failing']}" if each["failing"] else ""
        say(
            f"{each['name']}  {each['kind']}  severity {each['min_severity']} or more, "
            f"from step {each['step']}{off}, {each['pending']} pending{failing}"
        )
    if not answer["channels"]:
        say("nobody is told of alerts yet; samd-gateway channels add NAME --webhook URL")
    return 0


def body(arguments: argparse.Namespace) -> dict[str, Any]:
    """The request of `add`. Raises UsageError for options that do not go together."""
    config: dict[str, Any] = {}
    if arguments.webhook:
        kind = "webhook"
        config = {"url": arguments.webhook, "secret": arguments.secret or arguments.name}
    elif arguments.email:
        kind = "email"
        if not arguments.smtp or not arguments.sender:
            raise UsageError("--email needs --smtp HOST:PORT and --sender ADDRESS")
        host, _, port = arguments.smtp.rpartition(":")
        if not host or not port.isdecimal():
            raise UsageError(f"--smtp {arguments.smtp}: write HOST:PORT, such as mail.hospital.example:587")
        config = {
            "host": host,
            "port": int(port),
            "security": arguments.security,
            "sender": arguments.sender,
            "to": arguments.email,
        }
        for name in ("username", "password"):
            if getattr(arguments, name) is not None:
                config[name] = getattr(arguments, name)
    else:
        kind = "mqtt"
    if arguments.ca is not None:
        config["ca"] = arguments.ca
    if arguments.event:
        config["events"] = arguments.event
    if arguments.details:
        config["details"] = True
    return {
        "kind": kind,
        "config": config,
        "enabled": not arguments.off,
        "min_severity": arguments.min_severity,
        "step": arguments.step,
    }


def add_(client: Client, arguments: argparse.Namespace) -> int:
    query = "" if arguments.replace else "?new=true"
    answer = client.put(f"/api/channels/{arguments.name}{query}", body(arguments))
    if arguments.json:
        say(json.dumps(answer))
        return 0
    secret = answer["config"].get("secret")
    key = (
        f"; the receiver checks it with the key in secrets/{secret} of the gateway's folder" if secret else ""
    )
    say(f"{answer['name']} is set up{key}; try it: samd-gateway channels test {answer['name']}")
    return 0


def test(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.post(f"/api/channels/{arguments.name}/test", timeout_s=300.0)
    if arguments.json:
        say(json.dumps(answer))
    else:
        say(f"{arguments.name} has taken the test" + (f"; {answer['remark']}" if answer["remark"] else ""))
    return 0


def remove(client: Client, arguments: argparse.Namespace) -> int:
    client.delete(f"/api/channels/{arguments.name}")
    say(json.dumps({"removed": arguments.name}) if arguments.json else f"{arguments.name} is removed")
    return 0


def sent_(client: Client, arguments: argparse.Namespace) -> int:
    query: dict[str, Any] = {"limit": arguments.limit}
    for name in ("state", "channel"):
        if getattr(arguments, name) is not None:
            query[name] = getattr(arguments, name)
    answer = client.get("/api/notifications", **query)
    if arguments.json:
        say(json.dumps(answer))
        return 0
    for each in answer["notifications"]:
        error = f"  {each['error']}" if each["error"] else ""
        event = each["event"].split("@")[0].split(".")[0]
        say(
            f"{each['created_at'][:19]}  {each['channel']}  {each['alert']} {event}: {each['state']} "
            f"after {each['attempts']}{error}"
        )
    if not answer["notifications"]:
        say("nothing was told to anybody yet")
    return 0
