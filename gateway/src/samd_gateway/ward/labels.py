"""How the labels of each version of the severity model were made, from the model files that are here."""

import threading

from samd_gateway.modelfiles import ModelFiles
from samd_gateway.ward.why import Labels

TASK = "severity"


class LabelsOf:
    """Looks a version up; the files are read anew only when one was added since."""

    def __init__(self, models: ModelFiles) -> None:
        self._models = models
        self._lock = threading.Lock()
        self._read_at = -1.0
        self._known: dict[int, Labels] = {}

    def __call__(self, version: int) -> Labels | None:
        with self._lock:
            changed_at = self._models.folder.stat().st_mtime
            if version not in self._known and changed_at != self._read_at:
                self._read_at = changed_at
                for entry in self._models.entries():
                    manifest = entry["manifest"]
                    if manifest["task"] == TASK:
                        self._known[manifest["version"]] = manifest["features"]["labels"]
            return self._known.get(version)
