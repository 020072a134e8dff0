"""`samd-server runs …`: the runs in a server's folder, from the JSON lines that they left."""

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from samd_server.errors import ServerError


def add_runs_parser(commands: Any) -> None:
    """The command `runs` with its actions."""
    runs = commands.add_parser("runs", help="list, show and compare the runs that were")
    actions = runs.add_subparsers(required=True, metavar="ACTION")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data", type=Path, default=Path(".samd/server"), metavar="DIR", help="default: %(default)s"
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    drawn = argparse.ArgumentParser(add_help=False)
    drawn.add_argument("--png", type=Path, metavar="FILE", help="draw the curves into a picture")
    drawn.add_argument("--html", type=Path, metavar="FILE", help="write curves and figures into a page")
    listed = actions.add_parser("list", parents=[common], help="one line for each run, oldest first")
    listed.set_defaults(run=_list)
    show = actions.add_parser("show", parents=[common, drawn], help="one run, round by round")
    show.add_argument("names", nargs=1, metavar="RUN", help="its name, or the beginning of it")
    show.set_defaults(run=_show)
    compare = actions.add_parser("compare", parents=[common, drawn], help="several runs side by side")
    compare.add_argument("names", nargs="+", metavar="RUN")
    compare.set_defaults(run=_compare)


def _list(args: argparse.Namespace) -> int:
    from samd_server.tracking.history import all_of

    histories = all_of(args.data)
    if args.json:
        _say({"runs": [each.summary() for each in histories]})
        return 0
    if not histories:
        raise ServerError(f"{args.data}: holds no run; start one: samd-gateway runs start")
    for each in histories:
        said = each.summary()
        settings = said["settings"]
        line = f"{each.run}  {said['phase']:<8} round {said['round']:>3}"
        line += "" if said["loss"] is None else f"  loss {said['loss']:.4f}"
        line += f"  {settings.get('strategy', '?')}, {settings.get('method', 'none')}"
        line += f"  {said['name']}" if said["name"] else ""
        sys.stdout.write(line + "\n")
    return 0


def _show(args: argparse.Namespace) -> int:
    from samd_server.tracking.curves import shown
    from samd_server.tracking.history import one

    history = one(args.data, args.names[0])
    _draw(args, [history])
    if args.json:
        rounds = [point._asdict() for point in history.points]
        _say(history.summary() | {"spec": history.spec, "points": rounds})
        return 0
    lines = [
        f"{history.run}: {history.phase}"
        + (f", {history.result['reason']}" if history.result.get("reason") else "")
    ]
    lines += [f"  {name} = {shown(value)}" for name, value in history.spec.items()]
    numbers, losses = history.curve("round/loss")
    lines += [f"round {number:>4}  loss {loss:.4f}" for number, loss in zip(numbers, losses, strict=True)]
    lines += [f"{name}: {shown(value)}" for name, value in sorted(history.metrics.items())]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from samd_server.tracking.curves import differing, figures, shown
    from samd_server.tracking.history import one

    histories = [one(args.data, name) for name in args.names]
    if len({each.run for each in histories}) < 2:
        raise ServerError("compare takes two runs or more; one alone: samd-server runs show RUN")
    _draw(args, histories)
    if args.json:
        _say(
            {
                "runs": [each.run for each in histories],
                "differing": differing(histories),
                "figures": figures(histories),
            }
        )
        return 0
    rows = {**differing(histories), **figures(histories)}
    width = max(map(len, rows))
    sys.stdout.write(" " * width + "".join(f"  {each.run:>32}" for each in histories) + "\n")
    for name, values in rows.items():
        sys.stdout.write(f"{name:<{width}}" + "".join(f"  {shown(value):>32}" for value in values) + "\n")
    return 0


def _draw(args: argparse.Namespace, histories: list[Any]) -> None:
    if args.png is None and args.html is None:
        return
    from samd_server.tracking import curves

    if args.png is not None:
        curves.png(histories, args.png)
    if args.html is not None:
        curves.page(histories, args.html)


def _say(value: object) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
