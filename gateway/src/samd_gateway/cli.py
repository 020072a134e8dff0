"""`samd-gateway`: the command line."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samd_gateway import device_commands, run_commands
from samd_gateway.commands import (
    Parents,
    alerts,
    audit,
    backups,
    channels,
    connected,
    data,
    fleet,
    gateways,
    grafana,
    models,
    mosquitto,
    schedules,
    tokens,
    users,
    ward,
)
from samd_gateway.errors import GatewayError, UsageError
from samd_protocol.errors import ProtocolError


def _broker(arguments: argparse.Namespace) -> int:
    from samd_gateway import embedded_broker

    return embedded_broker.run(arguments.host, arguments.port, lambda line: print(line, flush=True))


def _serve(arguments: argparse.Namespace) -> int:
    from samd_gateway import __version__, serve
    from samd_gateway.flood import Allowance
    from samd_gateway.gateway import Settings
    from samd_gateway.states import Policy
    from samd_gateway.web import Web
    from samd_protocol.broker import Broker

    try:
        policy = Policy(stale_after=arguments.stale_after, offline_after=arguments.offline_after)
        allowance = Allowance(rate=arguments.device_rate, burst=arguments.device_burst)
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
        database_password_file=os.environ.get("SAMD_DATABASE_PASSWORD_FILE") or None,
        policy=policy,
        allowance=allowance,
        grace_s=arguments.admission_grace,
        share=arguments.share,
        home_assistant=arguments.home_assistant,
    )
    web = Web(
        host=arguments.host,
        port=arguments.port,
        hostnames=tuple(arguments.hostname),
        behind_proxy=tuple(arguments.behind_proxy),
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        oidc=arguments.oidc,
        pages=not arguments.no_pages,
    )
    code = serve.run(settings, web, lambda line: print(line, flush=True))
    if code == serve.RESTART:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this program, as it was
    return code


def _add_clients(commands: Any) -> None:
    gateway = argparse.ArgumentParser(add_help=False)
    gateway.add_argument(
        "--gateway",
        default=os.environ.get("SAMD_GATEWAY") or "http://127.0.0.1:8080",
        metavar="URL",
        help="the gateway to ask, also by SAMD_GATEWAY (default: %(default)s)",
    )
    gateway.add_argument(
        "--token-file",
        default=os.environ.get("SAMD_GATEWAY_TOKEN_FILE") or None,
        metavar="FILE",
        help="a file of mode 600 with the token to show, also by SAMD_GATEWAY_TOKEN_FILE",
    )
    gateway.add_argument(
        "--gateway-ca-file",
        default=os.environ.get("SAMD_GATEWAY_CA_FILE") or None,
        metavar="FILE",
        help="what the certificate of an https:// gateway is checked against, also by SAMD_GATEWAY_CA_FILE",
    )
    plain = argparse.ArgumentParser(add_help=False)
    plain.add_argument("--json", action="store_true", help="print JSON")

    parents = Parents(gateway=gateway, plain=plain)
    for part in (
        fleet,
        ward,
        alerts,
        channels,
        gateways,
        grafana,
        models,
        mosquitto,
        schedules,
        users,
        tokens,
        audit,
        data,
        backups,
    ):
        part.add(commands, parents)

    runs = commands.add_parser("runs", help="start, watch, list and stop federated trainings")
    actions = run_commands.actions()
    below = runs.add_subparsers(required=True, metavar="ACTION")
    start = below.add_parser("start", parents=[gateway], help="ask the devices, and train")
    run_commands.add_start_arguments(start)
    watch = below.add_parser("watch", parents=[gateway, plain], help="follow a run to its end")
    watch.add_argument("run_id", nargs="?", metavar="RUN", help="default: the one that is going on")
    below.add_parser("list", parents=[gateway, plain], help="the latest runs")
    stop = below.add_parser("stop", parents=[gateway, plain], help="stop a run")
    stop.add_argument("run_id", metavar="RUN")
    for name, action in actions.items():
        below.choices[name].set_defaults(run=connected(action))

    devices = commands.add_parser("devices", parents=[gateway, plain], help="the devices as a table")
    devices.set_defaults(run=connected(device_commands.show))
    live = devices.add_subparsers(metavar="ACTION").add_parser("watch", help="the table, again and again")
    # without a default of its own, which would overwrite what stands before `watch`
    live.add_argument("--gateway", default=argparse.SUPPRESS, metavar="URL", help="the gateway to ask")
    live.add_argument("--token-file", default=argparse.SUPPRESS, metavar="FILE", help="the token to show")
    live.add_argument("--gateway-ca-file", default=argparse.SUPPRESS, metavar="FILE", help="its authority")
    live.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end after so long")
    live.set_defaults(run=connected(device_commands.watch))


def _add_web(serve: argparse.ArgumentParser) -> None:
    group = serve.add_argument_group("being reached from other machines, once users are set up")
    group.add_argument("--tls-cert", metavar="FILE", help="this gateway's certificate, with its chain")
    group.add_argument("--tls-key", metavar="FILE", help="its key, a file of mode 600")
    group.add_argument(
        "--behind-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a proxy that speaks TLS, and whose X-Forwarded-For and -Proto are believed; once for each",
    )
    group.add_argument(
        "--hostname",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which it is reached, beside its addresses; once for each",
    )
    group.add_argument(
        "--oidc", metavar="FILE.toml", help="sign in by an OpenID provider too, which the file describes"
    )


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
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="to listen on; beyond loopback only with users and TLS (default: %(default)s)",
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
        "--device-rate",
        type=float,
        default=100.0,
        metavar="N",
        help="messages a second that one device may send in the long run; the history of one that sends more "
        "is thinned (default: %(default)s)",
    )
    serve.add_argument(
        "--device-burst",
        type=float,
        default=20_000.0,
        metavar="N",
        help="messages that one device may send at once, as after a day without network "
        "(default: %(default)s)",
    )
    serve.add_argument(
        "--admission-grace",
        type=float,
        default=0.5,
        metavar="SECONDS",
        help="wait for silent devices once the quorum of a run is reached (default: %(default)s)",
    )
    serve.add_argument(
        "--share",
        metavar="GROUP",
        help="divide the devices' messages among the gateways of this group, which share a database",
    )
    serve.add_argument(
        "--home-assistant",
        action="store_true",
        help="tell Home Assistant, by MQTT discovery, how the devices do as machines; nothing of a patient",
    )
    _add_web(serve)
    serve.add_argument("--no-pages", action="store_true", help="serve the API alone, without the web pages")
    serve.set_defaults(run=_serve)
    _add_clients(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 the run failed, 2 bad input or a part is missing, 130 Ctrl-C."""
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
