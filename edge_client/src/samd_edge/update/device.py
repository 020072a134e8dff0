"""The device that is updated: its folders, its service, its time. And how an update ended, in a word."""

import contextlib
import time as clocks
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from samd_edge.clock import clock_synced, wall_now
from samd_edge.control import ControlError, ask
from samd_edge.update import health
from samd_edge.update.health import Time
from samd_edge.update.layout import Layout
from samd_edge.update.service import Service
from samd_edge.update.trial import Outcome


class BootTime:
    """Seconds since the boot, those asleep included: a Pi has no clock that survives."""

    def now(self) -> float:
        return clocks.clock_gettime(clocks.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        clocks.sleep(seconds)


@dataclass(frozen=True)
class Device:
    """Where an update happens. `step` hears each step that was done, `told` the share that is unpacked."""

    layout: Layout
    data_dir: Path
    service: Service
    boot_id: str
    time: Time = field(default_factory=BootTime)
    wall: Callable[[], datetime] = wall_now
    step: Callable[[str], None] = lambda _text: None
    told: Callable[[float], None] = lambda _share: None

    def outcome(
        self,
        how: Literal["done", "returned", "undone", "stayed"],
        release: str,
        before: str,
        reason: str = "",
    ) -> Outcome:
        """How an update ended, with the time as far as it is known."""
        return Outcome(
            outcome=how,
            release=release,
            before=before,
            reason=reason,
            at=self.wall(),
            clock=clock_synced(),
        )

    def tell(self, *, updating: bool) -> None:
        """Have the client tell the broker; an older one cannot be asked, and none may run."""
        with contextlib.suppress(ControlError):
            ask(self.data_dir, {"ask": "updating", "on": updating}, patience_s=health.PATIENCE_S)
