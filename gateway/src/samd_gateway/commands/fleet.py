"""`samd-gateway fleet`: find devices, tag them, do the same to many, see what each answered."""

import argparse
import json
import time
from typing import Any, get_args

from samd_gateway.client import Client, say
from samd_gateway.commands import Parents, connected
from samd_gateway.errors import UsageError
from samd_gateway.fleet.query import SortKey, Trouble

POLL_S = 0.5


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    fleet = commands.add_parser("fleet", help="find devices, tag them, act on many at once")
    below = fleet.add_subparsers(required=True, metavar="ACTION")
    find = _filter()
    listed = below.add_parser("list", parents=[*parents.both, find], help="the devices that match")
    listed.add_argument("--sort", choices=get_args(SortKey), default="state", help="default: %(default)s")
    listed.add_argument("--descending", action="store_true")
    listed.add_argument("--limit", type=int, default=50, help="1 to 500 a page (default: %(default)s)")
    listed.add_argument("--all", action="store_true", help="every page, not the first alone")
    listed.set_defaults(run=connected(list_))
    tag = below.add_parser("tag", parents=[*parents.both, find], help="add and remove tags")
    tag.add_argument("--add", action="append", default=[], metavar="TAG")
    tag.add_argument("--remove", action="append", default=[], metavar="TAG")
    tag.set_defaults(run=connected(tag_))
    below.add_parser("tags", parents=parents.both, help="every tag").set_defaults(run=connected(tags))
    act = below.add_parser("do", parents=[*parents.both, find], help="the same to all that match")
    act.add_argument("action", choices=("report", "model.activate", "model.rollback", "config"))
    act.add_argument("--version", type=int, help="for model.activate")
    act.add_argument("--task", default="severity", help="for model.…, default: %(default)s")
    act.add_argument("--heartbeat-s", type=float, help="for config: seconds between heartbeats")
    act.add_argument("--share-signs", choices=("yes", "no"), help="for config: raw signs in assessments")
    act.add_argument("--consent-to-training", choices=("yes", "no"), help="for config")
    act.add_argument(
        "--yes", action="store_true", help="do it; without it, it is only told what would be done"
    )
    act.add_argument("--wait", type=float, default=10.0, metavar="SECONDS", help="default: %(default)s")
    act.set_defaults(run=connected(do))
    jobs = below.add_parser("jobs", parents=parents.both, help="what was done to many, or one of these")
    jobs.add_argument("job", nargs="?", metavar="JOB")
    jobs.set_defaults(run=connected(jobs_))


def _filter() -> argparse.ArgumentParser:
    """The options that find devices; those of one kind are alternatives, the kinds all have to hold."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--device", action="append", default=[], metavar="NAME", help="this one by name")
    options.add_argument(
        "--state", action="append", default=[], choices=("online", "stale", "offline", "unknown")
    )
    options.add_argument("--tag", dest="tags", action="append", default=[], metavar="TAG")
    options.add_argument("--text", default="", help="in name, bed or tags")
    options.add_argument("--client-version", action="append", default=[], metavar="VERSION")
    options.add_argument("--model-version", action="append", default=[], type=int, metavar="N")
    options.add_argument("--trouble", action="append", default=[], choices=get_args(Trouble))
    return options


def _query(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "state": arguments.state,
        "text": arguments.text,
        "tag": arguments.tags,
        "client_version": arguments.client_version,
        "model_version": arguments.model_version,
        "trouble": arguments.trouble,
    }


def _devices(client: Client, arguments: argparse.Namespace) -> list[str]:
    """The names that are meant. Raises UsageError where nothing says which."""
    if arguments.device:
        return list(arguments.device)
    query = _query(arguments)
    if not any(query.values()):
        raise UsageError("say which devices: --device, --state, --tag, --text, --trouble, ...")
    found = [row["name"] for row in _rows(client, query | {"limit": 500}, every=True)["rows"]]
    if not found:
        raise UsageError("no device matches; samd-gateway fleet list shows them")
    return found


def _rows(client: Client, query: dict[str, Any], *, every: bool) -> dict[str, Any]:
    answer = client.get("/api/fleet", **query)
    while every and answer["next"] is not None:
        following = client.get("/api/fleet", **query, after=answer["next"])
        answer = following | {"rows": answer["rows"] + following["rows"]}
    return answer


def list_(client: Client, arguments: argparse.Namespace) -> int:
    query = _query(arguments) | {
        "sort": arguments.sort,
        "descending": arguments.descending,
        "limit": arguments.limit,
    }
    answer = _rows(client, query, every=arguments.all)
    rows = [row for row in answer["rows"] if not arguments.device or row["name"] in arguments.device]
    if arguments.json:
        say(json.dumps(answer | {"rows": rows}))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from samd_gateway.tables import STATE_STYLE, span

    table = Table(box=None)
    for heading in ("device", "state", "why", "heard", "reading", "client", "model", "outbox", "tags", "!"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            Text(row["name"]),
            Text(row["state"], STATE_STYLE[row["state"]]),
            Text(row["reason"]),
            span(row["silent_s"]),
            span(row["reading_age_s"]),
            Text(row["client_version"] or "?"),
            "?" if row["model_version"] is None else str(row["model_version"]),
            "?" if row["outbox_depth"] is None else str(row["outbox_depth"]),
            Text(", ".join(row["tags"])),
            Text(row["flagged"] or "", "bold red"),
        )
    Console().print(table)
    counts = ", ".join(f"{count} {state}" for state, count in answer["counts"].items())
    say(
        f"{len(rows)} of {answer['total']} shown; {counts}"
        + ("; --all shows every page" if answer["next"] else "")
    )
    return 0


def tag_(client: Client, arguments: argparse.Namespace) -> int:
    if not arguments.add and not arguments.remove:
        raise UsageError("give --add TAG or --remove TAG")
    devices = _devices(client, arguments)
    answer = client.post(
        "/api/fleet/tags", {"devices": devices, "add": arguments.add, "remove": arguments.remove}
    )
    say(
        json.dumps(answer)
        if arguments.json
        else f"{answer['changed']} tags of {len(devices)} devices changed"
    )
    return 0


def tags(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.get("/api/fleet/tags")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    for tag, count in answer["tags"].items():
        say(f"{count:6}  {tag}")
    if not answer["tags"]:
        say("no device has a tag; samd-gateway fleet tag --device NAME --add TAG")
    return 0


def _action(arguments: argparse.Namespace) -> dict[str, Any]:
    action: dict[str, Any] = {"type": arguments.action}
    if arguments.action == "model.activate":
        if arguments.version is None:
            raise UsageError("model.activate needs --version N")
        action["version"] = arguments.version
    if arguments.action.startswith("model."):
        action["task"] = arguments.task
    if arguments.action == "config":
        action["heartbeat_s"] = arguments.heartbeat_s
        for name in ("share_signs", "consent_to_training"):
            said = getattr(arguments, name)
            action[name] = None if said is None else said == "yes"
    return action


def do(client: Client, arguments: argparse.Namespace) -> int:
    """Tell what would be done, or do it and follow the answers for `--wait` seconds."""
    body = {"action": _action(arguments), "devices": _devices(client, arguments)}
    if not arguments.yes:
        plan = client.post("/api/fleet/plan", body)
        if arguments.json:
            say(json.dumps(plan))
            return 0
        for each in plan["devices"]:
            say(f"{each['device']}  {each['problem'] or 'is reached'}")
        say(f"{plan['reachable']} of {len(plan['devices'])} devices are reached now; --yes does it")
        return 0
    job = client.post("/api/fleet/jobs", body)
    ends = time.monotonic() + arguments.wait
    while job["counts"].get("waiting") and time.monotonic() < ends:
        time.sleep(POLL_S)
        job = client.get(f"/api/fleet/jobs/{job['id']}")
    _show(job, as_json=arguments.json)
    return 0 if set(job["counts"]) <= {"done", "accepted"} else 1


def jobs_(client: Client, arguments: argparse.Namespace) -> int:
    if arguments.job:
        _show(client.get(f"/api/fleet/jobs/{arguments.job}"), as_json=arguments.json)
        return 0
    answer = client.get("/api/fleet/jobs")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    for job in answer["jobs"]:
        say(f"{job['id']}  {job['created_at']}  {job['actor']}  {job['action']}: {_counts(job)}")
    if not answer["jobs"]:
        say("nothing was done to many devices yet")
    return 0


def _counts(job: dict[str, Any]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(job["counts"].items()))


def _show(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say(json.dumps(job))
        return
    for each in job["devices"]:
        say(f"{each['device']}  {each['status']}" + (f"  {each['reason']}" if each["reason"] else ""))
    say(
        f"{job['id']}: {_counts(job)}"
        + ("; samd-gateway fleet jobs " + job["id"] if job["counts"].get("waiting") else "")
    )
