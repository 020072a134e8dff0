"""The personal vectors of one admission: two files in its folder, which never leave the device.

``personal-state.msgpack`` is what a method carries from round to round, ``personal-model.msgpack`` the vector
that assesses this patient. The trainer writes both, whole or not at all; the agent reads the second. A sealed
or erased admission takes them along.
"""

import contextlib
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np

from samd_data.tasks import SEVERITY
from samd_edge.assessment import Model
from samd_edge.personalisation import State
from samd_edge.runtime import Floats
from samd_protocol.errors import MessageError
from samd_protocol.tasks import Vector

log = logging.getLogger(__name__)

STATE_FILE: Final = "personal-state.msgpack"
MODEL_FILE: Final = "personal-model.msgpack"

T = TypeVar("T", bound=msgspec.Struct)


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """A method's state: the vector, the share (APFL), the rounds seen."""

    personal: Vector
    alpha: float
    rounds: int

    @classmethod
    def of(cls, state: State) -> "Carried":
        return cls(personal=Vector.of(state.personal), alpha=state.alpha, rounds=state.rounds)

    def state(self) -> State:
        return State(self.personal.array(), self.alpha, self.rounds)


class StateFile(msgspec.Struct, frozen=True, kw_only=True):
    """The states before and after the last round of a run: a round that is asked for twice begins twice at
    the same place."""

    method: str
    graph_sha256: str
    run: str
    round: int
    before: Carried
    after: Carried


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A vector in use: made by `method` in `run`; `judged` are the checksums of the global weights that it
    was found no worse than. With other global weights in use it has to be judged anew, and rests until
    then."""

    method: str
    graph_sha256: str
    run: str
    weights: Vector
    judged: list[int]


def load_state(
    folder: Path,
    *,
    method: str,
    graph_sha256: str,
    run: str,
    number: int,
    size: int,
    task: str = SEVERITY,
) -> State | None:
    """Where this round of a run begins; None for a device, a method or a model that is new here."""
    path = state_path(folder, task)
    kept = _read(path, StateFile)
    if kept is None or (kept.method, kept.graph_sha256) != (method, graph_sha256):
        return None
    carried = kept.before if (kept.run, kept.round) == (run, number) else kept.after
    try:
        state = carried.state()
    except MessageError as error:
        log.error("%s: %s; the personal vector begins anew", path, error)
        return None
    return state if state.personal.shape == (size,) else None


def state_path(folder: Path, task: str) -> Path:
    """Where a method keeps its state: a file for each task, so that a run of one does not end another's."""
    return folder / (STATE_FILE if task == SEVERITY else f"{task}-{STATE_FILE}")


def save_state(
    folder: Path,
    *,
    method: str,
    graph_sha256: str,
    run: str,
    number: int,
    before: State,
    after: State,
    task: str = SEVERITY,
) -> None:
    """Keep the state of a round."""
    kept = StateFile(
        method=method,
        graph_sha256=graph_sha256,
        run=run,
        round=number,
        before=Carried.of(before),
        after=Carried.of(after),
    )
    _write(state_path(folder, task), kept)


def load_model(folder: Path, graph_sha256: str) -> tuple[ModelFile, Floats] | None:
    """The personal vector of this admission for a graph, whole and finite; None when there is none."""
    kept = _read(folder / MODEL_FILE, ModelFile)
    if kept is None or kept.graph_sha256 != graph_sha256:
        return None
    try:
        weights = kept.weights.array()
    except MessageError as error:
        log.error("%s: %s; the global model goes on", folder / MODEL_FILE, error)
        return None
    return (kept, weights) if np.isfinite(weights).all() else None


def save_model(folder: Path, model: ModelFile) -> None:
    """Put a personal vector in use."""
    _write(folder / MODEL_FILE, model)


def for_patient(model: Model | None, graph_sha256: str | None, folder: Path) -> Model | None:
    """The model that assesses the patient of this folder: the personal one where it was judged against the
    global weights in use, else the global one."""
    if model is None or graph_sha256 is None:
        return model
    found = load_model(folder, graph_sha256)
    if found is None:
        return model
    kept, weights = found
    if checksum(model.weights) not in kept.judged or weights.shape != model.weights.shape:
        log.info("the personal model of run %s was judged against other weights: it rests", kept.run)
        return model
    return replace(model, weights=weights, personal=True)


def checksum(weights: Floats) -> int:
    """What tells global weights apart: the checksum that they travel with."""
    return Vector.of(weights).crc32


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, ValueError) as error:
        log.error("%s cannot be read (%s); it is left out", path, error)
        return None


def _write(path: Path, content: msgspec.Struct) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.msgpack.encode(content))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
