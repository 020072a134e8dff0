"""TensorBoard: event files by tensorboardX, which needs neither TensorFlow nor TensorBoard to write them.

`tensorboard --logdir FOLDER` shows them: one curve for the server, one for each device.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from samd_server.tracking.records import points

SERVER = "server"


class TensorBoard:
    """A writer for the server and one for each device, below the run's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """The hyper-parameters as text, so that a curve can be told from another."""
        self._writer(SERVER).add_text("config", f"```\n{json.dumps(config, indent=2, sort_keys=True)}\n```")

    def log(self, record: Mapping[str, Any]) -> None:
        """Each number as a point at its round."""
        for point in points(record):
            writer = self._writer(SERVER if point.device is None else f"device-{point.device}")
            for tag, value in sorted(point.values.items()):
                writer.add_scalar(tag, value, point.round)
            writer.flush()

    def end(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, name: str) -> Any:
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name))
        return self._writers[name]
