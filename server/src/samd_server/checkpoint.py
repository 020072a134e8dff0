"""What a run needs to go on after a crash: written whole after each closed round, never half.

A run has a folder of its own: `order.json` (what was asked), `checkpoint.msgpack` (where it stands),
`metrics.jsonl` (what happened), `result.json` (how it ended). A folder with an order and no result is a run
to be resumed.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from samd_protocol.messages import RunOrder
from samd_protocol.tasks import Vector
from samd_server.errors import StoreError

T = TypeVar("T")


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """State after the last closed round. Everything random is drawn from (seed, round), so that the round
    number is the whole random state; FedAvg keeps nothing else between rounds."""

    run: str
    round: int
    weights: Vector
    label_counts: list[int]
    parent_version: int


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
        return self._read("order.json", RunOrder, msgspec.json.decode)

    def save(self, checkpoint: Checkpoint) -> None:
        write_atomically(self.path / "checkpoint.msgpack", msgspec.msgpack.encode(checkpoint))

    def load(self) -> Checkpoint | None:
        """The last checkpoint, or None before the first. Raises StoreError for a damaged one."""
        if not (self.path / "checkpoint.msgpack").exists():
            return None
        return self._read("checkpoint.msgpack", Checkpoint, msgspec.msgpack.decode)

    def log(self, **record: Any) -> None:
        """Append one line to the run's metrics. Metrics only: no reading ever comes this far."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "metrics.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")

    def finish(self, **record: Any) -> None:
        write_atomically(self.path / "result.json", msgspec.json.encode(record))

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").exists()

    def _read(self, name: str, type_: type[T], decode: Callable[..., T]) -> T:
        try:
            return decode((self.path / name).read_bytes(), type=type_)
        except (OSError, msgspec.DecodeError) as error:
            raise StoreError(f"{self.path / name}: cannot be read ({error}); the run cannot go on") from error


def unfinished(root: Path) -> list[RunFolder]:
    """Runs that were begun and not ended, oldest first."""
    if not root.is_dir():
        return []
    folders = [RunFolder(root, path.name) for path in root.iterdir() if (path / "order.json").exists()]
    open_ones = [folder for folder in folders if not folder.finished]
    return sorted(open_ones, key=lambda folder: (folder.path / "order.json").stat().st_mtime)
