"""Where a listener binds, and who may connect: 127.0.0.1 for everybody on this machine; elsewhere only with
TLS and a list of peers.

A listener's settings are a struct that inherits from ``ListenerSettings``:

    class Settings(ListenerSettings, forbid_unknown_fields=True, frozen=True, kw_only=True):
        zone: str | None = None

    settings = url.settings(Settings)
    listening = listen_at(url, settings)
    server = await asyncio.start_server(serve, listening.host, listening.port, ssl=listening.tls)
    ...
    reason = listening.refusal(writer.get_extra_info("peername"))
"""

import contextlib
import ipaddress
import logging
import ssl
from typing import NamedTuple

import msgspec

from samd_edge.sources import SourceError, SourceURL
from samd_protocol.broker import check_private
from samd_protocol.errors import BrokerError

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ListenerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every listener can be told.

    ``cert_file``, ``key_file``: the certificate (PEM, with its chain) and its key (mode 0600) for TLS.
    ``client_ca_file``: also ask peers for a certificate of this authority. ``allow``: addresses and
    networks that may connect, such as ``10.1.2.3`` or ``10.1.2.0/24``; in a URL separated by commas.
    """

    cert_file: str | None = None
    key_file: str | None = None
    client_ca_file: str | None = None
    allow: list[str] = []


class Listening(NamedTuple):
    """An address to bind, TLS for it, and who may connect (empty: everybody, on the loopback address)."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    networks: tuple[Network, ...]

    def refusal(self, peername: object) -> str | None:
        """Why this peer (as ``get_extra_info("peername")`` gives it) is turned away, or None."""
        if not self.networks:
            return None
        address = None
        if isinstance(peername, tuple) and peername:
            with contextlib.suppress(ValueError):
                address = ipaddress.ip_address(str(peername[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address is not None and any(address in network for network in self.networks):
            return None
        return f"{address or 'an unknown peer'} is not on the list of those who may connect (allow)"


class Refusals:
    """Says which connections were refused: the first, the tenth, the hundredth and so on. Whoever tries for
    hours must not fill the card."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def tell(self, reason: str) -> None:
        self._count += 1
        if self._count == 10 ** (len(str(self._count)) - 1):
            log.warning("%s: connection %d was refused: %s", self._name, self._count, reason)


def listen_at(url: SourceURL, settings: ListenerSettings) -> Listening:
    """What ``KIND:PORT`` or ``KIND:HOST:PORT`` means; raises SourceError for what is unsafe or no address."""
    host, port = _address(url)
    networks = tuple(_network(url, entry) for entry in settings.allow)
    tls = _tls(url, settings)
    here = ipaddress.ip_address(host).is_loopback and "%" not in host  # ::1%NAME may be any interface's
    if not here and (tls is None or not networks):
        raise SourceError(
            f"source {url.text!r}: beyond 127.0.0.1 a listener needs TLS (cert_file, key_file) and a list of "
            "those who may connect (allow); give both, or listen on 127.0.0.1"
        )
    return Listening(host, port, tls, networks)


def _address(url: SourceURL) -> tuple[str, int]:
    host, _, port = url.path.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ipaddress.ip_address(host)
        number = int(port) if port.isascii() and port.isdecimal() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise SourceError(
            f"source {url.text!r}: write {url.kind}:PORT or {url.kind}:ADDRESS:PORT, as in {url.kind}:2575"
        )
    return host, number


def _network(url: SourceURL, entry: str) -> Network:
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError as error:
        raise SourceError(
            f"source {url.text!r}: allow: {entry!r} is no address and no network such as 10.1.2.0/24"
        ) from error
    return network


def _check_readable(url: SourceURL, name: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise SourceError(
            f"source {url.text!r}: {name}: {path} cannot be read ({error.strerror}); check the path"
        ) from error


def _tls(url: SourceURL, settings: ListenerSettings) -> ssl.SSLContext | None:
    cert, key = settings.cert_file, settings.key_file
    if cert is None and key is None:
        if settings.client_ca_file is not None:
            raise SourceError(
                f"source {url.text!r}: client_ca_file needs TLS: give cert_file and key_file too"
            )
        return None
    if cert is None or key is None:
        raise SourceError(f"source {url.text!r}: cert_file and key_file go together; give both")
    for name, path in (("cert_file", cert), ("key_file", key), ("client_ca_file", settings.client_ca_file)):
        if path is not None:  # TLS does not say which one it missed
            _check_readable(url, name, path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        check_private(key)
        context.load_cert_chain(cert, key, password="")
        if settings.client_ca_file is not None:
            context.load_verify_locations(settings.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except BrokerError as error:
        raise SourceError(f"source {url.text!r}: {error}") from error
    except (OSError, ValueError) as error:
        raise SourceError(
            f"source {url.text!r}: certificate, key or authority cannot be used ({error}); give PEM files"
        ) from error
    return context
