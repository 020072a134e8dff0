"""Training tasks and updates: MessagePack with a version, sizes and a checksum.

Weights are one flat little-endian float32 vector. The checksum (CRC-32, of the vector's bytes) finds damage
on the way; it is no proof of origin, which the broker's access list gives.
"""

import zlib
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from samd_protocol.errors import MessageError
from samd_protocol.scorebins import ScoreBins

TASK_VERSION = 1
MAX_TASK_BYTES = 1_000_000
"""Largest task or update: the embedded broker passes 1 MiB."""


class Vector(msgspec.Struct, frozen=True, kw_only=True):
    """A flat float32 vector with its length and checksum."""

    size: int
    crc32: int
    data: bytes

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "Vector":
        data = np.ascontiguousarray(values, dtype="<f4").ravel().tobytes()
        return cls(size=len(data) // 4, crc32=zlib.crc32(data), data=data)

    def array(self) -> NDArray[np.float32]:
        """The values, writable. Raises MessageError('checksum' or 'size') for a damaged vector."""
        if len(self.data) != 4 * self.size:
            raise MessageError("size", f"a vector of {self.size} values in {len(self.data)} bytes")
        if zlib.crc32(self.data) != self.crc32:
            raise MessageError("checksum", "a vector was damaged on the way")
        return np.frombuffer(self.data, dtype="<f4").astype(np.float32)


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Hyper-parameters of one round on one device. `log_prior` is empty for no logit adjustment.

    With `optimizer` "sgd" Adam's second moment is held still: rows that teach little then pull little.

    `method` is one of `samd_protocol.methods.METHODS`. Of the personal vector: `personal_epochs` and
    `personal_learning_rate` (0: as of the shared one), `personal_mu` (its pull to the global weights: Ditto's
    lambda), `personal_alpha` and `personal_alpha_rate` (APFL's share, and how fast it moves), `rehearsal`
    (rows of the forgetting grid that are mixed into its epochs). An older device passes over these and trains
    the shared vector alone.
    """

    epochs: int = 1
    learning_rate: float = 0.01
    proximal_mu: float = 0.0
    mask_rate: float = 0.0
    log_prior: list[float] = msgspec.field(default_factory=list)
    seed: int = 0
    optimizer: str = "adam"
    method: str = "none"
    personal_epochs: int = 0
    personal_learning_rate: float = 0.0
    personal_mu: float = 0.0
    personal_alpha: float = 0.5
    personal_alpha_rate: float = 0.0
    rehearsal: int = 0


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the server asks of one device in one round.

    `evaluate` reports on the device's rows of `split`: its training rows, or its hold-out (cut by time). With
    `personalise`, the device then fits its personal model to these weights, by the method of the settings,
    and decides whether it is used.
    """

    v: int = TASK_VERSION
    id: str
    run: str
    round: int
    device: str
    kind: Literal["train", "evaluate"]
    graph_sha256: str
    deadline_s: float
    weights: Vector
    settings: TrainSettings
    split: Literal["train", "holdout"] = "train"
    personalise: bool = False


class PersonalReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a device's personal model: counts on the same rows as the global one's, or none where it
    was not tried; `grid_recall` on the forgetting grid; whether it is used now, and why."""

    adopted: bool
    reason: str
    confusion: list[list[int]] = msgspec.field(default_factory=list)
    confusion_masked: list[list[int]] = msgspec.field(default_factory=list)
    grid_recall: float | None = None


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts only: `confusion[true][predicted]`, on complete rows and with signs masked; the mean loss.

    Of a task with two classes `bins` and `bins_masked` hold the scores by bin, which the server ranks."""

    confusion: list[list[int]]
    confusion_masked: list[list[int]]
    loss: float
    personal: PersonalReport | None = None
    bins: ScoreBins | None = None
    bins_masked: ScoreBins | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one task: weights and counts (`train`), a report (`evaluate`), or an error.

    `label_counts`: the rows of each class that were trained on, or that judged. `metrics`: what else a
    training says of itself, as the loss of the personal passes.
    """

    v: int = TASK_VERSION
    task: str
    run: str
    round: int
    device: str
    kind: Literal["train", "evaluate"]
    num_examples: int = 0
    weights: Vector | None = None
    loss: float | None = None
    report: EvaluationReport | None = None
    seconds: float = 0.0
    started_at: float = 0.0
    error: str | None = None
    label_counts: list[int] = msgspec.field(default_factory=list)
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


class _Version(msgspec.Struct):
    v: int = 0


_encoder = msgspec.msgpack.Encoder()
_version = msgspec.msgpack.Decoder(_Version)
_task = msgspec.msgpack.Decoder(Task)
_update = msgspec.msgpack.Decoder(Update)


def encode(item: Task | Update) -> bytes:
    """A task or update as MessagePack. Raises MessageError('size') for one that no broker would pass."""
    data = _encoder.encode(item)
    if len(data) > MAX_TASK_BYTES:
        raise MessageError("size", f"{len(data)} bytes to send: {MAX_TASK_BYTES} are allowed")
    return data


def _check(payload: bytes) -> None:
    if len(payload) > MAX_TASK_BYTES:
        raise MessageError("size", f"{len(payload)} bytes received: {MAX_TASK_BYTES} are allowed")
    try:
        version = _version.decode(payload).v
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise MessageError("malformed", f"no MessagePack of ours: {error}") from error
    if version not in (TASK_VERSION, TASK_VERSION - 1) or version < 1:
        raise MessageError("version", f"version {version}: this program reads {TASK_VERSION}")


def decode_task(payload: bytes) -> Task:
    """Read a task; raises MessageError with reason size, version, malformed or checksum."""
    _check(payload)
    try:
        task = _task.decode(payload)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise MessageError("malformed", f"no valid task: {error}") from error
    task.weights.array()
    return task


def decode_update(payload: bytes) -> Update:
    """Read an update; raises MessageError with reason size, version, malformed or checksum.

    Whether the numbers in it can be used (finite, right length, within norm) is the server's judgement.
    """
    _check(payload)
    try:
        update = _update.decode(payload)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise MessageError("malformed", f"no valid update: {error}") from error
    if update.weights is not None:
        update.weights.array()
    return update
