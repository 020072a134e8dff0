"""The model store: one folder per version, versions only grow, nothing is ever overwritten.

models/severity/000001/model.samd    the bundle
models/severity/000001/card.json     metrics, decision, reason, hash
models/severity/released             the number of the version in use
"""

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from samd_protocol import bundle as bundles
from samd_protocol.bundle import Bundle
from samd_protocol.errors import BundleError
from samd_server.checkpoint import write_atomically
from samd_server.errors import StoreError


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of a version beside the bundle itself."""

    version: int
    task: str
    sha256: str
    decision: Literal["imported", "released", "kept"]
    reason: str
    created_at: datetime
    run: str | None = None
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)


class Registry:
    """Versions of the models of one task."""

    def __init__(self, root: Path, task: str) -> None:
        self.root = root / task
        self.task = task

    def versions(self) -> list[int]:
        """All versions, ascending."""
        if not self.root.is_dir():
            return []
        return sorted(
            int(path.parent.name) for path in self.root.glob("*/card.json") if path.parent.name.isdecimal()
        )

    def card(self, version: int) -> Card:
        try:
            return msgspec.json.decode((self._folder(version) / "card.json").read_bytes(), type=Card)
        except (OSError, msgspec.DecodeError) as error:
            raise StoreError(f"{self._folder(version)}: its card cannot be read ({error})") from error

    def read(self, version: int) -> Bundle:
        """A verified bundle. Raises StoreError for one that is missing or was changed."""
        try:
            return bundles.read(self._folder(version) / "model.samd", sha256=self.card(version).sha256)
        except BundleError as error:
            raise StoreError(f"{error}; restore the store from a backup") from error

    def add(
        self,
        bundle: Bundle,
        *,
        decision: Literal["imported", "released", "kept"],
        reason: str,
        run: str | None = None,
    ) -> Bundle:
        """Store a bundle under the version in its manifest; with decision `kept` it is not put to use.

        Raises StoreError if that version is there already.
        """
        version = bundle.manifest.version
        folder = self._folder(version)
        if (folder / "card.json").exists():
            raise StoreError(f"{folder}: version {version} is there already, and is never overwritten")
        written = bundles.write(folder / "model.samd", bundle)
        card = Card(
            version=version,
            task=self.task,
            sha256=written.sha256,
            decision=decision,
            reason=reason,
            created_at=datetime.now(UTC),
            run=run,
            metrics=bundle.manifest.metrics,
        )
        write_atomically(folder / "card.json", msgspec.json.encode(card))
        if decision != "kept":
            self.use(version)
        return written

    def use(self, version: int) -> None:
        """Put a stored version to use. Again after a crash that fell between its card and this."""
        write_atomically(self.root / "released", str(version).encode())

    @property
    def released(self) -> int | None:
        """The version in use, or None for an empty store."""
        with contextlib.suppress(FileNotFoundError):
            text = (self.root / "released").read_text()
            try:
                return int(text)
            except ValueError as error:
                raise StoreError(f"{self.root / 'released'}: holds {text!r}, no version") from error
        return None

    def of_run(self, run: str) -> Card | None:
        """The version that a run has already left behind, so that a resumed run makes no second one."""
        return next((card for card in map(self.card, self.versions()) if card.run == run), None)

    def next_version(self) -> int:
        return max(self.versions(), default=-1) + 1

    def _folder(self, version: int) -> Path:
        return self.root / f"{version:06d}"
