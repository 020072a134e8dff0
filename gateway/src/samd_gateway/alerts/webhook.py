"""Webhooks as the Standard Webhooks specification has them (https://www.standardwebhooks.com, version 1).

Headers: `webhook-id` (the same for each attempt; `Idempotency-Key` holds it too), `webhook-timestamp` in
seconds since 1970, `webhook-signature` as `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. The
key is the base64 behind `whsec_` in the channel's file of mode 600.

Requests go to https alone, or to this machine; they follow no redirect, use no proxy of the environment, and
nothing of the answer but its status is read. An address that is link-local, multicast or unspecified is
refused (services that hand out a cloud's credentials live there). Who may add a channel may reach the
hospital's own network by it: that is its purpose, and needs the permission `settings`.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from samd_gateway.alerts.channel import Channel, Webhook, is_loopback, secret_path
from samd_gateway.alerts.delivery import DeliveryError, Notice
from samd_gateway.alerts.tls import context_for
from samd_protocol.broker import read_secret
from samd_protocol.errors import BrokerError

PREFIX = "whsec_"
SHORTEST_KEY, LONGEST_KEY = 24, 64
LONGEST_RETRY_AFTER_S = 3600.0


class WebhookSender:
    """Posts notices. `folder` is the gateway's own."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._now = now

    def send(self, channel: Channel, notice: Notice) -> str | None:
        config = channel.config
        if not isinstance(config, Webhook):
            raise DeliveryError(f"channel {channel.name} is no webhook")
        check_address(config.url)
        headers = sign(read_key(self._folder, config.secret), notice.key, int(self._now()), notice.body)
        verify = context_for(self._folder, config.ca)
        try:
            with (
                httpx.Client(verify=verify, timeout=config.timeout_s, trust_env=False) as client,
                client.stream("POST", config.url, content=notice.body, headers=headers) as response,
            ):
                status, after = response.status_code, response.headers.get("retry-after")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise DeliveryError(f"no answer from {_host(config.url)} ({type(error).__name__})") from error
        if not 200 <= status < 300:
            raise DeliveryError(f"{_host(config.url)} answered {status}", retry_after_s=_seconds(after))
        return None


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a request."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "content-type": "application/json",
        "user-agent": "samd-gateway",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
        "idempotency-key": message_id,
    }


def read_key(folder: Path, file: str) -> bytes:
    """The key from its file. Raises DeliveryError with the remedy."""
    path = secret_path(folder, file)
    try:
        text = read_secret(str(path))
    except BrokerError as error:
        raise DeliveryError(str(error)) from error
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DeliveryError(f"{path}: no key; write {PREFIX} and the base64 of 32 random bytes") from error
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise DeliveryError(f"{path}: the key has {len(key)} bytes; give it {SHORTEST_KEY} to {LONGEST_KEY}")
    return key


def check_address(url: str) -> None:
    """Raises DeliveryError for a host that is not found or where no receiver may be."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryError(f"{host[:80]} is not found; check the name and the network") from error
    for *_, address in found:
        ip = ipaddress.ip_address(str(address[0]).split("%")[0])
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            raise DeliveryError(f"{host[:80]} has the address {ip}, where no receiver may be")
        if parts.scheme == "http" and not (is_loopback(host) and ip.is_loopback):
            raise DeliveryError(f"{host[:80]} is not this machine; use https")


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "the receiver")[:80]


def _seconds(after: str | None) -> float | None:
    """The header Retry-After, where it is a number of seconds."""
    if after is None or not after.strip().isdecimal() or len(after) > 10:
        return None
    return min(float(after), LONGEST_RETRY_AFTER_S)
