"""Every JSON message of the wire, and commands as a device receives them."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from samd_edge.commands import Answer, CommandFailed, Commands, Refused
from samd_edge.device_db import DeviceDb
from samd_edge.outbox import Outbox
from samd_protocol import envelope, examples
from samd_protocol.envelope import Envelope, Sealer
from samd_protocol.errors import MessageError
from samd_protocol.messages import CHANNELS, Command, CommandBody, Result
from samd_scripts.fuzzing.choices import Choices
from samd_scripts.fuzzing.json_parts import changed
from samd_scripts.fuzzing.oracle import attempt, insist, one_line, parsed, same
from samd_scripts.fuzzing.target import Target

_REASONS: Final = ("size", "version", "malformed", "range", "forged")


def _decode(payload: bytes, sender: str | None = None) -> Envelope | None:
    try:
        return envelope.decode(payload, sender=sender)
    except MessageError as error:
        one_line(str(error))
        insist(error.reason in _REASONS, "a reason that is not documented", error.reason)
        return None


def check_envelope(payload: bytes) -> None:
    """Any bytes: a message that is accepted says what stands there, and comes back the same."""
    found = _decode(payload)
    if found is None:
        return
    sent_again = envelope.encode(found)
    insist(envelope.decode(sent_again) == found, "a message that changes when it is sent on", found)
    try:
        given = parsed(payload)
    except ValueError:  # in a part that is passed over
        return
    same(parsed(sent_again), given)
    insist(_decode(payload, found.device) == found, "refused under its own name", found)
    insist(_decode(payload, f"{found.device}x") is None, "accepted under another name", found)


def check_envelope_written(data: bytes) -> None:
    """Each message of the wire, one part changed: refused, or taken as it stands there."""
    choices = Choices(data)
    original = envelope.encode(examples.envelope(choices.pick(CHANNELS)))
    insist(envelope.decode(original) is not None, "an example that is refused")
    check_envelope(changed(choices, json.loads(original)).encode("utf-8", "replace"))


def _envelope_seeds() -> Iterable[bytes]:
    for channel in CHANNELS:
        yield envelope.encode(examples.envelope(channel))


# --- commands ----------------------------------------------------------------------------------------------


class Device:
    """Commands over a file of its own; what is carried out is kept."""

    def __init__(self, folder: Path) -> None:
        self.done: list[CommandBody] = []
        self.db = DeviceDb(folder)
        self.outbox = Outbox(self.db)
        self.choices = Choices(b"")
        sealer = Sealer("bed-01", 1, now=examples.start)
        self.commands = Commands(self.db, self.outbox, sealer, execute=self._execute, wall=lambda: self.wall)
        self.wall = examples.start()

    def fresh(self, choices: Choices) -> None:
        """As if nothing had been received."""
        self.done.clear()
        self.choices = choices
        self.wall = examples.start() + timedelta(seconds=choices.between(-20, 20))
        self.outbox.remove([row for row, *_ in self.outbox.next(100, ())])
        with self.db.write() as connection:
            connection.execute("DELETE FROM commands")

    def results(self) -> list[Envelope]:
        return [envelope.decode(payload, sender="bed-01") for _, _, payload, _ in self.outbox.next(100, ())]

    def _execute(self, body: CommandBody) -> Answer:
        self.done.append(body)
        match self.choices.below(4):
            case 1:
                raise Refused("no data")
            case 2:
                raise CommandFailed("the disk is full")
            case number:
                return Answer(accepted=number == 3)


_DEVICES: Final[list[Device]] = []  # made when first needed: one file serves every input


def _device() -> Device:
    if not _DEVICES:
        memory = Path("/dev/shm")  # noqa: S108  (each command is synced to the disk, twice)
        folder = tempfile.mkdtemp(prefix="samd-fuzz-", dir=memory if memory.is_dir() else None)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _DEVICES.append(Device(Path(folder)))
    return _DEVICES[0]


def check_command(payload: bytes) -> None:
    """Any bytes: a command is carried out as it stands there, in time, once, and answered each time."""
    _receive(payload, Choices(payload[::-1][:2]))


def check_command_written(data: bytes) -> None:
    """Each command, one part changed."""
    choices = Choices(data)
    body = choices.pick(list(examples.command_bodies()))
    expires_at = examples.start() + timedelta(seconds=choices.between(-20, 20))
    sealed = Sealer("gateway.ward-3", 12, now=examples.start, new_id=lambda: examples.message_id(8)).seal(
        Command(expires_at=expires_at, body=body)
    )
    text = envelope.encode(sealed)
    _receive(
        changed(choices, json.loads(text)).encode("utf-8", "replace") if choices.below(4) else text, choices
    )


def _receive(payload: bytes, choices: Choices) -> None:
    device = _device()
    device.fresh(choices)
    first = attempt(lambda: device.commands.receive(payload), MessageError)
    if first is None:
        insist(not device.done and not device.results(), "an effect of what was refused", device.done)
        return
    insist(isinstance(first, Result), "a first command without a result", first)
    command = envelope.decode(payload)
    assert isinstance(command.data, Command)
    in_time = device.wall < command.data.expires_at
    insist(bool(device.done) == in_time, "carried out too late, or not at all", first)
    insist((first.status == "expired") == (not in_time), "the wrong answer", first)
    insist(first.command == command.id, "the answer to another command", first)
    if first.reason is not None:
        one_line(first.reason)
    insist([result.data for result in device.results()] == [first], "not one answer", first)
    if device.done:
        _as_written(device.done[0], payload)
    again = attempt(lambda: device.commands.receive(payload), MessageError)
    insist(len(device.done) == int(in_time), "carried out twice", device.done)
    insist(again is None or not in_time, "another answer the second time", again)


def _as_written(body: CommandBody, payload: bytes) -> None:
    try:
        given: Any = parsed(payload)
    except ValueError:
        return
    same(parsed(msgspec.json.encode(body)), given["data"]["body"])


def _command_seeds() -> Iterable[bytes]:
    sealer = Sealer("gateway.ward-3", 12, now=examples.start)
    for body in examples.command_bodies():
        yield envelope.encode(
            sealer.seal(Command(expires_at=examples.start() + timedelta(seconds=15), body=body))
        )
    yield envelope.encode(examples.envelope(CHANNELS[0]))


_WORDS: Final = (
    *Envelope.__struct_fields__,
    *sorted({name for channel in CHANNELS for name in channel.message.__struct_fields__}),  # type: ignore[attr-defined]
    *sorted({str(channel.message.__struct_config__.tag) for channel in CHANNELS}),  # type: ignore[attr-defined]
    *sorted({str(body.__struct_config__.tag) for body in examples.command_bodies()}),
    '"type":"',
    '"v":1',
    "synced",
    "null",
    "2026-03-01T08:00:15Z",
    "1e400",
    "\\u0000",
)

TARGETS: Final = (
    Target(
        name="envelope",
        about="a message of the wire: any bytes",
        check=check_envelope,
        seeds=_envelope_seeds,
        words=_WORDS,
    ),
    Target(
        name="envelope-written",
        about="each message of the wire, one part changed",
        check=check_envelope_written,
        choices=True,
    ),
    Target(
        name="command",
        about="a command as a device receives it: any bytes",
        check=check_command,
        seeds=_command_seeds,
        words=_WORDS,
    ),
    Target(
        name="command-written",
        about="each command, one part changed",
        check=check_command_written,
        choices=True,
    ),
)
