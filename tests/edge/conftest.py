"""A real broker, a peer that listens and speaks, agents as processes, and bundles; all of it ended again."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samd_data.reading import Reading
from samd_edge.control import ControlError, ask
from samd_protocol import bundle as bundles
from samd_protocol import envelope, topics
from samd_protocol.broker import Broker, connect, make_client
from samd_protocol.envelope import Envelope, Sealer
from samd_protocol.messages import Command, Message

DEADLINE_S = 20.0

AT_ONCE = """
[alerts]
hysteresis = 0
min_dwell_s = 0
urgent_refractory_s = 0
[artefacts]
jumps = false
"""
"""Alerts that answer to each reading, and patients who may be ill and well within the same second."""


def wait_until(check: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Poll until the check is true; fails with what was awaited."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        threading.Event().wait(0.01)
    pytest.fail(f"waited {timeout_s:g} s in vain for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BrokerProcess:
    """The embedded broker on a port of its own; it can be killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "samd_gateway", "broker", "--port", str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("ready ")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()


class Peer:
    """A client that hears everything below the root, and speaks as a gateway."""

    def __init__(self, url: str) -> None:
        self._seen: list[tuple[str, bytes]] = []
        self._known: dict[bytes, Envelope] = {}
        self._sealer = Sealer("gateway.test", 1)
        self._subscribed = threading.Event()
        self.client = make_client(Broker(url=url), f"test-peer-{os.getpid()}-{id(self)}")
        self.client.on_connect = lambda client, *_: client.subscribe("samd/v1/#", qos=1)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = lambda _c, _u, message: self._seen.append((message.topic, message.payload))
        connect(self.client, Broker(url=url))
        self.client.loop_start()
        assert self._subscribed.wait(DEADLINE_S)

    def raw(self, topic: str) -> list[bytes]:
        return [payload for seen, payload in list(self._seen) if seen == topic]

    def envelopes(self, device: str, kind: Any) -> list[Envelope]:
        return [self._decoded(payload, device) for payload in self.raw(topics.up(device, kind))]

    def _decoded(self, payload: bytes, device: str) -> Envelope:
        """Decoded once: a test that waits looks at the same messages a hundred times a second."""
        if payload not in self._known:
            self._known[payload] = envelope.decode(payload, sender=device)
        return self._known[payload]

    def wait(
        self,
        device: str,
        kind: Any,
        check: Callable[[Any], bool] = lambda _data: True,
        timeout_s: float = DEADLINE_S,
    ) -> Envelope:
        """The first envelope of a kind whose data fulfil the check."""

        def find() -> Envelope | None:
            return next((found for found in self.envelopes(device, kind) if check(found.data)), None)

        found = wait_until(find, f"{kind} from {device}", timeout_s)
        assert isinstance(found, Envelope)
        return found

    def forget(self) -> None:
        self._seen.clear()

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(DEADLINE_S)

    def say(self, topic: str, message: Message, *, retain: bool = False) -> str:
        sealed = self._sealer.seal(message)
        self.send(topic, envelope.encode(sealed), retain=retain)
        return sealed.id

    def command(self, device: str, body: Any, *, seconds: float = 30.0) -> Any:
        """Send a command and wait for its result."""
        identity = self.say(
            topics.down(device, "command"),
            Command(expires_at=datetime.now(UTC) + timedelta(seconds=seconds), body=body),
        )
        return self.wait(device, "result", lambda data: data.command == identity).data

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class AgentProcess:
    """One `samd-edge run`; lines of standard input are fed to the source `-`."""

    def __init__(self, device: str, data_dir: Path, broker: str, *options: str, source: str = "-") -> None:
        self.device = device
        self.data_dir = data_dir
        command = [sys.executable, "-m", "samd_edge", "run", "--device", device, "--source", source]
        if "--config" not in options:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = data_dir / "test.toml"
            file.write_text(AT_ONCE)
            command += ["--config", str(file)]
        command += ["--broker", broker, "--data-dir", str(data_dir), "--heartbeat", "0.5", *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._out: queue.Queue[bytes] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._drain, args=(self.process.stdout, self._out.put), daemon=True),
            threading.Thread(
                target=self._drain,
                args=(self.process.stderr, lambda line: self._errors.append(line.decode())),
                daemon=True,
            ),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _drain(stream: Any, take: Callable[[bytes], None]) -> None:
        with stream:
            for line in stream:
                take(line)

    @property
    def log(self) -> str:
        return "".join(self._errors)

    def ready(self) -> "AgentProcess":
        try:
            assert self._out.get(timeout=DEADLINE_S) == f"ready {self.device}\n".encode()
        except queue.Empty:
            pytest.fail(f"the agent did not get ready:\n{self.log}")
        return self

    def view(self) -> dict[str, Any] | None:
        """What it shows on the spot; None while it does not answer yet."""
        try:
            found: dict[str, Any] = ask(self.data_dir, {"ask": "view"})["view"]
        except ControlError:
            return None
        return found

    def feed(self, *readings: Reading) -> None:
        assert self.process.stdin is not None
        for reading in readings:
            self.process.stdin.write(msgspec.json.encode(reading) + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self._ended()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(DEADLINE_S)
        self._ended()
        return code

    def _ended(self) -> None:
        self.process.wait(DEADLINE_S)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    process = BrokerProcess()
    process.start()
    yield process
    process.stop()


@pytest.fixture
def own_broker() -> Iterator[BrokerProcess]:
    """A broker that is not started yet, for tests that start and stop it."""
    process = BrokerProcess()
    yield process
    process.stop()


@pytest.fixture
def listen() -> Iterator[Callable[[BrokerProcess], Peer]]:
    peers: list[Peer] = []

    def make(of: BrokerProcess) -> Peer:
        peers.append(Peer(of.url))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(broker: BrokerProcess, listen: Callable[[BrokerProcess], Peer]) -> Peer:
    return listen(broker)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """A device named after its test, so that retained messages never meet."""
    return str(request.node.name).split("[")[0].removeprefix("test_").replace("_", "-")[:60]


@pytest.fixture
def run_agent(tmp_path: Path, device: str) -> Iterator[Callable[..., AgentProcess]]:
    """Start an agent: `run_agent(broker_url, *options, source=..., data=...)`."""
    started: list[AgentProcess] = []

    def start(
        url: str, *options: str, source: str = "-", data: str = "device", name: str | None = None
    ) -> AgentProcess:
        started.append(AgentProcess(name or device, tmp_path / data, url, *options, source=source))
        return started[-1]

    yield start
    for agent in started:
        if agent.process.poll() is None:
            agent.kill()


@pytest.fixture(scope="module")
def shared_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """One agent without a broker, for tests that leave it as it is."""
    agent = AgentProcess("bed-09", tmp_path_factory.mktemp("agent"), "mqtt://127.0.0.1:1").ready()
    yield agent
    agent.stop()


@pytest.fixture
def make_bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """A bundle of a task's default network with its version and whether it counts as trained."""
    fixtures = {"severity": "untrained_bundle_path", "deterioration": "untrained_deterioration_path"}

    def make(version: int = 1, *, trained: bool = True, name: str = "model", task: str = "severity") -> Path:
        source = bundles.read(request.getfixturevalue(fixtures[task]))
        manifest = msgspec.structs.replace(source.manifest, version=version, trained=trained, hashes={})
        path = tmp_path / f"{name}-{task}-{version}.samd"
        bundles.write(path, msgspec.structs.replace(source, manifest=manifest))
        return path

    return make


@pytest.fixture
def wait() -> Callable[..., Any]:
    return wait_until
