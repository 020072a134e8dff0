"""``samd-edge top``: the patient and the agent on one screen, on the spot, without any server."""

# ruff: noqa: T201  (what it prints is its purpose)

import argparse
import contextlib
import shutil
import sys
from pathlib import Path

import msgspec

from samd_edge.clock import wall_now
from samd_edge.control import MAX_HOURS
from samd_edge.extras import install
from samd_edge.observe_command import data_dir
from samd_edge.top.feed import AgentFeed, Feed, FeedError, FileFeed, is_stale

_DESCRIPTION = """\
Shows what the running agent knows: NEWS2 with the points of each sign, trends, band and advice of the chart,
model beside rule, alert, link and sources. Nothing leaves the device. Missing is shown as "--".
"""

_EPILOG = """\
keys: q quit, h hours, o enter an observation, s sort, l light or dark, ? help

examples:
  samd-edge top --device bed-01
  samd-edge top --data-dir /var/lib/samd --hours 24
  samd-edge top --once                     one page of plain text
  samd-edge top --json | jq .news2

exit codes: 0 done, 2 bad input, or no agent runs there.
"""


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "top",
        help="the patient and the agent on one screen",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", help="name of the device (default: the one whose agent runs here)")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="its data directory")
    parser.add_argument(
        "--hours", type=_hours, default=6.0, metavar="H", help="length of the trends (default 6)"
    )
    parser.add_argument(
        "--every", type=_every, default=1.0, metavar="S", help="seconds between two views (default 1)"
    )
    parser.add_argument("--light", action="store_true", help="dark on light")
    once = parser.add_mutually_exclusive_group()
    once.add_argument("--once", action="store_true", help="print one page of plain text")
    once.add_argument("--json", action="store_true", help="print the view as JSON")
    parser.add_argument("--from", dest="file", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw until q is pressed, or once; the exit code."""
    try:
        feed: Feed
        if arguments.file is not None:
            feed = FileFeed(arguments.file)
        else:
            feed = AgentFeed(data_dir(arguments.device, arguments.data_dir))
        if arguments.json or arguments.once:
            return _once(feed, arguments)
    except (ValueError, FeedError) as error:
        print(f"samd-edge top: {error}", file=sys.stderr)
        return 2
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("samd-edge top: this is no terminal; use --once or --json", file=sys.stderr)
        return 2
    try:
        from samd_edge.top.app import Top
    except ImportError as error:
        print(
            f"samd-edge top: Textual is not installed ({error}); {install('top')}, or use --once",
            file=sys.stderr,
        )
        return 2
    app = Top(feed, hours=arguments.hours, every_s=arguments.every, light=arguments.light)
    app.run()
    return app.return_code or 0


def _once(feed: Feed, arguments: argparse.Namespace) -> int:
    view = feed.view(arguments.hours)
    if arguments.json:
        print(msgspec.json.encode(view).decode())
        return 0
    from samd_edge.top.plain import page

    stale = ""
    if is_stale(view, 0.0, wall_now(), 0.0):
        stale = f"this view is of {view.at.astimezone():%d %b %Y %H:%M:%S}"
    width = max(80, min(120, shutil.get_terminal_size((100, 24)).columns))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without squares: the number stands beside
    sys.stdout.write(page(view, width=width, hours=arguments.hours, stale=stale))
    return 0


def _hours(text: str) -> float:
    return _number(text, 0.01, MAX_HOURS, "h")


def _every(text: str) -> float:
    return _number(text, 0.2, 60.0, "s")


def _number(text: str, low: float, high: float, unit: str) -> float:
    with contextlib.suppress(ValueError):
        if low <= float(text) <= high:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: give {low:g} to {high:g} {unit}")
