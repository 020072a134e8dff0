"""The models that a device holds: verified, kept by version, activated, rolled back.

Files are `DATA_DIR/models/VERSION-SHA.samd` and never overwritten. One model is active per task, beside each
other; versions are counted per task. What is active is one row of the device's file for each task, so that a
device killed in the middle of an activation has the old or the new model, whole. A bundle is verified
(length, SHA-256 of the announcement, every hash within) before anything of it is loaded. One that was never
trained is kept as the graph for training, and never assesses anybody.
"""

import hashlib
import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from samd_data.tasks import SEVERITY
from samd_edge.assessment import refusal
from samd_edge.database import micros
from samd_edge.device_db import DeviceDb, put
from samd_protocol import bundle as bundles
from samd_protocol.bundle import Bundle
from samd_protocol.errors import BundleError


class ModelError(Exception):
    """A model cannot be fetched, kept or used; the text is one sentence."""


class Held(NamedTuple):
    """One model on this device."""

    version: int
    sha256: str
    path: Path
    size: int
    task: str
    trained: bool
    graph_sha256: str


class Shelf:
    """What the device holds, and which of it is active for each task."""

    def __init__(self, db: DeviceDb, data_dir: Path) -> None:
        self._db = db
        self.folder = data_dir / "models"

    def all(self) -> list[Held]:
        """Every model held, oldest version first."""
        rows = self._db.rows(
            "SELECT version, sha256, file, size, task, trained, graph_sha256 FROM models "
            "ORDER BY version, added_at"
        )
        return [
            Held(row[0], row[1], self.folder / row[2], row[3], row[4], bool(row[5]), row[6]) for row in rows
        ]

    def find(self, version: int, sha256: str | None = None, *, task: str | None = None) -> Held | None:
        """A version that is held; of several files of one version, the one added last."""
        found = [
            held
            for held in self.all()
            if held.version == version and sha256 in (None, held.sha256) and task in (None, held.task)
        ]
        return found[-1] if found else None

    def with_graph(self, graph_sha256: str, *, task: str = SEVERITY) -> Held | None:
        """The newest model of a task held with this graph: what a training can use."""
        found = [held for held in self.all() if (held.graph_sha256, held.task) == (graph_sha256, task)]
        return found[-1] if found else None

    def active(self, task: str = SEVERITY) -> Held | None:
        """The model in use for a task, if there is one."""
        return self._named("active_model", task)

    def previous(self, task: str = SEVERITY) -> Held | None:
        """The model that was in use for a task before."""
        return self._named("previous_model", task)

    def _named(self, name: str, task: str) -> Held | None:
        key = self._db.get(_row(name, task))
        return None if key is None else self.find(int(key[0]), str(key[1]))

    def path_of(self, version: int, sha256: str) -> Path:
        return self.folder / f"{version}-{sha256}.samd"

    def keep(self, source: Path, *, now: datetime) -> Held:
        """Verify a bundle and keep it; one that is held already is left as it is. Raises BundleError."""
        bundle = bundles.read(source)
        target = self.path_of(bundle.manifest.version, bundle.sha256)
        if not same_file(target, bundle.sha256):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            bundles.write(target, bundle)
            sync_folder(self.folder)
        return self.record(bundle, target, now=now)

    def record(self, bundle: Bundle, path: Path, *, now: datetime) -> Held:
        """Enter a verified bundle that lies in its place."""
        manifest = bundle.manifest
        with self._db.write(synced=True) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    manifest.version,
                    bundle.sha256,
                    path.name,
                    bundle.size,
                    manifest.task,
                    int(manifest.trained),
                    bundle.graph_sha256,
                    micros(now),
                ),
            )
        held = self.find(manifest.version, bundle.sha256)
        if held is None:
            raise ModelError(f"model {manifest.version} could not be entered; check the disk")
        return held

    def load(self, held: Held) -> Bundle:
        """Read and verify a model's file again. Raises BundleError for one that was damaged on the disk."""
        return bundles.read(held.path, sha256=held.sha256)

    def check(self, held: Held, *, allow_untrained: bool = False) -> Bundle:
        """A model that may assess here, verified. Raises ModelError with the reason."""
        try:
            bundle = self.load(held)
        except BundleError as error:
            raise ModelError(str(error)) from error
        reason = refusal(bundle.manifest, allow_untrained=allow_untrained)
        if reason is not None:
            raise ModelError(f"model {held.version} is not activated: {reason}")
        return bundle

    def activate(self, held: Held) -> None:
        """Make a model the active one of its task, and the one before it the previous: one synced commit."""
        active, previous = _row("active_model", held.task), _row("previous_model", held.task)
        with self._db.write(synced=True) as connection:
            before = self._db.get(active)
            if before == [held.version, held.sha256]:
                return
            put(connection, previous, before)
            put(connection, active, [held.version, held.sha256])

    def roll_back(self, task: str = SEVERITY) -> Held:
        """Go back to a task's previous model. Raises ModelError when there is none or it cannot be used."""
        target = self.previous(task)
        if target is None:
            raise ModelError("there is no model to go back to")
        self.check(target)
        self.activate(target)
        return target


def _row(name: str, task: str) -> str:
    """The name of a task's row. That of severity has none added: clients that knew no other wrote it so."""
    return name if task == SEVERITY else f"{name}.{task}"


def same_file(path: Path, sha256: str) -> bool:
    """Whether the file is there with this content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Put a folder's new names on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
