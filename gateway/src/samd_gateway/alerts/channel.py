"""Channels: in which ways people are told, as they stand in the table `channels`. Secrets are named by the
file below the gateway's folder `secrets`, and never held here.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.errors import UsageError
from samd_gateway.queries import rows
from samd_protocol.topics import valid_name

Kind = Literal["webhook", "email", "mqtt"]
Told = Literal["raised", "escalated", "step", "resumed", "acknowledged", "paused", "cleared"]
USUAL: tuple[Told, ...] = ("raised", "escalated", "step", "resumed", "cleared")
SECRETS = "secrets"

Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=60)]
Address = Annotated[str, msgspec.Meta(min_length=3, max_length=254, pattern=r"^[^\s@,;<>]+@[^\s@,;<>]+$")]
FileName = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A POST of JSON, signed. `secret` names the file of the key; `ca` that of an authority of its own."""

    url: Annotated[str, msgspec.Meta(min_length=8, max_length=1000)]
    secret: FileName
    ca: FileName | None = None
    timeout_s: Seconds = 10.0
    details: bool = False
    events: tuple[Told, ...] = USUAL


class Email(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mail by SMTP. `password` names the file of the password. `none` is for this machine alone."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")]
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: Annotated[str, msgspec.Meta(max_length=254)] | None = None
    password: FileName | None = None
    ca: FileName | None = None
    sender: Address
    to: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1, max_length=20)]
    timeout_s: Seconds = 10.0
    details: bool = False
    events: tuple[Told, ...] = USUAL


class Mqtt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message on `gateway/{id}/alert`, which never holds more than device, class and state."""

    timeout_s: Seconds = 10.0
    events: tuple[Told, ...] = USUAL

    @property
    def details(self) -> bool:
        return False


Config = Webhook | Email | Mqtt
_TYPES: dict[str, type[Webhook] | type[Email] | type[Mqtt]] = {
    "webhook": Webhook,
    "email": Email,
    "mqtt": Mqtt,
}


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One channel. It is told of alerts of `min_severity` or more that have reached `step` of the ladder."""

    name: str
    kind: Kind
    config: Config
    enabled: bool = True
    min_severity: int = 0
    step: int = 0
    created_at: float = 0.0


def parse(name: str, kind: str, config: Mapping[str, Any]) -> Config:
    """Check a channel's name and configuration. Raises UsageError with the place and the remedy."""
    if not valid_name(name):
        raise UsageError(f"channel {name[:64]!r}: use 1 to 63 letters, digits, dots, dashes and underscores")
    if kind not in _TYPES:
        raise UsageError(f"channel {name}: its kind is webhook, email or mqtt")
    try:
        parsed = msgspec.convert(dict(config), type=_TYPES[kind], strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"channel {name}, config: {error}") from error
    for field in ("secret", "password", "ca"):
        file = getattr(parsed, field, None)
        if file is not None and not valid_name(file):
            raise UsageError(
                f"channel {name}, {field}: give the name of a file in the gateway's folder {SECRETS}, no path"
            )
    if isinstance(parsed, Webhook):
        check_url(name, parsed.url)
    if isinstance(parsed, Email) and parsed.security == "none" and not is_loopback(parsed.host):
        raise UsageError(f"channel {name}, security: mail to another machine needs starttls or tls")
    if isinstance(parsed, Email) and (parsed.username is None) != (parsed.password is None):
        raise UsageError(f"channel {name}: username and password go together; give both or neither")
    return parsed


def check_url(name: str, url: str) -> None:
    """https anywhere, http to this machine alone; nothing of a user, nothing behind a `#`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"channel {name}, url: {error}") from error
    if not url.isascii() or not url.isprintable() or " " in url or not host or parts.fragment:
        raise UsageError(f"channel {name}, url: write https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"channel {name}, url: no user name or password in it; requests are signed instead")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise UsageError(f"channel {name}, url: use https; http only to this machine itself")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its address or as `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secret_path(folder: Path, file: str) -> Path:
    """Where a secret lies. Raises UsageError for what is no plain name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", file):
        raise UsageError(f"secret {file[:64]!r}: give the name of a file, no path")
    return folder / SECRETS / file


def of_row(row: Mapping[str, Any]) -> Channel:
    """A channel from its row."""
    return Channel(
        name=row["name"],
        kind=row["kind"],
        config=msgspec.convert(json.loads(row["config"]), type=_TYPES[row["kind"]]),
        enabled=row["enabled"],
        min_severity=row["min_severity"],
        step=row["step"],
        created_at=row["created_at"],
    )


def channels(connection: Connection, *, enabled: bool | None = None) -> list[Channel]:
    """The channels, sorted by name; `enabled` picks those that are, or are not."""
    table = schema.channels
    query = select(table).order_by(table.c.name)
    if enabled is not None:
        query = query.where(table.c.enabled == enabled)
    return [of_row(row) for row in rows(connection, query)]
