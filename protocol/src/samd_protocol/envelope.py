"""The one envelope around every JSON message, and its codec.

`id` is the key for dropping duplicates; `(boot, seq)` is the order within one sender; `clock` says whether
`sent_at` can be believed. The receiver derives ages from its own clock, never from `sent_at`.
"""

import itertools
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, cast

import msgspec

from samd_protocol import PROTOCOL_VERSION
from samd_protocol.errors import MessageError
from samd_protocol.messages import Message, Moment

MAX_BYTES = 262_144
"""Largest JSON message that is looked at; a longer one is refused unread."""

_LARGEST_COUNTER = 2**63 - 1  # what the integer of a database holds
_SENDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,70}")  # a name, or `gateway.` and a name


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One message on the wire. `device` is the sender: a device's name, `server`, or `gateway.NAME`."""

    v: int
    id: str
    device: str
    boot: int
    seq: int
    sent_at: Moment
    clock: Literal["synced", "unsynced"]
    data: Message
    expires_at: Moment | None = None

    @property
    def type(self) -> str:
        return str(self.data.__struct_config__.tag)


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope as JSON: the same, with the message's type spelled out beside its data."""

    v: int
    id: str
    device: str
    boot: int
    seq: int
    sent_at: Moment
    clock: Literal["synced", "unsynced"]
    type: str
    data: msgspec.Raw
    expires_at: Moment | None = None


class _Version(msgspec.Struct):
    v: int = 0


class Sealer:
    """Puts one sender's messages into envelopes: its name, boot counter and running sequence number.

    One instance per process; safe to call from several threads.
    """

    def __init__(
        self,
        device: str,
        boot: int,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], Literal["synced", "unsynced"]] = lambda: "unsynced",
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.device = device
        self.boot = boot
        self._now = now
        self._clock = clock
        self._new_id = new_id
        self._seq = itertools.count(1)

    def seal(self, message: Message, *, expires_at: datetime | None = None) -> Envelope:
        """Wrap a message with the next sequence number."""
        return Envelope(
            v=PROTOCOL_VERSION,
            id=self._new_id(),
            device=self.device,
            boot=self.boot,
            seq=next(self._seq),
            sent_at=self._now(),
            clock=self._clock(),
            data=message,
            expires_at=expires_at,
        )


_message_decoder = msgspec.json.Decoder(Message)
_wire_decoder = msgspec.json.Decoder(Wire)
_version_decoder = msgspec.json.Decoder(_Version)


def encode(envelope: Envelope) -> bytes:
    """The envelope as JSON bytes."""
    fields = {name: getattr(envelope, name) for name in envelope.__struct_fields__ if name != "data"}
    return msgspec.json.encode(
        Wire(type=envelope.type, data=msgspec.Raw(msgspec.json.encode(envelope.data)), **fields)
    )


def decode(payload: bytes, *, sender: str | None = None) -> Envelope:
    """Read an envelope; fields that this program does not know are passed over.

    `sender` is the name in the topic, which the broker has checked; an envelope that claims another is
    refused. Raises MessageError with reason `size`, `version`, `malformed`, `range` or `forged`.
    """
    if len(payload) > MAX_BYTES:
        raise MessageError("size", f"a message of {len(payload)} bytes: {MAX_BYTES} are allowed")
    try:
        version = _version_decoder.decode(payload).v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError("malformed", f"no JSON message: {error}") from error
    if version not in (PROTOCOL_VERSION, PROTOCOL_VERSION - 1) or version < 1:
        raise MessageError(
            "version", f"message version {version}: this program reads {PROTOCOL_VERSION} and the one before"
        )
    try:
        wire = _wire_decoder.decode(payload)
        data = _message_decoder.decode(wire.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError("malformed", f"no valid message: {error}") from error
    tag = str(data.__struct_config__.tag)
    if tag != wire.type:
        raise MessageError("malformed", f"the envelope says {wire.type!r}, its data {tag!r}")
    if sender is not None and wire.device != sender:
        raise MessageError("forged", f"on the topic of {sender!r} with the name {wire.device!r}")
    if not 0 < len(wire.id) <= 64 or not wire.id.isprintable() or not _SENDER.fullmatch(wire.device):
        raise MessageError("malformed", "the id or the sender's name is empty, too long or not printable")
    if not (0 <= wire.boot <= _LARGEST_COUNTER and 0 <= wire.seq <= _LARGEST_COUNTER):
        raise MessageError("range", "boot or seq is negative or has more than 63 bits")
    fields = {name: getattr(wire, name) for name in wire.__struct_fields__ if name not in ("type", "data")}
    return Envelope(data=cast("Message", data), **fields)
