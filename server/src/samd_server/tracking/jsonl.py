"""JSON lines: `metrics.jsonl` in the run's folder. Every run has it, and all else can be made from it."""

from collections.abc import Mapping
from typing import Any

from samd_server.checkpoint import RunFolder


class JsonLines:
    """Appends one line for each record."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """Nothing: the order that the run began with lies beside."""

    def log(self, record: Mapping[str, Any]) -> None:
        """One line."""
        self._folder.log(**record)

    def end(self) -> None:
        """Nothing: each line was written when it was said."""
