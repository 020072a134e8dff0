"""The whole stack as real processes: broker, gateway, server, three devices with synthetic patients."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from samd_scripts.recordings import Recordings, prepare
from samd_scripts.stack import Stack, wait_until

DEVICES = 3


class Ward:
    """A running stack, and what the tests do with it."""

    def __init__(self, stack: Stack, recordings: Recordings, model: Path) -> None:
        self.stack = stack
        self.recordings = recordings
        self.model = model

    def start_agent(self, number: int, *, speed: int = 60) -> None:
        """Start (or start again) one device on its own folder."""
        patient = self.recordings.taking_part[number].patient
        source = f"replay:{self.recordings.folder}?patient={patient}&speed={speed}&from=70%"
        name = f"bed-{number + 1:02d}"
        self.stack.wait_ready(self.stack.agent(name, source, "--train-during-alert"), 60)

    def start_gateway(self) -> None:
        self.stack.wait_ready(self.stack.gateway(), 60)

    def start_server(self) -> None:
        self.stack.wait_ready(self.stack.server(self.model), 60)

    def kill(self, name: str) -> None:
        self.stack.programs.pop(name).kill()

    def run(self, name: str) -> dict:
        return self.stack.api("GET", f"/api/runs/{name}")

    def wait_round(self, run: str, number: int) -> None:
        wait_until(lambda: self.run(run)["round"] >= number, timeout=60, what=f"round {number}")

    def finish(self, run: str, timeout: float = 120) -> dict:
        *_, status = self.stack.follow_run(run, timeout=timeout)
        return status


@pytest.fixture
def ward(tmp_path: Path, untrained_bundle_path: Path) -> Iterator[Ward]:
    recordings = prepare("synthetic", tmp_path / "recordings", DEVICES)
    with Stack(tmp_path / "stack") as stack:
        stack.broker()
        ward = Ward(stack, recordings, untrained_bundle_path)
        ward.start_gateway()
        ward.start_server()
        for number in range(DEVICES):
            ward.start_agent(number)
        stack.wait_online(DEVICES)
        yield ward


@pytest.fixture
def eventually() -> Callable[..., object]:
    return wait_until
