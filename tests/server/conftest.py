"""A ward of devices that speak the protocol in this process, on a clock that only the test moves."""

import heapq
import itertools
import queue
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from samd_protocol import bundle as bundles
from samd_protocol import tasks
from samd_protocol.bundle import GRAPH, Bundle, Features, Layer, Manifest
from samd_protocol.messages import RunSpec, RunStatus
from samd_protocol.tasks import EvaluationReport, Task, Update, Vector
from samd_server import flower

with warnings.catch_warnings():
    # Flower's command line, which we never run, uses what click deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    flower.prepare()
    from samd_server.checkpoint import RunFolder
    from samd_server.grid import MqttGrid
    from samd_server.loop import RoundLoop

Answer = Callable[[Task], Update | None]


class Inbox:
    """The grid's inbox on simulated time: waiting moves the clock, to the next event or by the timeout."""

    def __init__(self) -> None:
        self.time = 0.0
        self._events: list[tuple[float, int, object]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self.time

    def at(self, time: float, event: object) -> None:
        """An update that arrives at `time`, or a function that is called then."""
        heapq.heappush(self._events, (time, next(self._order), event))

    def put(self, item: Update | None, /) -> None:
        self.at(self.time, item)

    def get(self, *, timeout: float) -> Update | None:
        until = self.time + timeout
        while self._events and self._events[0][0] <= until:
            time, _, event = heapq.heappop(self._events)
            self.time = max(self.time, time)
            if callable(event):
                event()
                continue
            return event  # type: ignore[return-value]
        self.time = until
        raise queue.Empty

    def wait(self, seconds: float) -> None:
        """Let time pass, with what happens meanwhile."""
        until = self.time + seconds
        while self._events and self._events[0][0] <= until and callable(self._events[0][2]):
            time, _, event = heapq.heappop(self._events)
            self.time = max(self.time, time)
            event()  # type: ignore[operator]
        self.time = until


class Ward:
    """Devices that answer tasks; `answers` and `delays` (seconds) change what a device does."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self.inbox = Inbox()
        self.answers: dict[str, Answer] = {}
        self.delays: dict[str, float] = {}
        self.asked: list[Task] = []
        self.statuses: list[RunStatus] = []
        self.halt: str | None = None
        flower.identify(1)

    def send(self, device: str, task: Task) -> None:
        task = tasks.decode_task(tasks.encode(task))
        assert task.device == device
        self.asked.append(task)
        update = self.answers.get(device, honest)(task)
        if update is not None:
            update = tasks.decode_update(tasks.encode(update))
            self.inbox.at(self.inbox.time + self.delays.get(device, 0.01), update)

    @staticmethod
    def honest(task: Task) -> Update:
        """What a device does that is not told otherwise."""
        return honest(task)

    def answering(self, device: str, *, split: str, instead: Answer) -> None:
        """Let a device answer the tasks of one split otherwise."""
        self.answers[device] = lambda task: instead(task) if task.split == split else honest(task)

    def grid(self, run: str = "run-1") -> MqttGrid:
        return MqttGrid(
            run, self.names, self.send, graph_sha256="9" * 64, now=self.inbox.now, inbox=self.inbox
        )

    def loop(self, spec: RunSpec, root: Path, parent: Bundle, run: str = "run-1") -> RoundLoop:
        self.last_grid = self.grid(run)
        return RoundLoop(
            spec,
            self.last_grid,
            RunFolder(root, run),
            parent,
            publish=self.statuses.append,
            halted=lambda: self.halt,
            now=self.inbox.now,
            wait=self.inbox.wait,
        )

    def rounds(self, kind: str = "train") -> list[int]:
        """The round of each task of a kind, in the order in which they were sent to the first device."""
        return [task.round for task in self.asked if task.kind == kind and task.device == self.names[0]]


def honest(task: Task) -> Update:
    """The answer of a device that does its work: a step that depends on device, round and seed alone."""
    if task.kind == "evaluate":
        table = [[4, 1, 0, 0], [1, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]
        report = EvaluationReport(confusion=table, confusion_masked=table, loss=0.5)
        return answer(task, num_examples=20, report=report)
    seed = zlib.crc32(f"{task.device} {task.round} {task.settings.seed}".encode())
    rng = np.random.default_rng(seed)
    step = rng.normal(0.0, 0.1, task.weights.size).astype(np.float32)
    return answer(
        task,
        num_examples=int(rng.integers(1, 500)),
        weights=Vector.of(task.weights.array() + step),
        loss=float(rng.random()),
    )


def answer(task: Task, **fields: object) -> Update:
    """An update to a task, with these fields."""
    given = {"task": task.id, "run": task.run, "round": task.round, "device": task.device, "kind": task.kind}
    return Update(**(given | fields))  # type: ignore[arg-type]


@pytest.fixture
def make_ward() -> type[Ward]:
    return Ward


@pytest.fixture
def ward() -> Ward:
    return Ward(["bed-03", "bed-01", "bed-02"])


@pytest.fixture
def small_bundle() -> Bundle:
    """Five weights and no real graph: the round loop never looks into it."""
    return make_small_bundle(trained=False)


def make_small_bundle(*, trained: bool, version: int = 0) -> Bundle:
    manifest = Manifest(
        name="severity",
        version=version,
        task="severity",
        trained=trained,
        features=Features(name="test", labels="five", size=1),
        classes=["0", "1-4", "5-6", "7+"],
        layers=[Layer(name="a", shape=[2, 2]), Layer(name="b", shape=[1])],
        hashes={GRAPH: "9" * 64},
    )
    weights = np.array([0.5, -0.25, 0.125, 1.0, -1.0], dtype=np.float32)
    raw = Bundle(manifest=manifest, graph=b"graph", weights=weights, keras=b"keras")
    return bundles.unpack(bundles.pack(raw))


@pytest.fixture
def trained_bundle() -> Bundle:
    return make_small_bundle(trained=True, version=3)
