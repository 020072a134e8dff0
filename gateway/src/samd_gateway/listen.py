"""Where a program may listen: on the loopback interface; beyond it only what knows its callers, by TLS."""

import errno
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable

from samd_gateway.access.hosts import is_loopback
from samd_gateway.access.proxy import check_proxies
from samd_gateway.errors import UsageError
from samd_gateway.web import Web
from samd_protocol.broker import check_private

_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
FIRST_USER = "samd-gateway users add NAME --role admin --data DIR"


def check_loopback(host: str, remedy: str) -> str:
    """The host as an address of the loopback interface. Raises UsageError, with the remedy, for any other."""
    if host == "localhost":
        return "127.0.0.1"
    if is_loopback(host):
        return host
    raise UsageError(
        f"--host {host}: nothing here authenticates a caller, so only 127.0.0.1 is served; {remedy}"
    )


def check_web(web: Web, users_set_up: Callable[[], bool]) -> str:
    """The address to listen on. Raises UsageError for anything by which strangers would get in, or secrets
    out: beyond loopback without users, or without TLS of our own or a proxy's.

    `users_set_up` is asked only where it matters, for it opens the database.
    """
    host = "127.0.0.1" if web.host == "localhost" else web.host
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise UsageError(f"--host {host!r}: write an address, such as 127.0.0.1 or 0.0.0.0") from error
    check_proxies(web.behind_proxy)
    for name in web.hostnames:
        if not _HOSTNAME.fullmatch(name):
            raise UsageError(f"--hostname {name[:100]!r}: write the name alone, such as ward.example.org")
    if (web.tls_cert is None) != (web.tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together; give both or neither")
    if web.tls_cert is not None and web.behind_proxy:
        raise UsageError("--behind-proxy and --tls-cert: either the proxy speaks TLS or this gateway does")
    beyond = not is_loopback(host)
    if beyond and web.tls_cert is None and not web.behind_proxy:
        raise UsageError(
            f"--host {host}: passwords and vital signs would cross the network in clear; give --tls-cert and "
            "--tls-key, or --behind-proxy ADDRESS where a proxy speaks TLS"
        )
    if (beyond or web.behind_proxy) and not users_set_up():
        what = f"--host {host}" if beyond else "--behind-proxy"
        raise UsageError(
            f"{what}: no user is set up, so whoever reaches this gateway could do everything; "
            f"add the first: {FIRST_USER}"
        )
    if web.oidc is not None and not users_set_up():
        raise UsageError(
            "--oidc: add an admin with a password first, for the day on which the provider is away: "
            f"{FIRST_USER}"
        )
    return host


def check_certificate(cert: str, key: str) -> None:
    """Raises UsageError for files that cannot be used, BrokerError for a key that others can read."""
    check_private(key)
    try:
        # an empty password: for an encrypted key OpenSSL would else ask at the terminal, and wait
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise UsageError(f"{cert}, {key}: cannot be used as certificate and key ({error})") from error


def bind(host: str, port: int, program: str) -> socket.socket:
    """A bound TCP socket. Raises UsageError for a port in use or not allowed."""
    if not 0 <= port <= 65_535:
        raise UsageError(f"--port {port}: a port lies between 0 and 65535 (0 takes a free one)")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} on {host} is in use; stop the program that listens there, "
                f"or choose another port: samd-gateway {program} --port {port + 1 if port < 65_535 else 0}"
            ) from error
        raise UsageError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --port"
        ) from error
    return sock
