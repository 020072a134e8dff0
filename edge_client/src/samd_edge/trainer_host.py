"""The trainer as the agent sees it: a process that is started early, prepared, given tasks, and replaced.

One task at a time. A trainer that crashes, or is not done at the deadline, costs that round: the server gets
an update with the error, and a new trainer is started. Nothing here ever waits on the network, and nothing in
the agent waits on this: tasks go in, updates and phases come out through two callbacks in the loop.
"""

import asyncio
import contextlib
import logging
import resource
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from samd_edge.trainer import frames
from samd_protocol import tasks
from samd_protocol.messages import Training
from samd_protocol.tasks import Task, Update

log = logging.getLogger(__name__)

START_S: Final = 120.0
"""A trainer that is not ready by then will not be: TensorFlow takes 10 s, on a Pi 40 s."""
PROGRESS_S: Final = 1.0
"""At most one message of progress in this time."""
RESTARTS: Final = (0.1, 30.0)
"""First and longest pause before a trainer that ended is started again."""


class TrainerError(Exception):
    """The trainer cannot do what it was asked; the text says why."""


class Given(NamedTuple):
    """A task and when it came (monotonic seconds)."""

    task: Task
    payload: bytes
    received: float

    @property
    def deadline(self) -> float:
        return self.received + self.task.deadline_s


class TrainerHost:
    """Starts and keeps the trainer. Used within one loop.

    `on_update(task, payload)` gets the bytes of an `Update` the moment they are there; `on_phase` what to
    tell the server of the run; `on_adopted` is called when the trainer left a new personal model.
    """

    def __init__(
        self,
        *,
        on_update: Callable[[Task, bytes], None],
        on_phase: Callable[[Training], None],
        on_adopted: Callable[[], None] = lambda: None,
        trainer: str = "litert",
        command: Sequence[str] | None = None,
    ) -> None:
        self._on_update = on_update
        self._on_phase = on_phase
        self._on_adopted = on_adopted
        self._command = list(command or [sys.executable, "-m", "samd_edge.trainer", "--trainer", trainer])
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._wanted: asyncio.Queue[Given] = asyncio.Queue()
        self._inbox: asyncio.Queue[frames.FromTrainer | None] = asyncio.Queue()
        self._ready = asyncio.Event()
        self._plan: tuple[str, frames.Prepare] | None = None
        self._prepared_for: tuple[asyncio.subprocess.Process, frames.Prepare] | None = None
        self._current: Given | None = None
        self._last: tuple[str, bytes] | None = None
        self.peak_mb = 0.0

    @property
    def busy(self) -> bool:
        """Whether a task is being worked on or waits."""
        return self._current is not None or not self._wanted.empty()

    @property
    def pid(self) -> int | None:
        """The trainer's process, while there is one."""
        return None if self._process is None else self._process.pid

    def prefork(self) -> None:
        """Have a trainer ready before anybody asks for one."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="trainer-keeper")

    def begin(self, run: str, bundle: Path, store: Path, in_use: Path | None = None) -> None:
        """Take part in a run: have the trainer read the store, and tell when it is ready. `in_use` is the
        bundle that assesses now."""
        prepare = frames.Prepare(
            bundle=str(bundle), store=str(store), in_use="" if in_use is None else str(in_use)
        )
        self._plan = (run, prepare)
        self.prefork()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="trainer-work")

    def submit(self, task: Task, payload: bytes) -> None:
        """Queue a task of the run; one that was answered already is answered again, with the same bytes."""
        if self._last is not None and self._last[0] == task.id:
            self._on_update(task, self._last[1])
            return
        if self._current is not None and self._current.task.id == task.id:
            return
        self._wanted.put_nowait(Given(task, payload, time.monotonic()))

    async def leave(self) -> None:
        """End the part in a run. A trainer in the middle of a task is killed, and a fresh one started."""
        busy = self._current is not None
        await self._drop()
        if busy:
            await self._restart()

    async def forget(self, *, replace: bool) -> None:
        """End the trainer, which has a patient's readings in memory; with `replace`, start a fresh one."""
        await self._drop()
        await _cancelled(self._keeper)
        self._keeper = None
        await self._kill()
        if replace:
            self.prefork()

    async def _drop(self) -> None:
        self._plan = None
        self._last = None
        self._prepared_for = None
        while not self._wanted.empty():
            self._wanted.get_nowait()
        await _cancelled(self._worker)
        self._worker = None

    async def close(self) -> None:
        """End the trainer for good, and log the most memory that it took."""
        await self.forget(replace=False)
        children_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        if self.peak_mb or children_mb:
            log.info("the trainer took at most %.0f MB", max(self.peak_mb, children_mb))

    # -- the process ---------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Start a trainer, read what it says until it ends, and start the next."""
        pause = RESTARTS[0]
        while True:
            begin = time.monotonic()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C in the terminal ends the agent, and the agent ends it
                )
            except OSError as error:
                log.error("the trainer cannot be started (%s); trying again", error)
            else:
                await self._listen(self._process)
                code = await self._process.wait()
                self._ready.clear()
                self._process = None
                self._inbox.put_nowait(None)
                log.warning("the trainer ended (exit code %s); starting another", code)
            pause = RESTARTS[0] if time.monotonic() - begin > 10 else min(pause * 2, RESTARTS[1])
            await asyncio.sleep(pause)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        reader = process.stdout
        if reader is None:
            raise TrainerError("the trainer has no output")
        try:
            while True:
                prefix = await reader.readexactly(4)
                message = frames.decode_from_trainer(await reader.readexactly(frames.length_of(prefix)))
                if isinstance(message, frames.Ready):
                    self._ready.set()
                else:
                    self._inbox.put_nowait(message)
        except asyncio.IncompleteReadError:
            return
        except frames.FrameError as error:
            log.error("the trainer cannot be understood (%s); it is replaced", error)
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _kill(self) -> None:
        process, self._process = self._process, None
        self._ready.clear()
        while not self._inbox.empty():
            self._inbox.get_nowait()
        if process is None:
            return
        self._note_peak(process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def _note_peak(self, pid: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_mb = max(self.peak_mb, int(line.split()[1]) / 1024)

    # -- the work ------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Prepare, then one task after the other, for as long as the run goes on."""
        plan = self._plan
        if plan is None:
            return
        run, prepare = plan
        try:
            await asyncio.wait_for(self._prepare(prepare), START_S)
        except (TrainerError, TimeoutError) as error:
            self._on_phase(Training(run=run, round=0, phase="failed", error=_text(error)))
        else:
            self._on_phase(Training(run=run, round=0, phase="ready"))
        while True:
            given = await self._wanted.get()
            self._current = given
            try:
                await asyncio.wait_for(self._do(given, prepare), max(0.0, given.deadline - time.monotonic()))
            except TimeoutError:
                await self._fail(given, f"not done within {given.task.deadline_s:g} s")
                await self._restart()
            except TrainerError as error:
                await self._fail(given, str(error))
            finally:
                self._current = None

    async def _prepare(self, prepare: frames.Prepare) -> None:
        """Have the trainer at hand, with the rows read; does nothing when it has. Raises TrainerError."""
        await self._ready.wait()
        process = self._process
        if process is None:
            raise TrainerError("the trainer ended")
        if self._prepared_for is not None and self._prepared_for[0] is process:
            return
        while not self._inbox.empty():
            self._inbox.get_nowait()
        await self._send(process, prepare)
        while True:
            message = await self._inbox.get()
            if message is None:
                raise TrainerError("the trainer ended while it read the store")
            if isinstance(message, frames.Failed):
                raise TrainerError(message.error)
            if isinstance(message, frames.Prepared):
                break
        if message.error is not None:
            raise TrainerError(message.error)
        self._prepared_for = (process, prepare)

    async def _do(self, given: Given, prepare: frames.Prepare) -> None:
        task = given.task
        await self._prepare(prepare)
        process = self._process
        if process is None:
            raise TrainerError("the trainer ended")
        await self._send(process, frames.Work(task=given.payload))
        if task.kind == "evaluate":
            self._on_phase(Training(run=task.run, round=task.round, phase="evaluating"))
        told = 0.0
        while True:
            message = await self._inbox.get()
            if message is None:
                raise TrainerError("the trainer ended in the middle of the round")
            if isinstance(message, frames.Failed):
                raise TrainerError(message.error)
            if isinstance(message, frames.Adopted):
                self._on_adopted()
                continue
            if isinstance(message, frames.Done):
                self._last = (task.id, message.update)
                self._on_update(task, message.update)
                self._on_phase(
                    Training(
                        run=task.run,
                        round=task.round,
                        phase="sent",
                        progress=1.0,
                        seconds=time.monotonic() - given.received,
                    )
                )
                return
            if (
                isinstance(message, frames.Progress)
                and message.task == task.id
                and task.kind == "train"
                and (message.epoch == 0 or time.monotonic() - told >= PROGRESS_S)
            ):
                told = time.monotonic()
                first = datetime.fromtimestamp(message.at, UTC) if message.epoch == 0 else None
                self._on_phase(
                    Training(
                        run=task.run,
                        round=task.round,
                        phase="training",
                        progress=message.epoch / max(1, message.epochs),
                        first_step_at=first,
                    )
                )

    async def _send(self, process: asyncio.subprocess.Process, message: frames.FromAgent) -> None:
        if process.stdin is None:
            raise TrainerError("the trainer has no input")
        try:
            process.stdin.write(frames.encode(message))
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise TrainerError("the trainer ended") from error

    async def _fail(self, given: Given, reason: str) -> None:
        task = given.task
        log.warning("round %d of run %s failed here: %s", task.round, task.run, reason)
        update = failure(task, reason, seconds=time.monotonic() - given.received)
        self._last = (task.id, update)
        self._on_update(task, update)
        self._on_phase(Training(run=task.run, round=task.round, phase="failed", error=reason))

    async def _restart(self) -> None:
        await _cancelled(self._keeper)
        self._keeper = None
        await self._kill()
        self.prefork()


def failure(task: Task, reason: str, *, seconds: float = 0.0) -> bytes:
    """The bytes of an update that says why there is none."""
    return tasks.encode(
        Update(
            task=task.id,
            run=task.run,
            round=task.round,
            device=task.device,
            kind=task.kind,
            seconds=seconds,
            error=reason,
        )
    )


def _text(error: Exception) -> str:
    return str(error) or "the trainer did not get ready in time"


async def _cancelled(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
