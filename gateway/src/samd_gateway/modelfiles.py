"""Model files on disk: `SHA256.samd`, verified before they are stored, written whole or not at all."""

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from samd_gateway.errors import NotFoundError
from samd_protocol import bundle
from samd_protocol.errors import BundleError

_NAME = re.compile(r"[0-9a-f]{64}")


class ModelFiles:
    """The folder of models. A file that is there is a verified bundle with the hash of its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a model is. Raises NotFoundError."""
        path = self.folder / f"{sha256}.samd"
        if not _NAME.fullmatch(sha256) or not path.is_file():
            raise NotFoundError(f"no model {sha256[:64]!r} here; GET /api/models lists those that are")
        return path

    def add(self, sha256: str, data: bytes) -> tuple[bundle.Bundle, bool]:
        """Verify and store a bundle; returns it and whether it is new here. Raises BundleError."""
        if not _NAME.fullmatch(sha256):
            raise BundleError(
                "a model's name is the SHA-256 of its file, 64 hexadecimal digits in lower case"
            )
        digest = hashlib.sha256(data).hexdigest()
        if digest != sha256:
            raise BundleError(
                f"the file received has the SHA-256 {digest}, not the one in its address; send it again"
            )
        verified = bundle.unpack(data)
        path = self.folder / f"{sha256}.samd"
        if path.is_file():
            return verified, False
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".upload-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._describe(verified)
        return verified, True

    def _describe(self, verified: bundle.Bundle) -> dict[str, Any]:
        """Keep what a list shows beside the file, so that a list need not verify every file again."""
        entry: dict[str, Any] = {
            "sha256": verified.sha256,
            "size": verified.size,
            "graph_sha256": verified.graph_sha256,
            "manifest": msgspec.to_builtins(verified.manifest),
        }
        temporary = self.folder / f".{verified.sha256}.json.tmp"
        temporary.write_bytes(msgspec.json.encode(entry))
        os.replace(temporary, self.folder / f"{verified.sha256}.json")
        return entry

    def entries(self) -> list[dict[str, Any]]:
        """Every model with its manifest, the newest version first."""
        entries = []
        for path in self.folder.glob("*.samd"):
            beside = path.with_suffix(".json")
            if beside.is_file():
                entries.append(msgspec.json.decode(beside.read_bytes(), type=dict[str, Any]))
            else:  # killed between the two files
                entries.append(self._describe(bundle.read(path)))
        return sorted(entries, key=lambda entry: (-entry["manifest"]["version"], entry["sha256"]))
