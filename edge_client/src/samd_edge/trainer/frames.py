"""What the agent and its trainer say to each other: length-prefixed MessagePack over two pipes.

A frame is 4 bytes of length (big-endian) and one message. The agent writes ``Prepare`` and ``Work``; the
trainer answers ``Ready`` once, ``Prepared`` to each prepare, and to each task any number of ``Progress``, an
``Adopted`` when it left a personal model to be used, and exactly one ``Done``. ``Failed`` answers a frame
that is none of these; the trainer goes on.
"""

import struct
from typing import BinaryIO, Final

import msgspec

from samd_data.plausibility import printable

MAX_FRAME_BYTES: Final = 4_000_000
"""Far above the largest task (1 MB); a longer frame means that the two lost step, and nothing can follow."""

_LENGTH: Final = struct.Struct(">I")


class FrameError(Exception):
    """A frame cannot be read. ``fatal`` tells that the stream has lost step and has to be closed."""

    def __init__(self, text: str, *, fatal: bool) -> None:
        super().__init__(text)
        self.fatal = fatal


class Prepare(msgspec.Struct, frozen=True, kw_only=True, tag="prepare"):
    """Agent: read this admission's store and this model's bundle, and have the rows ready. `in_use` is the
    bundle that assesses now, which a personal model has to stand up to; empty when there is none."""

    bundle: str
    store: str
    in_use: str = ""


class Work(msgspec.Struct, frozen=True, kw_only=True, tag="task"):
    """Agent: the bytes of one ``samd_protocol.tasks.Task``, as they arrived."""

    task: bytes


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """Trainer: everything is loaded. ``runtime`` is the interpreter's name (or ``tensorflow``)."""

    trainer: str
    runtime: str
    pid: int


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """Trainer: rows of each class for training and in the hold-out, or why there are none."""

    graph_sha256: str = ""
    train: list[int] = msgspec.field(default_factory=list)
    holdout: list[int] = msgspec.field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Trainer: ``epoch`` of ``epochs`` are done; 0 says that the first step begins. ``at`` is wall time."""

    task: str
    run: str
    round: int
    epoch: int
    epochs: int
    at: float


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="update"):
    """Trainer: the bytes of one ``samd_protocol.tasks.Update``, ready to be sent."""

    update: bytes


class Adopted(msgspec.Struct, frozen=True, kw_only=True, tag="adopted"):
    """Trainer: this admission has a new personal model, which passed its examination."""

    run: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """Trainer: a frame could not be used, in one sentence."""

    error: str


FromAgent = Prepare | Work
FromTrainer = Ready | Prepared | Progress | Adopted | Done | Failed


def encode(message: FromAgent | FromTrainer) -> bytes:
    """One frame, length and all."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def length_of(prefix: bytes) -> int:
    """Bytes of the message behind a 4-byte prefix; raises FrameError(fatal) for an impossible one."""
    size = int(_LENGTH.unpack(prefix)[0])
    if size > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {size} bytes: {MAX_FRAME_BYTES} are allowed", fatal=True)
    return size


def read_body(stream: BinaryIO) -> bytes | None:
    """The next frame's message, None at the end of the stream; raises FrameError(fatal) for half a frame."""
    prefix = _read_exactly(stream, _LENGTH.size)
    if not prefix:
        return None
    if len(prefix) == _LENGTH.size:
        size = length_of(prefix)
        body = _read_exactly(stream, size)
        if len(body) == size:
            return body
    raise FrameError("the stream ended within a frame", fatal=True)


def decode_from_agent(body: bytes) -> FromAgent:
    """Read what the agent wrote; raises FrameError."""
    try:
        return msgspec.msgpack.decode(body, type=FromAgent)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise FrameError(printable(f"no frame of ours: {error}"), fatal=False) from error


def decode_from_trainer(body: bytes) -> FromTrainer:
    """Read what the trainer wrote; raises FrameError."""
    try:
        return msgspec.msgpack.decode(body, type=FromTrainer)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise FrameError(printable(f"no frame of ours: {error}"), fatal=False) from error


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)
