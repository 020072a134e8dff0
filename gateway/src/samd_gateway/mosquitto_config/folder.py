"""All files of a broker into one folder; run again, it adds what is missing and keeps the rest."""

import ipaddress
import os
import shutil
from datetime import datetime
from pathlib import Path

import msgspec

from samd_gateway.errors import UsageError
from samd_gateway.mosquitto_config import acl, conf
from samd_gateway.mosquitto_config.conf import Listen
from samd_gateway.mosquitto_config.parties import BROKER, SERVER, Parties, common_name
from samd_gateway.mosquitto_config.pki import Authority


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was done: files by name, certificates that were issued, and when the revocation lists end."""

    folder: str
    files: list[str]
    issued: list[str]
    revoked: list[str]
    crl_until: datetime | None


def listen_on(address: str, port: int, gateways: int) -> Listen:
    """Where to listen, checked. Raises UsageError."""
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise UsageError(f"--listen {address!r}: write an address, such as 127.0.0.1 or 0.0.0.0") from error
    if not 1 <= port <= 65_534:
        raise UsageError(f"--port {port}: a port lies between 1 and 65534")
    return Listen(address=address, port=port, gateway_port=port + 1 if gateways > 1 else None)


def write(
    folder: Path,
    parties: Parties,
    listen: Listen,
    *,
    pki: bool,
    hosts: list[str],
    revoke: list[str],
    home_assistant: bool = False,
    user: str | None = None,
) -> Written:
    """Write configuration and access list, and with `pki` the certificates. Raises UsageError.

    `user`: whom Mosquitto becomes if root starts it; then its key and its data belong to that user."""
    parties.check()
    folder = folder.absolute()
    if any(character.isspace() for character in str(folder)):
        raise UsageError(f"--out {folder}: Mosquitto takes no path with a space in it")
    files = {
        "acl": acl.text(parties, home_assistant=home_assistant),
        "mosquitto.conf": conf.text(folder, listen, user),
    }
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        (folder / "db").mkdir(mode=0o700, exist_ok=True)
        for name, text in files.items():
            path = folder / name
            path.write_text(text, "utf-8")
            path.chmod(0o644)
        issued, until = _pki(folder / "pki", parties, listen, hosts, revoke) if pki else ([], None)
        if user is not None and os.geteuid() == 0:
            _give(user, [folder / "db", folder / "pki" / "keys" / "broker.key"])
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written ({error.strerror})") from error
    return Written(folder=str(folder), files=sorted(files), issued=issued, revoked=revoke, crl_until=until)


def _give(user: str, paths: list[Path]) -> None:
    for path in paths:
        if path.exists():
            try:
                shutil.chown(path, user)
            except LookupError as error:
                raise UsageError(f"--user {user}: there is no such user on this machine") from error


def _pki(
    folder: Path, parties: Parties, listen: Listen, hosts: list[str], revoke: list[str]
) -> tuple[list[str], datetime]:
    authority = Authority(folder, "ca")
    gateways = authority if listen.gateway_port is None else Authority(folder, "gateways-ca")
    named = {common_name(name) for name in parties.gateways}
    for name in revoke:
        (gateways if name in named else authority).revoke(name)
    issued = []
    if authority.issue(BROKER, hosts=hosts):
        issued.append(BROKER)
    clients = [(authority, SERVER), *((gateways, name) for name in sorted(named))]
    clients += [(authority, name) for name in parties.devices]
    for issuer, name in clients:
        if name not in revoke and issuer.issue(name):
            issued.append(name)
    until = authority.write_crl()
    if gateways is not authority:
        gateways.write_crl()
    return issued, until
