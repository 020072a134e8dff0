"""The text of `mosquitto.conf`: mutual TLS; the name in a certificate is the user, and nobody else may in."""

from pathlib import Path

import msgspec

MAX_PACKET_BYTES = 1_048_576 + 4096
"""As the programs take them: a megabyte of payload."""


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker listens: devices, server and a single gateway at `port`; gateways that share at
    `gateway_port`, where a client chooses its own id."""

    address: str = "127.0.0.1"
    port: int = 8883
    gateway_port: int | None = None


def _listener(folder: Path, port: int, address: str, authority: str, *, one_each: bool) -> list[str]:
    pki = folder / "pki"
    return [
        f"listener {port} {address}",
        f"cafile {pki}/{authority}.crt",
        f"crlfile {pki}/{authority}.crl",
        f"certfile {pki}/certs/broker.crt",
        f"keyfile {pki}/keys/broker.key",
        "require_certificate true",
        "use_identity_as_username true",
        # one connection for each certificate, and nobody takes over another's session
        f"use_username_as_clientid {'true' if one_each else 'false'}",
        "tls_version tlsv1.2",
    ]


def text(folder: Path, listen: Listen, user: str | None = None) -> str:
    """The file; `folder` is where it will lie, absolute; `user` whom Mosquitto becomes if root starts it."""
    lines = [
        "# Written by samd-gateway mosquitto; start it: mosquitto -c mosquitto.conf",
        *([] if user is None else [f"user {user}"]),
        "per_listener_settings false",
        f"acl_file {folder}/acl",
        "allow_anonymous false",
        "",
        "# A broker that is killed loses what it queued since the last save. A device keeps a message until",
        "# the broker has it, and a gateway acknowledges what is in its database.",
        "persistence true",
        f"persistence_location {folder}/db/",
        "autosave_interval 30",
        "persistent_client_expiration 14d",
        "",
        "max_queued_messages 100000",
        "max_queued_bytes 67108864",
        "max_inflight_messages 100",
        f"max_packet_size {MAX_PACKET_BYTES}",
        "max_keepalive 300",
        "sys_interval 10",
        "",
        "# devices, the server" + ("" if listen.gateway_port else ", the gateway"),
        *_listener(folder, listen.port, listen.address, "ca", one_each=True),
    ]
    if listen.gateway_port is not None:
        lines += [
            "",
            "# Gateways that share. They have an authority of their own, so that no device's certificate is",
            "# good here: one gateway takes over the session of another that is gone, by its client id.",
            *_listener(folder, listen.gateway_port, listen.address, "gateways-ca", one_each=False),
        ]
    return "\n".join([*lines, ""])
