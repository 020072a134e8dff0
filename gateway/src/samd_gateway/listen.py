"""Where a program may listen: the loopback interface only, while nothing here authenticates a caller."""

import errno
import ipaddress
import socket

from samd_gateway.errors import UsageError


def check_loopback(host: str, remedy: str) -> str:
    """The host as an address of the loopback interface. Raises UsageError, with the remedy, for any other."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise UsageError(
        f"--host {host}: nothing here authenticates a caller, so only 127.0.0.1 is served; {remedy}"
    )


def bind(host: str, port: int, program: str) -> socket.socket:
    """A bound TCP socket, not yet listening. Raises UsageError for a port in use or not allowed."""
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
