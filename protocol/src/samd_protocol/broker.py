"""Where the broker is and how to get in: a URL, and files for everything secret.

`mqtt://HOST[:1883]` or `mqtts://HOST[:8883]`. A password never stands in a URL, an argument or a log: it is
read from a file that only its owner can read.
"""

import contextlib
import re
import socket
import ssl
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from samd_protocol.errors import BrokerError

DEFAULT_URL = "mqtt://127.0.0.1:1883"
_HOST = re.compile(r"[A-Za-z0-9.:_%-]+")


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """Address and credentials of a broker; paths of files, never their content."""

    url: str = DEFAULT_URL
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @property
    def address(self) -> tuple[str, int, bool]:
        """(host, port, tls). Raises BrokerError for a URL that is none of ours."""
        remedy = "write mqtt://HOST:PORT or mqtts://HOST:PORT"
        if "@" in self.url:
            # Not quoted: a password may stand in it.
            raise BrokerError(
                "broker: user name and password do not belong into the URL; set the user name apart and "
                "give the password in a file"
            )
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BrokerError(f"broker {self.url!r}: {error}; {remedy}") from error
        known = parts.scheme in ("mqtt", "mqtts") and parts.path in ("", "/")
        if not known or parts.query or parts.fragment or port == 0 or not host or not _HOST.fullmatch(host):
            raise BrokerError(f"broker {self.url!r}: {remedy}")
        tls = parts.scheme == "mqtts"
        return host, port or (8883 if tls else 1883), tls


def read_secret(path: str) -> str:
    """One line from a file that only its owner can read; raises BrokerError otherwise."""
    check_private(path)
    try:
        secret = Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise BrokerError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BrokerError(f"{path}: is no text; write the password into it, in one line") from error
    if not secret:
        raise BrokerError(f"{path}: is empty; write the password into it")
    if not secret.isprintable():
        raise BrokerError(f"{path}: holds more than one line of text; write the password alone into it")
    return secret


def check_private(path: str) -> None:
    """Raises BrokerError unless this is a file that its owner alone can read."""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise BrokerError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise BrokerError(f"{path}: is no file; name the file that holds the secret")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BrokerError(f"{path}: others can read this secret; run: chmod 600 {path}")


def tls_context(broker: Broker) -> ssl.SSLContext:
    """What a `mqtts:` connection is checked with: the broker's name and its certificate, TLS 1.2 or later;
    without `ca_file`, against the authorities of the system. Raises BrokerError for unusable files."""
    if (broker.cert_file is None) != (broker.key_file is None):
        raise BrokerError("broker: a certificate and its key go together; give both files or neither")
    try:
        context = ssl.create_default_context(cafile=broker.ca_file)
    except OSError as error:
        raise BrokerError(f"{broker.ca_file}: cannot be used as the broker's authority ({error})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert_file is not None and broker.key_file is not None:
        check_private(broker.key_file)
        try:
            # An empty password: for an encrypted key OpenSSL would else ask at the terminal, and wait.
            context.load_cert_chain(broker.cert_file, broker.key_file, password="")
        except (OSError, ValueError) as error:
            raise BrokerError(
                f"{broker.cert_file}, {broker.key_file}: cannot be used as certificate and key ({error})"
            ) from error
    return context


def make_client(
    broker: Broker,
    client_id: str,
    *,
    manual_ack: bool = False,
    max_inflight: int = 20,
) -> mqtt.Client:
    """A paho client for MQTT 5, configured and not yet connected; connect it with `connect`.

    Raises BrokerError for files that are missing or readable by others, and for settings of which a part
    would be passed over: files for TLS with `mqtt:`, a password without a user name.
    """
    _, _, tls = broker.address
    if not tls and (broker.ca_file or broker.cert_file or broker.key_file):
        raise BrokerError(f"broker {broker.url!r}: is not encrypted, yet TLS files are given; write mqtts://")
    if broker.password_file is not None and broker.username is None:
        raise BrokerError("broker: a password file is given and no user name; give the user name too")
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=mqtt.MQTTv5,
        manual_ack=manual_ack,
    )
    client.max_inflight_messages_set(max_inflight)
    client.reconnect_delay_set(1, 30)
    client.on_socket_open = _send_at_once
    if broker.username is not None:
        password = read_secret(broker.password_file) if broker.password_file else None
        client.username_pw_set(broker.username, password)
    if tls:
        client.tls_set_context(tls_context(broker))
    return client


def _send_at_once(_client: mqtt.Client, _userdata: Any, sock: Any) -> None:
    """Small packets never wait for the other side's delayed acknowledgement, which takes 40 ms."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def acknowledge_at_once(client: mqtt.Client) -> None:
    """Call this in `on_publish`: it has TCP acknowledge the PUBACK now instead of 40 ms later.

    The embedded broker sends no further packet before that: a command that follows a PUBACK would wait. Does
    nothing where the system has no such option; it has to be asked for again after each packet.
    """
    sock: Any = client.socket()
    option = getattr(socket, "TCP_QUICKACK", None)
    if sock is not None and option is not None:
        with contextlib.suppress(OSError):  # the connection is just ending
            sock.setsockopt(socket.IPPROTO_TCP, option, 1)


def connect(
    client: mqtt.Client,
    broker: Broker,
    *,
    clean_start: bool = False,
    keepalive: int = 30,
    session_s: int = 86_400,
    receive_maximum: int | None = None,
    maximum_packet_bytes: int | None = None,
) -> None:
    """Begin to connect, in the background, again and again until it succeeds; `loop_start` is the caller's.

    The session outlives a lost connection by `session_s`, a day, so that nothing sent meanwhile is lost.
    `receive_maximum`: how many messages the broker sends ahead of our acknowledgements;
    `maximum_packet_bytes`: larger messages stay with the broker.
    """
    host, port, _ = broker.address
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = session_s
    if receive_maximum is not None:
        properties.ReceiveMaximum = receive_maximum
    if maximum_packet_bytes is not None:
        properties.MaximumPacketSize = maximum_packet_bytes
    client.connect_async(host, port, keepalive=keepalive, clean_start=clean_start, properties=properties)
