"""`samd-gateway grafana`: a dashboard of the gateway's metrics, and how Prometheus comes to them."""

import argparse
from pathlib import Path
from typing import Any

from samd_gateway.client import say
from samd_gateway.commands import Parents
from samd_gateway.errors import UsageError
from samd_gateway.grafana import SCRAPE, dashboard


def add(commands: Any, _parents: Parents) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("grafana", help="write a dashboard for Grafana, or how Prometheus scrapes")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.json", help="default: standard output")
    parser.add_argument("--scrape", action="store_true", help="print the scrape configuration of Prometheus")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.scrape:
        say(SCRAPE.rstrip())
        return 0
    if arguments.file is None:
        say(dashboard().rstrip())
        return 0
    try:
        arguments.file.write_text(dashboard(), "utf-8")
    except OSError as error:
        raise UsageError(f"{arguments.file}: cannot be written ({error.strerror})") from error
    say(f"{arguments.file}: import it in Grafana; samd-gateway grafana --scrape is for Prometheus")
    return 0
