"""`samd-gateway runs …`: start, watch, list and stop runs."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from samd_gateway.client import Client, say
from samd_gateway.errors import NotFoundError, UnavailableError
from samd_protocol import runfile

POLL_S = 0.2
PATIENCE_S = 60.0
"""How long a watch waits for a gateway that has gone away: it may be starting again."""

OPTIONS: tuple[tuple[str, type, str], ...] = (
    ("rounds", int, "number of rounds"),
    ("quorum", int, "devices that must take part, and must reply in each round"),
    ("epochs", int, "local epochs in each round"),
    ("learning-rate", float, "of Adam, on the device"),
    ("task", str, "what is learned"),
    ("strategy", str, "a strategy of Flower, such as FedAvg"),
    ("proximal-mu", float, "weight of FedProx's proximal term"),
    ("mask-rate", float, "share of signs hidden in training rows"),
    ("logit-adjustment", float, "strength of the correction for rare classes"),
    ("admission-deadline", float, "seconds that devices have to answer"),
    ("round-deadline", float, "seconds that a round may take"),
    ("seed", int, "of everything that is drawn"),
    ("method", str, "how devices personalise: none, finetune, fedprox, ditto, fedper, fedrep or apfl"),
    ("personal-mu", float, "pull of the personal model to the global one"),
)


def add_spec_arguments(parser: argparse.ArgumentParser) -> None:
    """What a run is to do; the options that are left out are the gateway's defaults."""
    for name, kind, text in OPTIONS:
        parser.add_argument(f"--{name}", type=kind, help=text, metavar=kind.__name__.upper())
    parser.add_argument(
        "--run",
        type=Path,
        dest="run_file",
        metavar="FILE.toml",
        help="a description of the run; the options beside it count in its place",
    )
    parser.add_argument("--devices", metavar="A,B", help="ask these only; else all that are online")


def add_start_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `runs start`."""
    add_spec_arguments(parser)
    parser.add_argument("--watch", action="store_true", help="follow the run to its end")
    parser.add_argument("--json", action="store_true", help="print the run as JSON")


def body(arguments: argparse.Namespace) -> dict[str, Any]:
    """The request of a run from its file, if there is one, and the parsed options. Raises RunFileError."""
    fields: dict[str, Any] = {}
    if arguments.run_file is not None:
        described = runfile.read(arguments.run_file)
        fields = msgspec.to_builtins(described.spec)
        if described.devices is not None:
            fields["devices"] = described.devices
    for name, _, _ in OPTIONS:
        value = getattr(arguments, name.replace("-", "_"))
        if value is not None:
            key = name.replace("-", "_")
            fields[f"{key}_s" if key.endswith("_deadline") else key] = value
    if arguments.devices:
        fields["devices"] = [name.strip() for name in arguments.devices.split(",")]
    return fields


def start(client: Client, arguments: argparse.Namespace) -> int:
    run = client.post("/api/runs", body(arguments))
    if arguments.watch:
        return follow(client, run["id"], as_json=arguments.json)
    if arguments.json:
        say(json.dumps(run))
    else:
        say(f"{run['id']}: {len(run['asked'])} devices are asked; samd-gateway runs watch {run['id']}")
    return 0


def stop(client: Client, arguments: argparse.Namespace) -> int:
    run = client.post(f"/api/runs/{arguments.run_id}/stop")
    say(json.dumps(run) if arguments.json else f"{run['id']}: told to stop")
    return 0


def list_(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.get("/api/runs")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    from rich.console import Console

    from samd_gateway.tables import runs_table

    Console().print(runs_table(answer["runs"]))
    return 0


def watch(client: Client, arguments: argparse.Namespace) -> int:
    run = arguments.run_id
    if run is None:
        answer = client.get("/api/runs", limit=1)
        if not answer["runs"]:
            raise NotFoundError("there was no run yet; start one: samd-gateway runs start")
        run = answer["current"] or answer["runs"][0]["id"]
    return follow(client, run, as_json=arguments.json)


def snapshots(
    client: Client,
    run: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[dict[str, Any]]:
    """The run again and again until it has ended; patient with a gateway that starts anew."""
    lost_at: float | None = None
    while True:
        try:
            answer = client.get(f"/api/runs/{run}")
        except UnavailableError:
            lost_at = now() if lost_at is None else lost_at
            if now() - lost_at > PATIENCE_S:
                raise
            sleep(1.0)
            continue
        lost_at = None
        yield answer
        if answer["state"] in ("done", "failed", "stopped"):
            return
        sleep(POLL_S)


def follow(client: Client, run: str, *, as_json: bool) -> int:
    """Show a run to its end. Exit code 0 if it is done, 1 if it failed or was stopped."""
    last = _follow_json(client, run) if as_json else _follow_bars(client, run)
    return 0 if last["state"] == "done" else 1


def _follow_json(client: Client, run: str) -> dict[str, Any]:
    """One line of JSON for each change."""
    last: dict[str, Any] = {}
    shown = ""
    for last in snapshots(client, run):
        key = json.dumps([last["state"], last["round"], last["replies"], last["accepted"], last["history"]])
        if key != shown:
            shown = key
            say(json.dumps(last))
    return last


def _follow_bars(client: Client, run: str) -> dict[str, Any]:
    """A bar for the admission and one for the rounds, with what is waited for."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console()
    progress = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
    last: dict[str, Any] = {}
    with progress:
        admission = progress.add_task("admission", total=None, note="")
        rounds = progress.add_task("rounds", total=None, note="", start=False)
        for last in snapshots(client, run):
            _bars(progress, admission, rounds, last)
    console.print(summary(last))
    return last


def _bars(progress: Any, admission: Any, rounds: Any, run: dict[str, Any]) -> None:
    answered = len(run["accepted"]) + len(run["rejected"])
    progress.update(
        admission,
        total=len(run["asked"]),
        completed=answered,
        note=f"{len(run['accepted'])} accepted, {len(run['rejected'])} rejected, quorum {run['quorum']}",
    )
    if run["state"] == "admitting":
        progress.update(rounds, total=run["rounds"], note=run["waiting"] or "")
        return
    progress.stop_task(admission)
    progress.start_task(rounds)
    closed = sum(each["round_seconds"] is not None for each in run["history"])
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in sorted(run["metrics"].items())[:3])
    note = run["waiting"] or f"{run['state']} {metrics}"
    progress.update(rounds, total=run["rounds"], completed=closed or run["round"], note=note)


def summary(run: dict[str, Any]) -> str:
    """How a run ended, in a few lines."""
    lines = [f"{run['id']}: {run['state']}" + (f", {run['reason']}" if run["reason"] else "")]
    if run["rejected"]:
        refusals = ", ".join(
            f"{each['device']} ({each['reason'] or 'no reason'})" for each in run["rejected"]
        )
        lines.append(f"rejected: {refusals}")
    seconds = sorted(each["round_seconds"] for each in run["history"] if each["round_seconds"] is not None)
    if seconds:
        lines.append(f"{len(seconds)} rounds, median {seconds[len(seconds) // 2]:.3f} s a round")
    if run["model_version"] is not None:
        lines.append(f"model {run['model_version']}, " + ("released" if run["released"] else "not released"))
    for name, value in sorted(run["metrics"].items()):
        lines.append(f"{name}: {value:.4f}")
    return "\n".join(lines)


def actions() -> dict[str, Callable[[Client, argparse.Namespace], int]]:
    """The commands below `runs`."""
    return {"start": start, "watch": watch, "list": list_, "stop": stop}
