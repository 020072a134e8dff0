"""`samd-gateway`: the command line."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from samd_gateway.errors import GatewayError, UsageError
from samd_protocol.errors import ProtocolError


def _broker(arguments: argparse.Namespace) -> int:
    from samd_gateway import embedded_broker

    return embedded_broker.run(arguments.host, arguments.port, lambda line: print(line, flush=True))


def _serve(arguments: argparse.Namespace) -> int:
    from samd_gateway import __version__, serve
    from samd_gateway.gateway import Settings
    from samd_gateway.states import Policy
    from samd_protocol.broker import Broker

    try:
        policy = Policy(stale_after=arguments.stale_after, offline_after=arguments.offline_after)
    except ValueError as error:
        raise UsageError(str(error)) from error
    settings = Settings(
        broker=Broker(
            url=arguments.broker,
            username=arguments.broker_username,
            password_file=arguments.password_file,
            ca_file=arguments.ca_file,
            cert_file=arguments.cert_file,
            key_file=arguments.key_file,
        ),
        data=Path(arguments.data),
        name=arguments.name,
        version=__version__,
        database_url=os.environ.get("SAMD_DATABASE_URL") or None,
        policy=policy,
        grace_s=arguments.admission_grace,
    )
    return serve.run(settings, arguments.host, arguments.port, lambda line: print(line, flush=True))


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, a function of the parsed arguments to an exit code."""
    top = argparse.ArgumentParser(
        prog="samd-gateway", description="The MQTT gateway: fleet, runs, alerts, HTTP API."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    broker = commands.add_parser("broker", help="the embedded MQTT broker, for a first try on one machine")
    broker.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; loopback only (default: %(default)s)"
    )
    broker.add_argument(
        "--port", type=int, default=1883, help="port, 0 for a free one (default: %(default)s)"
    )
    broker.set_defaults(run=_broker)
    serve = commands.add_parser("serve", help="the gateway and its HTTP API")
    serve.add_argument(
        "--broker",
        default="mqtt://127.0.0.1:1883",
        metavar="URL",
        help="mqtt:// or mqtts:// (default: %(default)s)",
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; loopback only (default: %(default)s)"
    )
    serve.add_argument("--port", type=int, default=8080, help="port, 0 for a free one (default: %(default)s)")
    serve.add_argument(
        "--data",
        default=".samd/gateway",
        metavar="DIR",
        help="database and model files (default: %(default)s)",
    )
    serve.add_argument(
        "--name", default="main", help="name of this gateway on the wire (default: %(default)s)"
    )
    serve.add_argument("--broker-username", metavar="NAME")
    serve.add_argument("--password-file", metavar="FILE", help="the broker's password, a file of mode 600")
    serve.add_argument("--ca-file", metavar="FILE", help="certificates that the broker's is checked against")
    serve.add_argument("--cert-file", metavar="FILE", help="this gateway's certificate")
    serve.add_argument("--key-file", metavar="FILE", help="its key, a file of mode 600")
    serve.add_argument(
        "--stale-after",
        type=float,
        default=3.0,
        metavar="N",
        help="heartbeat intervals of silence until a device is stale (default: %(default)s)",
    )
    serve.add_argument(
        "--offline-after",
        type=float,
        default=10.0,
        metavar="N",
        help="heartbeat intervals of silence until it is offline (default: %(default)s)",
    )
    serve.add_argument(
        "--admission-grace",
        type=float,
        default=0.5,
        metavar="SECONDS",
        help="how long silent devices are waited for once the quorum of a run is reached (default: %(default)s)",
    )
    serve.set_defaults(run=_serve)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 the run failed, 2 bad input or something needed is missing, 130 Ctrl-C."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        return int(arguments.run(arguments))
    except (GatewayError, ProtocolError) as error:
        print(f"samd-gateway: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
