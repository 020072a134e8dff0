"""`samd-gateway mosquitto`: a configuration for a real broker."""

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec

from samd_gateway.client import say
from samd_gateway.commands import Parents
from samd_gateway.errors import UsageError

TEXT = """Write mosquitto.conf and its access list, and with --pki a certificate for each part. Run it again
to add devices, to revoke one, and to renew the revocation list before it ends: Mosquitto reads it anew on
SIGHUP (an open connection of a revoked device stays until it ends), and refuses everybody once it has ended.
Keep keys/ca.key off the broker's machine when the trial is over."""


def add(commands: Any, parents: Parents) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "mosquitto", parents=[parents.plain], help="write a configuration for Mosquitto", description=TEXT
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument(
        "--gateway",
        action="append",
        metavar="NAME",
        help="a gateway; given again, they share, at a port of their own (default: main)",
    )
    parser.add_argument(
        "--device", action="append", default=[], metavar="NAME", help="a device with a certificate"
    )
    parser.add_argument(
        "--devices-file", type=Path, metavar="FILE", help="names of devices, one a line, beside --device"
    )
    parser.add_argument("--pki", action="store_true", help="make an authority, certificates and their keys")
    parser.add_argument(
        "--host-name",
        action="append",
        metavar="NAME",
        help="what the broker is reached by: names and addresses (default: localhost and 127.0.0.1)",
    )
    parser.add_argument(
        "--listen", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0 for all (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8883, help="gateways that share take the next one (default: %(default)s)"
    )
    parser.add_argument(
        "--revoke", action="append", default=[], metavar="NAME", help="a certificate that is good no longer"
    )
    parser.add_argument(
        "--home-assistant", action="store_true", help="let the gateways write below homeassistant/"
    )
    parser.add_argument(
        "--user", metavar="NAME", help="whom Mosquitto becomes when root starts it (default: its own default)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from samd_gateway.mosquitto_config.folder import listen_on, write
    from samd_gateway.mosquitto_config.parties import Parties

    if arguments.revoke and not arguments.pki:
        raise UsageError("--revoke: needs --pki, whose authority signs the revocation list")
    parties = Parties(
        gateways=list(dict.fromkeys(arguments.gateway or ["main"])),
        devices=list(dict.fromkeys([*arguments.device, *_names(arguments.devices_file)])),
    )
    written = write(
        arguments.out,
        parties,
        listen_on(arguments.listen, arguments.port, len(parties.gateways)),
        pki=arguments.pki,
        hosts=arguments.host_name or ["localhost", "127.0.0.1"],
        revoke=arguments.revoke,
        home_assistant=arguments.home_assistant,
        user=arguments.user,
    )
    if arguments.json:
        say(json.dumps(msgspec.to_builtins(written)))
        return 0
    say(f"{written.folder}: {', '.join(written.files)}")
    if written.issued:
        say(f"issued {len(written.issued)} certificates: {', '.join(written.issued[:12])}")
    if written.revoked:
        say(f"revoked: {', '.join(written.revoked)}; send Mosquitto a SIGHUP, and end open connections")
    if written.crl_until is not None:
        say(f"the revocation list ends on {written.crl_until:%Y-%m-%d}: run this again before")
    say(f"start it: mosquitto -c {written.folder}/mosquitto.conf")
    return 0


def _names(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--devices-file {file}: cannot be read ({error})") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
