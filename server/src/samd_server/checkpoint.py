"""What a run needs to go on after a crash: written whole after each closed round, never half.

A run has a folder of its own: `order.json` (what was asked), `checkpoint.msgpack` (where it stands),
`metrics.jsonl` (what happened), `halt` (an operator's stop or pause),
`result.json` (how it ended). A folder with an order and no result is a run to be resumed.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from samd_protocol.errors import MessageError
from samd_protocol.messages import RunOrder
from samd_protocol.tasks import Vector
from samd_server.errors import RunFailed

T = TypeVar("T")


class Kept(msgspec.Struct, frozen=True):
    """One array of a strategy's state, to the bit."""

    dtype: str
    data: bytes


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """State after the last closed round. Everything random is drawn from (seed, round), so that the round
    number is the whole random state; `strategy` is what the strategy keeps between rounds, by name."""

    run: str
    round: int
    weights: Vector
    label_counts: list[int]
    parent_version: int
    strategy: dict[str, Kept] = msgspec.field(default_factory=dict)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file by the whole new content, on the disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Put a folder's entries on the disk: without it a power cut may bring the old name back."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RunFolder:
    """The files of one run."""

    def __init__(self, root: Path, run: str) -> None:
        self.path = root / run
        self.run = run

    def begin(self, order: RunOrder) -> bool:
        """Keep the order on disk before it is acknowledged; False if this run is known already."""
        if (self.path / "order.json").exists():
            return False
        write_atomically(self.path / "order.json", msgspec.json.encode(order))
        return True

    def order(self) -> RunOrder:
        """What was asked. Raises RunFailed for a damaged file."""
        return self._read("order.json", RunOrder, msgspec.json.decode)

    def save(self, checkpoint: Checkpoint) -> None:
        write_atomically(self.path / "checkpoint.msgpack", msgspec.msgpack.encode(checkpoint))

    def load(self) -> Checkpoint | None:
        """The last checkpoint, or None before the first. Raises RunFailed for a damaged one."""
        path = self.path / "checkpoint.msgpack"
        if not path.exists():
            return None
        point = self._read(path.name, Checkpoint, msgspec.msgpack.decode)
        if point.run != self.run:
            raise RunFailed(f"{path}: is of run {point.run!r}, not of {self.run!r}; the run cannot go on")
        try:
            point.weights.array()
        except MessageError as error:
            raise RunFailed(f"{path}: {error}; the run cannot go on, start a new one") from error
        return point

    def halt(self, action: str | None) -> None:
        """Keep an operator's stop or pause on disk; None lifts it."""
        if action is None:
            (self.path / "halt").unlink(missing_ok=True)
        else:
            write_atomically(self.path / "halt", action.encode())

    @property
    def halted(self) -> str | None:
        """The stop or pause that holds for this run, if any."""
        try:
            return (self.path / "halt").read_text()
        except FileNotFoundError:
            return None

    def log(self, **record: Any) -> None:
        """Append one line to the run's metrics. Metrics only: no reading ever comes this far."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "metrics.jsonl").open("a+b") as file:
            whole = file.tell() == 0
            if not whole:
                file.seek(-1, os.SEEK_END)
                whole = file.read(1) == b"\n"
            # A crash may have left half a line: it must not spoil the next one.
            file.write((b"" if whole else b"\n") + msgspec.json.encode(record) + b"\n")

    def finish(self, **record: Any) -> None:
        write_atomically(self.path / "result.json", msgspec.json.encode(record))

    def result(self) -> dict[str, Any]:
        """How the run ended. Raises RunFailed for a damaged file."""
        return self._read("result.json", dict[str, Any], msgspec.json.decode)

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").exists()

    def _read(self, name: str, type_: type[T], decode: Callable[..., T]) -> T:
        try:
            return decode((self.path / name).read_bytes(), type=type_)
        except (OSError, msgspec.DecodeError) as error:
            raise RunFailed(
                f"{self.path / name}: cannot be read ({error}); the run cannot go on, start a new one"
            ) from error


def begun(root: Path) -> list[RunFolder]:
    """All runs that were begun, oldest first."""
    if not root.is_dir():
        return []
    folders = [RunFolder(root, path.name) for path in root.iterdir() if (path / "order.json").exists()]
    return sorted(folders, key=lambda folder: ((folder.path / "order.json").stat().st_mtime_ns, folder.run))


def unfinished(root: Path) -> list[RunFolder]:
    """Runs that were begun and not ended, oldest first."""
    return [folder for folder in begun(root) if not folder.finished]
