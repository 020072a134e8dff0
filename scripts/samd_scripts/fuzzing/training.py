"""Training tasks and updates, and the frames between an agent and its trainer."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import numpy as np

from samd_edge.trainer import frames
from samd_protocol import examples, tasks
from samd_protocol.errors import MessageError
from samd_protocol.tasks import Task, Update, Vector
from samd_scripts.fuzzing.choices import Choices
from samd_scripts.fuzzing.oracle import insist, one_line, same
from samd_scripts.fuzzing.target import Target

_REASONS: Final = ("size", "version", "malformed", "checksum")
_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1e300, float("nan"),
    float("inf"), "", "train", "x" * 300, b"", b"\x00\x00\x80\x3f", [], [1, 2], {}, {"size": 1},
    [[1, 2], [3]], "\n\x1b[2J",
)  # fmt: skip


def _decode(decode: Callable[[bytes], Any], payload: bytes) -> Any:
    try:
        return decode(payload)
    except MessageError as error:
        one_line(str(error))
        insist(error.reason in _REASONS, "a reason that is not documented", error.reason)
        return None


def _check(decode: Callable[[bytes], Any], payload: bytes) -> None:
    found = _decode(decode, payload)
    if found is None:
        return
    sent_again = tasks.encode(found)
    insist(tasks.encode(decode(sent_again)) == sent_again, "changed when it is sent on", found)
    given = _plain(payload)
    if given is None:
        return
    same(_without_nan(msgspec.msgpack.decode(sent_again)), _without_nan(given))
    if found.weights is not None:
        _vector(found.weights, given["weights"])


def _vector(vector: Vector, given: Any) -> None:
    """The values are those of the bytes that came, and the checksum is theirs."""
    data = given["data"]
    insist(zlib.crc32(data) == given["crc32"] and len(data) == 4 * given["size"], "a damaged vector", given)
    values = vector.array()
    insist(values.dtype == np.float32, "no float32", values.dtype)
    insist(values.astype("<f4").tobytes() == data, "other values", vector)


def _plain(payload: bytes) -> Any:
    """The message without types; None where a name that is passed over is no text."""
    try:
        return msgspec.msgpack.decode(payload)
    except (UnicodeDecodeError, msgspec.DecodeError):
        return None


def _without_nan(tree: Any) -> Any:
    """NaN as a text, since it equals nothing."""
    if isinstance(tree, dict):
        return {key: _without_nan(item) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_without_nan(item) for item in tree]
    return "NaN" if isinstance(tree, float) and tree != tree else tree  # noqa: PLR0124


def check_task(payload: bytes) -> None:
    """Any bytes: a task that is accepted says what stands there, and its vector is undamaged."""
    _check(tasks.decode_task, payload)


def check_update(payload: bytes) -> None:
    """Any bytes, as for a task."""
    _check(tasks.decode_update, payload)


def check_training_written(data: bytes) -> None:
    """A task or an update, one part changed or one byte of its vector: refused, or taken as it stands."""
    choices = Choices(data)
    original: Any = choices.pick((examples.task(), examples.update(), examples.report()))
    decode: Callable[[bytes], Any] = tasks.decode_task if isinstance(original, Task) else tasks.decode_update
    values = np.frombuffer(choices.rest(4 * choices.below(9)).ljust(32, b"\x00"), "<f4").copy()
    if original.weights is not None:
        original = msgspec.structs.replace(original, weights=Vector.of(values))
    payload = tasks.encode(original)
    insist(tasks.encode(decode(payload)) == payload, "not what was sent", original)
    tree = msgspec.msgpack.decode(payload)
    if choices.flag() and tree["weights"] is not None:
        vector = bytearray(tree["weights"]["data"])
        vector[choices.below(len(vector))] ^= 1 << choices.below(8)
        tree["weights"]["data"] = bytes(vector)
        insist(_decode(decode, msgspec.msgpack.encode(tree)) is None, "a damaged vector is taken", tree)
        return
    part = tree
    while True:
        key = choices.pick(list(part))
        if not isinstance(part[key], dict) or not part[key] or choices.flag():
            break
        part = part[key]
    part[key] = choices.pick(_ODD)
    _check(decode, msgspec.msgpack.encode(tree))


def _task_seeds() -> Iterable[bytes]:
    yield tasks.encode(examples.task())


def _update_seeds() -> Iterable[bytes]:
    yield tasks.encode(examples.update())
    yield tasks.encode(examples.report())


# --- frames ------------------------------------------------------------------------------------------------


def check_frames(data: bytes) -> None:
    """Any bytes as a pipe: frame after frame until its end, or an error that says the stream lost step."""
    stream = io.BytesIO(data)
    try:
        while (body := frames.read_body(stream)) is not None:
            before = stream.tell() - len(body) - 4
            insist(data[before : stream.tell()] == struct.pack(">I", len(body)) + body, "another body", body)
            _message(frames.decode_from_agent, body)
            _message(frames.decode_from_trainer, body)
    except frames.FrameError as error:
        one_line(str(error))
        insist(error.fatal, "a stream goes on after half a frame", error)
        return
    insist(stream.tell() == len(data), "bytes that were passed over", stream.tell())


def _message(decode: Callable[[bytes], Any], body: bytes) -> None:
    try:
        found = decode(body)
    except frames.FrameError as error:
        one_line(str(error))
        insist(not error.fatal, "a stream ends over one message", error)
        return
    again = msgspec.msgpack.decode(frames.encode(found)[4:])
    given = _plain(body)
    if given is None:
        return
    same(_without_nan(again), _without_nan(given))


def _frame_seeds() -> Iterable[bytes]:
    agent = (
        frames.Prepare(bundle="a.samd", store="b.sqlite"),
        frames.Work(task=tasks.encode(examples.task())),
    )
    trainer = (
        frames.Ready(trainer="litert", runtime="tflite", pid=7),
        frames.Prepared(train=[1, 2, 3, 4], holdout=[0, 0, 1, 0]),
        frames.Progress(task="t", run="r", round=1, epoch=0, epochs=5, at=1.5),
        frames.Done(update=tasks.encode(examples.update())),
        frames.Failed(error="no frame of ours"),
    )
    for message in (*agent, *trainer):
        yield frames.encode(message)
    yield b"".join(frames.encode(message) for message in agent)
    yield struct.pack(">I", frames.MAX_FRAME_BYTES + 1)


_WORDS: Final[tuple[str | bytes, ...]] = (
    *Task.__struct_fields__,
    *Update.__struct_fields__,
    *tasks.TrainSettings.__struct_fields__,
    *tasks.EvaluationReport.__struct_fields__,
    b"\xa4size",
    b"\xc0",
    b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\xd6\xff\x00\x00\x00\x00",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
)

TARGETS: Final = (
    Target(
        name="task",
        about="a training task: any bytes",
        check=check_task,
        seeds=_task_seeds,
        words=_WORDS,
    ),
    Target(
        name="update",
        about="a training update: any bytes",
        check=check_update,
        seeds=_update_seeds,
        words=_WORDS,
    ),
    Target(
        name="training-written",
        about="tasks and updates, one part changed",
        check=check_training_written,
        choices=True,
    ),
    Target(
        name="frames",
        about="the pipe between agent and trainer: any bytes",
        check=check_frames,
        seeds=_frame_seeds,
        words=(
            "type",
            "prepare",
            "task",
            "ready",
            "prepared",
            "progress",
            "update",
            "error",
            b"\x00\x00\x00",
        ),
    ),
)
