"""A ward of devices that speak the protocol in this process, on a clock that only the test moves."""

import heapq
import http.server
import itertools
import queue
import socket
import subprocess
import sys
import threading
import time
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
import pytest

from samd_protocol import bundle as bundles
from samd_protocol import envelope, tasks, topics
from samd_protocol.broker import Broker, connect, make_client
from samd_protocol.bundle import GRAPH, Bundle, Features, Layer, Manifest
from samd_protocol.envelope import Sealer
from samd_protocol.messages import (
    ModelAnswer,
    ModelOrder,
    ModelRelease,
    RunOrder,
    RunSpec,
    RunStatus,
    ServerState,
    State,
)
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

    def grid(self, run: str = "run-1", task: str = "severity") -> MqttGrid:
        return MqttGrid(
            run,
            self.names,
            self.send,
            graph_sha256="9" * 64,
            task=task,
            now=self.inbox.now,
            inbox=self.inbox,
        )

    def loop(
        self, spec: RunSpec, root: Path, parent: Bundle, run: str = "run-1", task: str = "severity"
    ) -> RoundLoop:
        self.last_grid = self.grid(run, task)
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


def eventually(what: Callable[[], object], *, timeout: float = 20.0) -> None:
    """Wait until `what` gives something true; fail after `timeout` seconds."""
    closes = time.monotonic() + timeout
    pause = threading.Event()
    while not what():
        assert time.monotonic() < closes, "it did not happen in time"
        pause.wait(0.01)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., None]:
    return eventually


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BrokerProcess:
    """The embedded broker as a process of its own, on one port for all its lives."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = Broker(url=f"mqtt://127.0.0.1:{self.port}")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "samd_gateway", "broker", "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("ready")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@pytest.fixture
def broker() -> Iterator[BrokerProcess]:
    process = BrokerProcess()
    process.start()
    yield process
    process.stop()


class Peers:
    """Devices and gateway as one MQTT client: answers tasks, gives orders, and hears all that is said."""

    def __init__(self, address: Broker) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[Task] = []
        self.runs: list[RunStatus] = []
        self.states: list[ServerState] = []
        self.releases: list[ModelRelease] = []
        self.model_answers: dict[str, ModelAnswer] = {}
        self._sealer = Sealer("gateway.test", 1)
        self.subscribed = threading.Event()
        self.client = make_client(address, f"peers-{uuid.uuid4()}", max_inflight=1000)
        self.client.on_connect = lambda client, *_: client.subscribe(
            [
                (f"{topics.ROOT}/d/+/dn/task", 1),
                (f"{topics.ROOT}/server/up/+", 1),
                *((topic, 1) for topic in topics.EVERY_MODEL),
            ]
        )
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = self._heard
        connect(self.client, address, clean_start=True)
        self.client.loop_start()
        assert self.subscribed.wait(20)

    def _heard(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/dn/task"):
            task = tasks.decode_task(message.payload)
            self.asked.append(task)
            update = self.answers.get(task.device, honest)(task)
            if update is not None:
                self.client.publish(topics.up(task.device, "update"), tasks.encode(update), qos=1)
            return
        said = envelope.decode(message.payload).data
        if isinstance(said, ModelAnswer):
            self.model_answers[said.order] = said
            return
        kept: list[object] = {"run.status": self.runs, "server.state": self.states, "model": self.releases}[
            str(said.__struct_config__.tag)
        ]  # type: ignore[assignment]
        kept.append(said)

    def order(self, action: str, run: str, spec: RunSpec | None = None, devices: Iterable[str] = ()) -> None:
        order = RunOrder(action=action, run=run, spec=spec, devices=sorted(devices))  # type: ignore[arg-type]
        self.say(topics.SERVER_ORDER, self._sealer.seal(order))

    def order_model(self, task: str, version: int) -> str:
        """Ask for a version to be put to use; returns the order's id, by which it is answered."""
        sealed = self._sealer.seal(ModelOrder(task=task, version=version))
        self.say(topics.SERVER_MODEL_ORDER, sealed)
        return sealed.id

    def state(self, device: str, status: str, *, boot: int = 1, connection: int = 1) -> None:
        said = State(
            status=status,  # type: ignore[arg-type]
            boot_id=f"boot-{boot}",
            connection=connection,
            client_version="0",
        )
        self.say(topics.up(device, "state"), Sealer(device, boot).seal(said), retain=True)

    def say(self, topic: str, sealed: envelope.Envelope, *, retain: bool = False) -> None:
        self.client.publish(topic, envelope.encode(sealed), qos=1, retain=retain).wait_for_publish(10)

    def ended(self, run: str) -> RunStatus | None:
        """How a run ended, as far as it was told."""
        ends = ("done", "failed", "stopped")
        return next((s for s in reversed(self.runs) if s.run == run and s.phase in ends), None)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def peers(broker: BrokerProcess) -> Iterator[Peers]:
    made = Peers(broker.address)
    yield made
    made.close()


class Uploads:
    """A gateway's model files, as far as the server needs them: a real HTTP server that takes PUT."""

    def __init__(self, port: int = 0) -> None:
        received: dict[str, bytes] = {}
        self.received = received

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                received[self.path] = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(201)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def make_uploads() -> Iterator[Callable[..., Uploads]]:
    made: list[Uploads] = []

    def make(port: int = 0) -> Uploads:
        made.append(Uploads(port))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def uploads(make_uploads: Callable[..., Uploads]) -> Uploads:
    return make_uploads()


@pytest.fixture(name="free_port")
def free_port_fixture() -> int:
    return free_port()
