"""This device's part in a federated training: from `training.start` to the last update.

Tasks come from the server and go to the trainer; updates go out the moment they are there. An update that the
broker has not confirmed when the connection ends is sent again on the next one, until its round is over.
"""

import logging
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from samd_edge.link import Link
from samd_edge.models import Held
from samd_edge.trainer_host import TrainerHost, failure
from samd_protocol import tasks, topics
from samd_protocol.errors import MessageError
from samd_protocol.messages import Training
from samd_protocol.tasks import Task

log = logging.getLogger(__name__)

RUN_LEASE_S: Final = 900.0
"""A run from which nothing was heard for so long is over, whether anybody said so or not."""


class Run(msgspec.Struct):
    """The run that goes on; `heard` is when a message of it came last (monotonic seconds)."""

    id: str
    graph_sha256: str
    heard: float


class Waiting(NamedTuple):
    """An update that was published and not yet confirmed; `until` is when its round is over."""

    payload: bytes
    until: float


class Participation:
    """At most one run at a time. Used within the loop; `confirmed` may be called from any thread."""

    def __init__(
        self,
        device: str,
        *,
        trainer: str,
        prefork: bool,
        link: Callable[[], Link],
        tell: Callable[[Training], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        adopted: Callable[[], None] = lambda: None,
    ) -> None:
        self._device = device
        self._prefork = prefork
        self._link = link
        self._tell = tell
        self._spawn = spawn
        self._topic = topics.up(device, "update")
        self.trainer = TrainerHost(on_update=self._update, on_phase=tell, on_adopted=adopted, trainer=trainer)
        self._run: Run | None = None
        self._unconfirmed: dict[int, Waiting] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Have a trainer at hand before the first run, unless told not to."""
        if self._prefork:
            self.trainer.prefork()

    async def close(self) -> None:
        """End the trainer."""
        await self.trainer.close()

    def running(self) -> Run | None:
        """The run that goes on, if there is one: a run that was silent for too long is over."""
        run = self._run
        if run is not None and time.monotonic() - run.heard > RUN_LEASE_S and not self.trainer.busy:
            log.warning("run %s was silent for %.0f s: it is taken as over", run.id, RUN_LEASE_S)
            self._run = None
        return self._run

    def join(self, run: str, held: Held, store: Path, in_use: Path | None = None) -> None:
        """Take part: the trainer reads the store, in the background. Joining twice does nothing."""
        known = self.running()
        if known is not None and known.id == run:
            known.heard = time.monotonic()
            return
        self._run = Run(run, held.graph_sha256, time.monotonic())
        self._spawn(self._join(run, held.path, store, in_use))

    async def _join(self, run: str, bundle: Path, store: Path, in_use: Path | None) -> None:
        await self.trainer.leave()
        if self._run is not None and self._run.id == run:
            self.trainer.begin(run, bundle, store, in_use)

    def leave(self, reason: str | None = None) -> None:
        """End this device's part in the run; the trainer stops what it does."""
        run, self._run = self._run, None
        if run is not None:
            self._tell(Training(run=run.id, round=0, phase="stopped", error=reason))
            self._spawn(self.trainer.leave())

    def forget(self) -> None:
        """The admission ends: leave the run, and end the trainer, which holds the patient's readings."""
        run, self._run = self._run, None
        if run is not None:
            self._tell(Training(run=run.id, round=0, phase="stopped", error="the patient was discharged"))
        self._spawn(self.trainer.forget(replace=self._prefork))

    def take_task(self, payload: bytes) -> None:
        """A message from `dn/task`. Raises MessageError for one that is none, or is another device's."""
        task = tasks.decode_task(payload)
        if task.device != self._device:
            raise MessageError("forged", f"a task for {task.device!r}")
        run = self.running()
        if run is None or run.id != task.run:
            self._update(task, failure(task, "this device takes no part in that run"))
        elif run.graph_sha256 != task.graph_sha256:
            self._update(task, failure(task, "another graph than that of the run"))
        else:
            run.heard = time.monotonic()
            self.trainer.submit(task, payload)

    def connected(self) -> None:
        """Send again what the last connection took and nobody confirmed."""
        with self._lock:
            waiting, self._unconfirmed = self._unconfirmed, {}
        for update in waiting.values():
            if time.monotonic() < update.until:
                self._send(update)

    def confirmed(self, packet: int) -> None:
        """The broker has confirmed a packet (of any kind). Under paho's lock: takes a moment, never waits."""
        with self._lock:
            self._unconfirmed.pop(packet, None)

    def _update(self, task: Task, payload: bytes) -> None:
        self._send(Waiting(payload, time.monotonic() + task.deadline_s))

    def _send(self, update: Waiting) -> None:
        now = time.monotonic()
        expiry_s = max(1, round(update.until - now))
        packet = self._link().publish(self._topic, update.payload, qos=1, expiry_s=expiry_s)
        with self._lock:
            kept = {key: other for key, other in self._unconfirmed.items() if other.until > now}
            # a packet that is confirmed before it is entered here is only sent once more
            kept[packet if packet is not None else -1 - len(kept)] = update
            self._unconfirmed = kept
