"""From where a request came and what it called us: against pages of other sites, and names that lie.

A page anywhere can make its reader's browser send requests to 127.0.0.1, and a name anywhere can be made to
mean 127.0.0.1 (DNS rebinding). So the name in `Host` has to be one of ours, and an `Origin` our own.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def split_host(value: str, scheme: str) -> tuple[str, int] | None:
    """(name in lower case, port) of a `Host` header; None for one that is none."""
    try:
        parts = urlsplit(f"//{value}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return name.rstrip("."), port or PORTS.get(scheme, 80)


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether this name or address never leaves the machine."""
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def known(name: str, names: Collection[str], *, open_to_all: bool) -> bool:
    """Whether this is a name of ours. An address cannot be rebound; without users only loopback is served."""
    return is_loopback(name) or (not open_to_all and (is_address(name) or name in names))


def same_origin(origin: str, scheme: str, host: str) -> bool:
    """Whether an `Origin` is that of the page that `Host` was asked for."""
    web = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    parts = urlsplit(origin)
    if parts.scheme != web or parts.path or parts.query or parts.fragment:
        return False
    ours = split_host(host, web)
    return ours is not None and split_host(parts.netloc, web) == ours
