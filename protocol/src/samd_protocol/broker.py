"""Where the broker is and how to get in: a URL, and files for everything secret.

`mqtt://HOST[:1883]` or `mqtts://HOST[:8883]`. A password never stands in a URL, an argument or a log: it is
read from a file that only its owner can read.
"""

import ssl
import stat
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from samd_protocol.errors import BrokerError

DEFAULT_URL = "mqtt://127.0.0.1:1883"


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
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise BrokerError(f"broker {self.url!r}: {error}; {remedy}") from error
        if parts.password is not None:
            raise BrokerError("broker: a password does not belong into the URL; use a password file")
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
            raise BrokerError(f"broker {self.url!r}: {remedy}")
        tls = parts.scheme == "mqtts"
        return parts.hostname, port or (8883 if tls else 1883), tls


def read_secret(path: str) -> str:
    """One line from a file that only its owner can read; raises BrokerError otherwise."""
    file = Path(path)
    try:
        mode = file.stat().st_mode
        secret = file.read_text().strip()
    except OSError as error:
        raise BrokerError(f"{path}: cannot be read ({error.strerror})") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BrokerError(f"{path}: others can read this secret; run: chmod 600 {path}")
    if not secret:
        raise BrokerError(f"{path}: is empty; write the password into it")
    return secret


def make_client(
    broker: Broker,
    client_id: str,
    *,
    manual_ack: bool = False,
    max_inflight: int = 20,
) -> mqtt.Client:
    """A paho client for MQTT 5, configured and not yet connected; connect it with `connect`.

    Raises BrokerError for files that are missing or readable by others.
    """
    _, _, tls = broker.address
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=mqtt.MQTTv5,
        manual_ack=manual_ack,
    )
    client.max_inflight_messages_set(max_inflight)
    client.reconnect_delay_set(1, 30)
    if broker.username is not None:
        password = read_secret(broker.password_file) if broker.password_file else None
        client.username_pw_set(broker.username, password)
    if tls:
        if broker.key_file is not None:
            read_secret(broker.key_file)
        try:
            context = ssl.create_default_context(cafile=broker.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if broker.cert_file is not None:
                context.load_cert_chain(broker.cert_file, broker.key_file)
        except (OSError, ssl.SSLError) as error:
            raise BrokerError(f"TLS files of the broker cannot be used: {error}") from error
        client.tls_set_context(context)
    return client


def connect(client: mqtt.Client, broker: Broker, *, clean_start: bool = False, keepalive: int = 30) -> None:
    """Begin to connect, in the background, again and again until it succeeds; `loop_start` is the caller's.

    The session outlives a lost connection by a day, so that nothing sent to us meanwhile is lost.
    """
    host, port, _ = broker.address
    properties = mqtt.Properties(mqtt.PacketTypes.CONNECT)  # type: ignore[attr-defined,no-untyped-call]
    properties.SessionExpiryInterval = 86_400
    client.connect_async(host, port, keepalive=keepalive, clean_start=clean_start, properties=properties)
