"""A whole agent without a network, for what is asked of one: frozen time, a fresh patient for each input."""

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from samd_data.reading import Reading
from samd_data.table import write_csv
from samd_edge.admission import Record
from samd_edge.agent import Agent
from samd_edge.config import Settings
from samd_scripts.fuzzing.oracle import judge

START: Final = datetime(2026, 3, 1, 8, tzinfo=UTC)
T = TypeVar("T")


class Bedside:
    """One device at one bed. ``do`` runs something in its loop."""

    def __init__(self, speed: float) -> None:
        memory = Path("/dev/shm")  # noqa: S108  (every admission is synced to the disk)
        self.folder = Path(tempfile.mkdtemp(prefix="samd-fuzz-", dir=memory if memory.is_dir() else None))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        recording = self.folder / "7.csv"
        write_csv(recording, [reading(minute) for minute in range(0, 60, 10)])
        self.wall = START
        self.loop = asyncio.new_event_loop()
        atexit.register(self.close)
        settings = Settings(
            device="bed-01",
            source=f"replay:{recording}?speed={speed:g}",
            data_dir=str(self.folder / "device"),
            prefork=False,
        )
        self.agent = self.do(lambda: Agent(settings, wall=lambda: self.wall))
        self._admissions = 0
        self.known: list[Reading] = []

    def fresh(self, *, spo2_scale: int = 1) -> None:
        """Another patient, of whom an hour is known."""
        self.do(lambda: self.agent.close_admission(keep=False))
        rows = [row for row, *_ in self.agent.outbox.next(1000, ())]
        self.agent.outbox.remove(rows)
        self.wall = START
        self._admissions += 1
        record = Record(id=f"admission-{self._admissions}", spo2_scale=2 if spo2_scale == 2 else 1)
        self.do(lambda: self.agent.open_admission(record))
        now = self.agent.source.clock.now()
        self.known = [reading(minute, begin=now - timedelta(hours=1)) for minute in (0, 30, 59)]
        for given in self.known:
            self.do(lambda given=given: self.agent.intake.take(given))  # type: ignore[misc]

    def do(self, act: Callable[[], T]) -> T:
        async def acting() -> T:
            return act()

        return self.loop.run_until_complete(acting())

    def well(self) -> None:
        """What the agent now believes of its patient is plausible, and scores as the chart says."""
        admission = self.agent.admission
        if admission is not None and admission.latest is not None:
            judge(admission.latest.snapshot, at_once=False)

    def close(self) -> None:
        if self.loop.is_closed():
            return
        self.do(lambda: self.agent.close_admission(keep=False))
        self.agent.db.close()
        self.loop.close()


def reading(minute: int, begin: datetime = START) -> Reading:
    """A patient who is a little unwell."""
    return Reading(
        observed_at=begin + timedelta(minutes=minute),
        heart_rate=88.0 + minute % 7,
        respiratory_rate=22.0,
        spo2=95.0,
        systolic_bp=118.0,
        diastolic_bp=74.0,
        temperature=38.2,
    )
