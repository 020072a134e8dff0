"""`samd-gateway`: the command line."""

import argparse
import logging
import sys
from collections.abc import Sequence

from samd_gateway.errors import GatewayError


def _broker(arguments: argparse.Namespace) -> int:
    from samd_gateway import embedded_broker

    return embedded_broker.run(arguments.host, arguments.port, lambda line: print(line, flush=True))


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, a function of the parsed arguments to an exit code."""
    top = argparse.ArgumentParser(prog="samd-gateway", description="The MQTT gateway: fleet, runs, alerts, HTTP API.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    broker = commands.add_parser("broker", help="the embedded MQTT broker, for a first try on one machine")
    broker.add_argument("--host", default="127.0.0.1", help="address to listen on; loopback only (default: %(default)s)")
    broker.add_argument("--port", type=int, default=1883, help="port, 0 for a free one (default: %(default)s)")
    broker.set_defaults(run=_broker)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 the run failed, 2 bad input or something needed is missing, 130 Ctrl-C."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return int(arguments.run(arguments))
    except GatewayError as error:
        print(f"samd-gateway: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
