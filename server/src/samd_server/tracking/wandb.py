"""Weights & Biases: one run for the server, one for each device, in one group.

Offline unless a key is set (`WANDB_API_KEY`), or `WANDB_MODE` says otherwise: then nothing leaves the
machine, and `wandb sync FOLDER` sends it later. Numbers and hyper-parameters alone; no code, no console.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# It reports its own errors to its makers unless told not to, which it reads when it is imported.
os.environ["WANDB_ERROR_REPORTING"] = "false"

import wandb

from samd_server.tracking.records import points

SERVER: Final = "server"
PROJECT: Final = "samd"


def mode(environment: Mapping[str, str]) -> str:
    """Online with a key alone."""
    return environment.get("WANDB_MODE") or ("online" if environment.get("WANDB_API_KEY") else "offline")


class Wandb:
    """Runs of wandb below the run's folder, opened as devices are heard of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run = ""
        self._config: dict[str, Any] = {}
        self._label_counts: dict[str, list[int]] = {}
        self._runs: dict[str, Any] = {}

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """Remember what every run of the group has in its configuration."""
        self._run, self._config = run, dict(config)
        self._of(SERVER)

    def log(self, record: Mapping[str, Any]) -> None:
        """Numbers at their round; label counts into the configuration."""
        if record.get("event") == "counted":
            self._of(SERVER).config.update({"label_counts": record["label_counts"]}, allow_val_change=True)
            for device, said in record.get("by_device", {}).items():
                self._label_counts[device] = said["label_counts"]
                self._of(device)
        for point in points(record):
            self._of(point.device or SERVER).log({**point.values, "round": point.round})

    def end(self) -> None:
        """Finish every run, so that its file is whole."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()

    def _of(self, name: str) -> Any:
        if name in self._runs:
            return self._runs[name]
        self._folder.mkdir(parents=True, exist_ok=True)
        config = dict(self._config)
        if name in self._label_counts:
            config["label_counts"] = self._label_counts[name]
        made = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self._run,
            name=f"{self._run}-{name}",
            id=f"{self._run}-{name}",
            resume="allow",
            job_type="server" if name == SERVER else "device",
            dir=str(self._folder),
            config=config,
            mode=mode(os.environ),  # type: ignore[arg-type, unused-ignore]
            reinit="create_new",
            save_code=False,
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_save_requirements=False,
                host="samd-server",
            ),
        )
        made.define_metric("*", step_metric="round")
        self._runs[name] = made
        return made
